"""What a run does beside training, through the real command: evaluations, logs, sinks, variables, shipped configs."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELD_OUT = [{"id": "held-1", "user_responses": ["Is it free?"]}, {"id": "held-2", "user_responses": ["How long?"]}]
EVALUATED = {"training__eval_every": 8, "training__eval_samples": 2, "training__eval_scenarios_file": "held.json"}


def test_a_run_prints_its_report_to_stdout_and_everything_else_to_stderr(work):
    ended = work.train("--num-episodes", "8")
    assert ended.code == 0
    assert ended.out == (work.path / "outputs" / "report.txt").read_text()
    assert ended.out.startswith(f"GRPO Agent Framework - Training Complete\n{'=' * 38}\nEpisodes: 8\nFinal Reward: ")
    assert "\nAgent saved to: outputs/final_model\n" in ended.out
    assert "\x1b" not in ended.out + ended.err
    lines = ended.err.splitlines()
    assert "2 steps of 4 conversations (2 scenarios x 2), 3 scenarios in all" in lines
    assert [line.partition("  ")[0] for line in lines if line.startswith("step ")] == ["step 1/2", "step 2/2"]
    assert work.status()["state"] == "finished"


def test_the_same_seed_gives_the_same_run_and_another_one_another(work):
    for run, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        assert work.train("--seed", seed, "--output-dir", run).code == 0
    assert work.metrics("one") == work.metrics("two") != work.metrics("three")


def test_the_resolved_config_of_a_run_gives_the_same_run_again(work):
    assert work.train("--seed", "5", "--num-episodes", "8").code == 0
    (work.path / "outputs" / "config.yaml").rename(work.path / "again.yaml")  # beside the module that it names
    ended = work.train("--output-dir", "again", config="again.yaml")
    assert ended.code == 0, ended.err
    assert work.metrics("again") == work.metrics()


def test_evaluations_use_the_held_out_scenarios_and_leave_training_as_it_is(work):
    assert work.train("--output-dir", "plain").code == 0
    work.scenarios(HELD_OUT, "held.json")
    work.write(**EVALUATED)
    ended = work.train()
    assert ended.code == 0, ended.err
    rows = work.metrics()
    assert ["eval_reward_mean" in row for row in rows] == [False, True, False, True]
    assert all(row["eval_episodes"] == 4 for row in rows[1::2])
    assert all(row["eval_reward_low"] <= row["eval_reward_mean"] <= row["eval_reward_high"] for row in rows[1::2])
    assert "evaluated reward" in ended.err
    own = [{key: value for key, value in row.items() if not key.startswith("eval_")} for row in rows]
    assert own == work.metrics("plain")
    model = Path("final_model") / "model.safetensors"
    assert (work.path / "outputs" / model).read_bytes() == (work.path / "plain" / model).read_bytes()
    episodes = [json.loads(line) for line in (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()]
    played = {phase: {e["scenario_id"] for e in episodes if e["phase"] == phase} for phase in ("train", "eval")}
    assert played == {"train": {"price", "order", "refund"}, "eval": {"held-1", "held-2"}}


def test_early_stopping_ends_a_run_that_gets_no_better_and_the_report_says_so(work):
    work.write(
        training__learning_rate=1e-12,
        training__num_episodes=400,
        training__early_stopping=True,
        training__eval_every=4,
        training__eval_samples=1,
        training__patience=4,
    )
    ended = work.train()
    assert ended.code == 0, ended.err
    assert "Early stopping waits 3 evaluations (12 episodes)" in ended.err
    assert len(work.metrics()) == 4  # the first evaluation is the best one, three more are no better
    assert re.search(
        r"The run stopped early: 3 evaluations without improvement; best \d\.\d{3} at step 1\.", ended.out
    ), ended.out
    assert (work.path / "outputs" / "checkpoints" / "step-4").is_dir()
    before = work.metrics()
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    assert "The run stopped early: 3 evaluations without improvement" in ended.out
    assert work.metrics() == before


def test_a_stub_is_played_and_scored_and_the_run_says_that_nothing_was_trained(work):
    work.write(agent__model_name="stub://Yes, of course.|No.")
    ended = work.train()
    assert ended.code == 0, ended.err
    assert "This agent has no weights: nothing was trained." in ended.out
    assert "Training Health: UNKNOWN" in ended.out
    assert [row["reward_mean"] > 0 for row in work.metrics()] == [True] * 4
    assert "loss" not in work.metrics()[0]
    assert not list((work.path / "outputs" / "checkpoints").iterdir())
    assert (work.path / "outputs" / "final_model" / "agent.json").is_file()


def test_the_log_file_tells_the_whole_run_and_the_terminal_shows_warnings_only_once(work):
    work.write(logging__log_file="training.log", logging__level="INFO", environment__persona="A customer.")
    ended = work.train()
    assert ended.code == 0, ended.err
    log = (work.path / "outputs" / "training.log").read_text()
    for expected in (
        "4 steps of 4 conversations (2 scenarios x 2), 3 scenarios in all",
        "persona has no effect",
        "step 1/4  reward ",
        "step 4/4  reward ",
    ):
        assert log.count(expected) == 1
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO stateset_agents\.training", log)
    assert ended.err.count("step 4/4") == 1
    assert ended.err.count("persona has no effect") == 1


def test_the_log_file_tells_how_a_run_failed_and_goes_on_when_it_is_resumed(work):
    work.write(logging__log_file="training.log")
    good = (work.path / "my_rewards.py").read_text()
    (work.path / "my_rewards.py").write_text("async def vowels(turns, context=None):\n    return 1 / 0\n")
    assert work.train().code == 4
    (work.path / "my_rewards.py").write_text(good)
    assert work.train("--resume").code == 0
    log = (work.path / "outputs" / "training.log").read_text()
    assert log.index("failed: no conversation of the first step could be scored") < log.index(
        "resumed outputs at step 0"
    )
    assert "step 4/4" in log


def test_tensorboard_gets_every_step(work):
    work.write(logging__tensorboard={"log_dir": "boards"}, **EVALUATED)
    work.scenarios(HELD_OUT, "held.json")
    assert work.train().code == 0
    (events,) = (work.path / "boards").glob("events.*")
    written = events.read_bytes()
    for tag in (b"train/reward_mean", b"train/loss", b"train/learning_rate", b"eval/reward_mean"):
        assert tag in written


def test_a_sink_whose_package_is_missing_is_told_before_a_run_is_made(work):
    before = "import sys\nsys.modules['wandb'] = sys.modules['tensorboardX'] = None"
    for arguments, extra in ((["--wandb-project", "mine"], "wandb"), ([], "tensorboard")):
        work.write(logging__tensorboard=None if arguments else {"log_dir": "boards"})
        ended = work.train(*arguments, before=before)
        assert ended.code == 2
        assert f'pip install "grpo-agent-framework[{extra}]"' in ended.err
        assert not (work.path / "outputs").exists()


def test_variables_of_the_environment_are_honoured_and_told(work):
    (work.path / "elsewhere").mkdir()
    (work.path / "scenarios.json").rename(work.path / "elsewhere" / "scenarios.json")
    work.write(agent__model_name=None, training__mixed_precision=None)
    ended = work.train(
        GRPO_DEFAULT_MODEL="tiny",
        GRPO_DATA_DIR="elsewhere",
        GRPO_MIXED_PRECISION="false",
        GRPO_USE_GPU="false",
        GRPO_LOG_LEVEL="warning",
        GRPO_LOG_LEVLE="debug",
    )
    assert ended.code == 0, ended.err
    config = (work.path / "outputs" / "config.yaml").read_text()
    for line in ("model_name: tiny", "mixed_precision: false", "device: cpu", "level: WARNING"):
        assert line in config
    assert 'GRPO_LOG_LEVLE has no effect: no such variable; did you mean "GRPO_LOG_LEVEL"?' in ended.err
    assert "The warm-up" not in ended.err  # a note, below the level
    ended = work.train(GRPO_MIXED_PRECISION="perhaps")
    assert ended.code == 2
    assert 'GRPO_MIXED_PRECISION is "perhaps"; want true or false' in ended.err


def test_the_command_line_wins_over_variables_and_config(work):
    ended = work.train(
        "--model-name", "stub://x", "--log-level", "ERROR", GRPO_LOG_LEVEL="debug", GRPO_DEFAULT_MODEL="no"
    )
    assert ended.code == 0
    config = (work.path / "outputs" / "config.yaml").read_text()
    assert "model_name: stub://x" in config
    assert "level: ERROR" in config


@pytest.mark.parametrize("profile", ["conservative", "balanced", "aggressive", "experimental"])
def test_every_profile_trains(work, profile):
    training = {"mixed_precision": False, "num_generations": 2, "eval_every": 0}
    work.write(training=training)
    ended = work.train("--profile", profile, "--num-episodes", "4")
    assert ended.code == 0, ended.err
    assert work.metrics()[0]["updated"]


SHIPPED = sorted(file.name for file in (ROOT / "configs").glob("*.yaml"))
IMITATION = "order_imitation.yaml"  # learns from a file: a step of its own kind


def train_shipped(work, name):
    arguments = ("--model-name", "tiny", "--num-episodes", "16", "--no-gpu", "--output-dir", "run")
    ended = work.train(*arguments, config=f"configs/{name}")
    assert ended.code == 0, ended.err
    assert "WARNING" not in ended.err
    return ended


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != IMITATION])
def test_a_shipped_config_trains_from_any_folder(work, name):
    ended = train_shipped(work, name)
    (row,) = work.metrics("run")
    assert row["episodes"] in (16, 32)  # one step of the config
    assert f"Episodes: {row['episodes']}\n" in ended.out
    # A random model calls no tool, so that all its conversations about an order are worth the same.
    assert row["updated"] == (name != "order_service.yaml")
    assert row["failed"] == row["unscored"] == 0


def test_the_shipped_imitation_trains_and_its_model_goes_on_with_tools(work):
    """The two commands of configs/order_service.yaml."""
    ended = train_shipped(work, IMITATION)
    assert "Episodes: 18\n" in ended.out  # 16 records, in whole steps of 6
    assert all(row["updated"] for row in work.metrics("run"))
    arguments = ("--model-name", "run/final_model", "--num-episodes", "16", "--no-gpu", "--output-dir", "next")
    ended = work.train(*arguments, config="configs/order_service.yaml")
    assert ended.code == 0, ended.err
    assert "Success is judged by the environment's criterion." in ended.out


CUSTOM = """
from stateset_agents import AgentConfig, ConversationEnvironment, MultiTurnAgent


