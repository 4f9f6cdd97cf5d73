"""Row 27. A run that goes on is not the run that was stopped: optimizer, schedule, order, counters, reference, noise.

Whole processes that are interrupted and killed are in `tests/integration/test_resume.py`; a save that is killed at each
of its writes is in `tests/unit/checkpoints/test_checkpoint_crash.py`.
"""

import json
import random

import numpy as np
import pytest
import torch

from stateset_agents.checkpoints import latest_checkpoint, read_checkpoint
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.tracking.performance import CLOCKED
from stateset_agents.tracking.run_folder import RunFolder, read_metrics
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.diagnostics import DiagnosticsMonitor
from stateset_agents.training.parts import RunParts
from stateset_agents.training.resume import take_up
from stateset_agents.training.stop_request import StopRequested

SETTINGS = {
    "lr_schedule": "linear",
    "weight_decay": 0.1,
    "num_iterations": 2,
    "beta": 0.04,
    "eval_every": 16,
    "eval_samples": 1,
    "early_stopping": True,
}


class StopAfter(Callback):
    """Asks its run to stop after a step."""

    def __init__(self, step):
        self.step, self.trainer = step, None

    def on_step_end(self, metrics):
        if metrics["step"] == self.step:
            self.trainer.request_stop()


def disturb(seed):
    """Global random states are nothing that a run depends on."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


async def play(kit, folder, *, stop_after=0, resume=False, reward=None, **settings):
    agent, stop = await kit.agent(max_new_tokens=6), StopAfter(stop_after)
    parts = RunParts(folder, callbacks=[stop, DiagnosticsMonitor()])
    trainer = await kit.trainer(agent, reward or kit.Vowels(), steps=6, parts=parts, **{**SETTINGS, **settings})
    stop.trainer = trainer
    if resume:
        newest, _ = latest_checkpoint(folder.checkpoints_dir)
        take_up(trainer, folder, read_checkpoint(newest), "", lambda _: None)
    try:
        await trainer.run()
    except StopRequested:
        assert stop_after
    else:
        assert not stop_after
    await agent.aclose()
    return trainer


def without_clocks(rows):
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in rows]


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["full", "lora"])
async def test_six_steps_at_once_and_three_then_three_are_the_same_to_the_bit(kit, tmp_path, lora):
    """Evaluations after steps 2, 4 and 6; two updates a step; a reference that must stay that of the beginning.

    Mutation, each of which fails: optimizer slots, or the step count, not loaded, or the reference copied after the
    weights were, in training/learner.py; noise or order counted from the resumed step, or judge, callbacks or episodes
    not loaded, in training/trainer.py; torch.rand for the keyed noise in engines/sampling.py.
    """
    disturb(1)
    with RunFolder.create(tmp_path / "whole", config_yaml="") as folder:
        whole = await play(kit, folder, lora=lora)
    disturb(2)
    with RunFolder.create(tmp_path / "parts", config_yaml="") as folder:
        first = await play(kit, folder, stop_after=3, lora=lora)
    assert first.steps == 3
    disturb(3)
    with RunFolder.open(tmp_path / "parts") as folder:
        folder.lock()
        second = await play(kit, folder, resume=True, lora=lora)
    assert (second.steps, second.episodes) == (6, 48)
    logged = [without_clocks(read_metrics(tmp_path / name)) for name in ("whole", "parts")]
    assert logged[0] == logged[1]
    assert len({row["loss"] for row in logged[0]}) == len({row["learning_rate"] for row in logged[0]}) == 6
    assert logged[0][-1]["kl"] > 0
    assert without_clocks(second.rows) == logged[0]
    states = [trainer.learner.state() for trainer in (whole, second)]
    for one, other in zip(states[0][:2], states[1][:2], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert states[0][2] == states[1][2]
    kept = [trainer.state_dict() for trainer in (whole, second)]
    assert kept[0]["judge"] == kept[1]["judge"]
    assert kept[0]["judge"]["early"]["best_step"] > 0
    monitors = [state["callbacks"]["DiagnosticsMonitor"]["rows"] for state in kept]
    assert without_clocks(monitors[0]) == without_clocks(monitors[1])


def said_in(folder):
    rows = map(json.loads, (folder / "trajectories.jsonl").read_text().splitlines())
    return [[turn["content"] for turn in row["turns"]] for row in rows]


class Equal(RewardFunction):
    """Half the maximum for everyone: nothing can be learned from it."""

    maximum = 1.0

    async def compute_reward(self, turns, context=None):
        return RewardResult(0.5)


@pytest.mark.parametrize(
    ("reward", "settings", "moved"),
    [
        ("Vowels", {"learning_rate": 0.03, "beta": 0.0}, {"learning_rate"}),
        ("Equal", {"beta": 0.0, "num_generations": 2}, {"temperature", "num_generations"}),
    ],
    ids=["moves of the rate", "moves of the groups"],
)
async def test_a_run_that_adjusts_itself_makes_the_same_moves_before_and_after_it_was_stopped(
    kit, tmp_path, reward, settings, moved
):
    """Mutation: the adjuster left out of the state; or its settings not adopted after they were loaded."""
    made = {"Vowels": kit.Vowels, "Equal": Equal}[reward]
    settings = {**settings, "auto_adjust": True, "early_stopping": False, "eval_every": 0}
    with RunFolder.create(tmp_path / "whole", config_yaml="") as folder:
        whole = await play(kit, folder, reward=made(), **settings)
    with RunFolder.create(tmp_path / "parts", config_yaml="") as folder:
        await play(kit, folder, stop_after=3, reward=made(), **settings)
    with RunFolder.open(tmp_path / "parts") as folder:
        folder.lock()
        second = await play(kit, folder, resume=True, reward=made(), **settings)
    logged = [without_clocks(read_metrics(tmp_path / name)) for name in ("whole", "parts")]
    assert logged[0] == logged[1]
    said = [said_in(tmp_path / name) for name in ("whole", "parts")]
    assert said[0] == said[1]
    moves = [move for row in logged[0] for move in row.get("adjustments", [])]
    assert {move["setting"] for move in moves} == moved
    assert min(move["step"] for move in moves) <= 3 < max(move["step"] for move in moves)
    states = [trainer.learner.state() for trainer in (whole, second)]
    assert all(torch.equal(one, states[1][0][name]) for name, one in states[0][0].items())
    assert whole.state_dict()["adjuster"] == second.state_dict()["adjuster"]
