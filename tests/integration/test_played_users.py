"""`grpo-train` with a user that a model plays."""

import json

import yaml

USER = {"type": "model", "temperature": 1.0, "max_tokens": 6, "seed": 4}


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_with_a_played_user_says_so_everywhere_and_resumes_as_the_same_run(work):
    scenarios = [{"id": "price", "topic": "prices"}, {"id": "order", "user_responses": ["Where is my order?"]}]
    work.scenarios({"scenarios": scenarios})
    work.write(environment__user=USER, environment__persona="Ada, in a hurry")
    whole = work.train("--output-dir", "whole")
    assert whole.code == 0, whole.err
    assert "The user is played: tiny at temperature 1.0, seed 4." in whole.err
    assert "has no effect" not in whole.err

    written = {**USER, "done_marker": "[DONE]"}
    assert yaml.safe_load((work.path / "whole" / "config.yaml").read_text())["environment"]["user"] == written
    described = {"kind": "local", "model": "tiny", "repeatable": True, **written}
    record = json.loads((work.path / "whole" / "final_model" / "environment.json").read_text())
    assert record["user"] == described
    episodes = lines(work.path / "whole" / "trajectories.jsonl")
    assert len(episodes) == 16
    for episode in episodes:
        unheard = episode["user"].pop("unheard", [])
        assert episode["user"] == described
        assert bool(unheard) == (episode["outcome"] == "user")

    # Two steps, then the others: the frozen copy speaks as it did before the agent learned anything.
    work.write("half.json", environment__user=USER, environment__persona="Ada, in a hurry", training__num_episodes=8)
    assert work.train("--output-dir", "parts", config="half.json").code == 0
    resumed = work.train("--output-dir", "parts", "--resume", "--num-episodes", "16")
    assert resumed.code == 0, resumed.err
    assert work.metrics("parts") == work.metrics("whole")

    work.write(environment__user={**USER, "temperature": 0.5}, environment__persona="Ada, in a hurry")
    refused = work.train("--output-dir", "parts", "--resume", "--num-episodes", "24")
    assert refused.code == 2
    assert "environment.user.temperature" in refused.err


def test_a_dry_run_lists_the_user_and_asks_nobody(work):
    work.write(environment__user={"type": "endpoint", "base_url": "http://127.0.0.1:1/v1", "model_name": "m"})
    dry = work.train("--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert "environment.user.base_url" in dry.out
    assert "The user is played: m at temperature 0.7, seed 0." in dry.out
    assert not (work.path / "outputs").exists()