class Polite(MultiTurnAgent):
    def __init__(self, model_name):
        super().__init__(AgentConfig(model_name=model_name, system_prompt="Be polite."))

    async def process_turn(self, history, user_input, context=None):
        turn = await super().process_turn(history, user_input, context)
        turn.metadata["asked"] = user_input
        return turn


class Patient(ConversationEnvironment):
    async def step(self, state, action):
        state, response, _, done = await super().step(state, action)
        return state, response, 0.25, done
"""


def test_classes_of_the_users_own_train_as_the_config_says(work):
    (work.path / "my_classes.py").write_text(CUSTOM)
    work.write(
        agent={"type": "custom", "class": "my_classes.Polite", "model_name": "tiny", "max_new_tokens": 6},
        environment={"type": "custom", "class": "my_classes.Patient", "scenarios_file": "scenarios.json"},
    )
    ended = work.train("--num-episodes", "4")
    assert ended.code == 0, ended.err
    lines = (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()
    turns = [turn for line in lines for turn in json.loads(line)["turns"]]
    assert all("asked" in turn["metadata"] for turn in turns if turn["role"] == "assistant")
    (row,) = work.metrics()
    assert row["reward_min"] >= 0.25 * 1
    assert (
        json.loads((work.path / "outputs/final_model/agent.json").read_text())["config"]["system_prompt"]
        == "Be polite."
    )


def test_an_agent_whose_every_reply_is_edited_cannot_be_trained(work):
    (work.path / "my_classes.py").write_text(
        CUSTOM.replace("return turn", "turn.content += '!'\n        return turn", 1)
    )
    work.write(agent={"type": "custom", "class": "my_classes.Polite", "model_name": "tiny", "max_new_tokens": 6})
    ended = work.train()
    assert ended.code == 4
    assert "training stopped: nothing can be trained" in ended.err
    assert "process_turn returns a text of its own" in ended.err


def test_adapters_train_and_the_final_model_holds_them_merged(work):
    work.write(training__lora=True)
    ended = work.train("--num-episodes", "8")
    assert ended.code == 0, ended.err
    files = {file.name for file in (work.path / "outputs" / "checkpoints" / "step-2").iterdir()}
    assert {"adapter.safetensors", "optimizer.safetensors", "model.safetensors"} <= files
    assert "adapter.safetensors" not in {file.name for file in (work.path / "outputs" / "final_model").iterdir()}
    ended = work.train("--model-name", "outputs/final_model", "--output-dir", "next", "--num-episodes", "4")
    assert ended.code == 0, ended.err
