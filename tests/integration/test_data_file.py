"""Learning from a file through the real command."""

import json

import pytest

from workplace import ANOTHER_MODEL

TALKS = [
    ["What does it cost?", "It is $49 a month.", "Thanks.", "You are welcome."],
    ["Where is my order?", "It is on the way."],
    ["I want a refund.", "You can have it in 5 days."],
    ["Hello", "How can I help?"],
    ["Is it free?", "No, it is $49."],
]
HELD_OUT = [{"id": "held-1", "user_responses": ["Is it free?"]}]


def turns(texts):
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


SFT = [{"messages": turns(talk)} for talk in TALKS]
DPO = [{"messages": turns(talk[:1]), "chosen": talk[1], "rejected": "No idea."} for talk in TALKS]
RECORDS = {"sft": SFT, "dpo": DPO}


def prepare(work, algorithm="sft", records=None, **changes):
    lines = RECORDS[algorithm] if records is None else records
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (work.path / "data.jsonl").write_text(text)
    work.write(
        **{
            "environment": None,
            "rewards": None,
            "training__num_generations": None,
            "training__algorithm": algorithm,
            "training__data_file": "data.jsonl",
            "training__num_episodes": 24,
            "training__eval_every": None,
            **changes,
        }
    )


def final(work, run):
    return (work.path / run / "final_model" / "model.safetensors").read_bytes()


STOP_AT_3 = """
import os, signal
from stateset_agents.training import trainer
record = trainer.Trainer._record
def stopping(self, row):
    record(self, row)
    if row["step"] == 3:
        os.kill(os.getpid(), signal.SIGINT)
trainer.Trainer._record = stopping
"""


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_an_interrupted_run_ends_as_an_undisturbed_one_does(work, algorithm):
    """Six steps of four records out of five, so that a round ends inside a step. Mutation: `drawn` not loaded."""
    prepare(work, algorithm)
    assert work.train("--output-dir", "whole").code == 0
    ended = work.train("--output-dir", "parted", before=STOP_AT_3)
    assert ended.code == 75, ended.err
    ended = work.train("--output-dir", "parted", "--resume")
    assert ended.code == 0, ended.err
    assert "resumed parted at step 3 of 6" in ended.err
    assert final(work, "parted") == final(work, "whole")
    assert work.metrics("parted") == work.metrics("whole")


def test_a_run_says_what_it_reads_and_how_the_loss_fell(work):
    prepare(work)
    ended = work.train()
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    told = f"6 steps of 4 records from {work.path / 'data.jsonl'}: 5 records, each read about 4.8 times"
    assert told in lines
    assert all("  loss " in line for line in lines if line.startswith("step "))
    assert "reward" not in ended.err
    rows = work.metrics()
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert f"\nFinal Loss: {rows[-1]['loss']:.3f} (at first {rows[0]['loss']:.3f})\n" in ended.out
    assert "Reward" not in ended.out
    dry = work.train("--dry-run").out
    assert "\nsteps: 6 of 4 records\nrecords: 5, each read about 4.8 times (epochs)\nepisodes: 24" in dry
    assert "\nevaluation: never\n" in dry


def test_a_cold_start_is_judged_by_held_out_scenarios_and_training_goes_on_from_it(work):
    prepare(work, training__eval_every=12, training__eval_samples=1, training__eval_scenarios_file="held.json")
    work.scenarios(HELD_OUT, "held.json")
    ended = work.train()
    assert ended.code == 0, ended.err
    assert ["eval_reward_mean" in row for row in work.metrics()] == [False, False, True] * 2
    assert "2 evaluations of 1 conversation (1 held-out scenario x 1)" in ended.err
    assert "\nEvaluated Reward: " in ended.out
    played = [json.loads(line) for line in (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()]
    assert {(episode["phase"], episode["scenario_id"]) for episode in played} == {("eval", "held-1")}
    work.write("grpo.json", agent__model_name="outputs/final_model", training__num_episodes=4)
    ended = work.train("--output-dir", "grpo", config="grpo.json")
    assert ended.code == 0, ended.err
    assert work.metrics("grpo")[0]["mismatch_size"] < 0.01


def test_a_resumed_run_learns_from_the_same_records_wherever_they_lie(work):
    prepare(work, training__num_episodes=8)
    assert work.train().code == 0
    (work.path / "data.jsonl").rename(work.path / "moved.jsonl")
    work.write(
        environment=None, rewards=None, training__num_generations=None, training__algorithm="sft",
        training__data_file="moved.jsonl", training__num_episodes=16, training__eval_every=None,
    )  # fmt: skip
    ended = work.train("--resume")
    assert ended.code == 0, ended.err
    (work.path / "moved.jsonl").write_text(json.dumps(SFT[0]) + "\n")
    ended = work.train("--resume")
    assert ended.code == 2
    assert "training.data_file does not hold what the run learns from: it has changed" in ended.err


@pytest.mark.parametrize(
    ("algorithm", "changes", "records", "code", "words"),
    [
        ("sft", {}, ["{", DPO[0]], 3, ["data.jsonl, line 1: not valid JSON", "line 2 has the unknown key 'chosen'"]),
        ("sft", {}, [], 3, ["holds no record"]),
        ("dpo", {}, [{**DPO[0], "rejected": DPO[0]["chosen"]}], 3, ["line 1: chosen and rejected are the same"]),
        ("sft", {}, [SFT[0], {"messages": turns(["x", "y" * 5000])}], 3, ["line 2: the conversation has 50", "4096"]),
        ("sft", {"training__data_file": "none.jsonl"}, SFT, 3, ['training.data_file is "none.jsonl"', "looked at"]),
        ("sft", {"training__data_file": None}, SFT, 2, ["data_file is missing: sft learns from"]),
        ("sft", {"training__algorithm": "ppo"}, SFT, 2, ["data_file has no effect on ppo; it belongs to sft, dpo"]),
        ("sft", {"training__num_generations": 2}, SFT, 2, ["num_generations has no effect on sft"]),
        ("sft", {"training__eval_every": 8}, SFT, 2, ["there are no scenarios to evaluate on"]),
        ("sft", {"agent__model_name": "stub://echo"}, SFT, 3, ["without weights learns nothing from a file"]),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_its_place(work, algorithm, changes, records, code, words):
    prepare(work, algorithm, records, **changes)
    ended = work.train()
    assert ended.code == code
    assert all(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err


def test_sections_without_effect_are_named(work):
    prepare(work, environment={"scenarios_file": "scenarios.json", "max_turns": 2}, training__eval_every=0)
    ended = work.train()
    assert ended.code == 0, ended.err
    for key in ("environment.scenarios_file", "environment.max_turns"):
        assert f"{key} has no effect: training reads data_file, and eval_every is 0" in ended.err


def test_a_reward_that_nothing_asks_refuses_nothing(work):
    """Mutation: a reward must be able to judge scenarios that are never played."""
    prepare(work, rewards=[{"type": "correctness"}])
    ended = work.train()
    assert ended.code == 0, ended.err
    assert "rewards has no effect: training reads data_file, and eval_every is 0" in ended.err


def test_a_refused_resume_leaves_a_finished_run_as_it_was(work):
    """Its records are prepared, and counted, before weights are asked for. Mutation: counting writes the status."""
    prepare(work)
    assert work.train().code == 0
    files = work.snapshot()
    ended = work.train("--resume", "--num-episodes", "48", before=ANOTHER_MODEL)
    assert ended.code == 3, ended.err
    assert "is a checkpoint of another model" in ended.err
    assert work.snapshot() == files
