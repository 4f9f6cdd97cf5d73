"""`grpo-evaluate` on what `grpo-train` left, as a user runs it."""

import json
import signal

import pytest

HELD_OUT = [{"id": f"unseen-{n}", "user_responses": [f"Where is order {n}?", "And when?"]} for n in range(4)]
CONFIG = {"training__num_episodes": 8, "training__eval_scenarios_file": "unseen.json", "environment__max_turns": 2}


@pytest.fixture
def trained(work):
    """A run with a custom reward, and one with built-in ones."""
    work.scenarios({"scenarios": HELD_OUT}, "unseen.json")
    work.write(**CONFIG)
    work.write("plain.json", rewards=[{"type": "safety"}, {"type": "conciseness"}], **CONFIG)
    for config, run in (("run.json", "own"), ("plain.json", "plain")):
        ended = work.train("--output-dir", run, config=config)
        assert ended.code == 0, ended.err
    return work


def evaluate(work, *arguments, **more):
    return work.start(*arguments, command="grpo-evaluate", **more).wait()


def test_a_run_is_evaluated_compared_saved_and_shown(trained):
    files = ("--output-file", "results.json", "--html", "page.html")
    ended = evaluate(trained, "plain", "--num-episodes", "8", "--compare-with", "plain/checkpoints/step-2", *files)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[2:4] == ["Checkpoint: plain", "Episodes: 8"]
    (reward,) = [line for line in lines if line.startswith("- Average Reward: ") and "(do nothing " in line]
    assert ", untrained " in reward
    assert "Compared with plain/checkpoints/step-2:" in lines
    assert "- scenarios: the 4 scenarios that the run held out of training" in lines
    assert "Agent Evaluation Results" not in ended.err
    data = json.loads((trained.path / "results.json").read_text())
    assert {one["scenario_id"] for one in data["episodes"]} == {f"unseen-{n}" for n in range(4)}
    assert "<h2>Conversations</h2>" in (trained.path / "page.html").read_text()


def test_a_reward_of_ones_own_needs_the_config_and_the_error_says_how(trained):
    ended = evaluate(trained, "own", "--num-episodes", "4")
    assert ended.code == 2
    assert "names the reward my_rewards.vowels" in ended.err
    assert f"grpo-evaluate own --num-episodes 4 --config-file {trained.path}/run.json" in ended.err
    ended = evaluate(trained, "own", "--num-episodes", "4", "--config-file", "run.json", "--no-floors")
    assert ended.code == 0, ended.err
    assert "- Average Reward: " in ended.out


def test_ctrl_c_prints_what_was_measured_with_honest_counts(trained):
    running = trained.start("plain", "--num-episodes", "4000", "--verbose", command="grpo-evaluate")
    trained.until(lambda: running.out.exists() and "[3/4000]" in running.out.read_text())
    running.send(signal.SIGINT)
    ended = running.wait()
    assert ended.code == 75, ended.err
    assert "stopping: what was measured will be printed" in ended.err
    told = ended.out.count("/4000] ")
    assert 3 <= told < 4000
    assert f"Episodes: {told} of 4000 (interrupted)" in ended.out
    assert "- Average Reward: " in ended.out
    assert "do nothing" not in ended.out
    assert "- it was interrupted before the floors had been played" in ended.out


def test_every_command_of_the_documents_runs_as_it_is_written(trained):
    (trained.path / "checkpoints").mkdir()
    for name in ("customer_service_agent", "my_agent", "model_v1", "model_v2"):
        (trained.path / "checkpoints" / name).symlink_to(trained.path / "plain")
    (trained.path / "data").mkdir()
    trained.scenarios({"scenarios": HELD_OUT}, "data/test_scenarios.json")
    for command in (
        "./checkpoints/customer_service_agent",
        "./checkpoints/my_agent --scenarios-file data/test_scenarios.json --num-episodes 200 --verbose "
        "--output-file results.json",
        "./checkpoints/model_v2 --compare-with ./checkpoints/model_v1 --metrics reward,length,success_rate,engagement",
    ):
        ended = evaluate(trained, *command.split())
        assert ended.code == 0, ended.err
        assert f"Checkpoint: {command.split()[0]}\nEpisodes: {200 if '200' in command else 100}\n" in ended.out
    assert "- Verdict: too few scenarios to tell" in ended.out
    assert "- Engagement Score: " in ended.out
    assert "Helpfulness" not in ended.out
