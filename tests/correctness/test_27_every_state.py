"""Row 27, for whatever will be added: an object that changes in a run and is not saved fails here.

Three runs are looked at, attribute by attribute, down to the last object that a trainer leads to: one that has begun,
one after four steps, and one that was resumed there. What the steps changed must be what was resumed, or stand on the
list below with the reason why a run goes on without it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch

from stateset_agents.checkpoints import latest_checkpoint, read_checkpoint
from stateset_agents.tracking.performance import CLOCKED
from stateset_agents.tracking.run_folder import RunFolder
from stateset_agents.training.callbacks import Callback
from stateset_agents.training.diagnostics import DiagnosticsMonitor
from stateset_agents.training.parts import RunParts
from stateset_agents.training.resume import take_up

NOT_SAVED = {
    "Learner.credit": "what the last step made of its conversations; it was written into their log",
    "Passes._checked": "a check of the model, which a resumed run makes again",
    "LocalEngine._most_active": "how many replies fit into memory, which no reply depends on",
    "Passes.forwarded_tokens": "a count of this process",
    "LocalEngine._waiting": "requests under way; between two steps there are none",
    "LocalEngine._worker": "of this process",
    "RowMemory._kept": "a cache, void after each update",
    "RowMemory._prompts": "a cache, void after each update",
    "KeyValueCache._pools": "a cache, void after each update",
    "Trainer._save_seconds": "a clock",
    "Trainer.saved_step": "that of the checkpoint itself, which is written a moment later",
    "RunFolder._last_beat": "a clock",
    "SeededOrder._round": "the round that is being drawn from, a function of seed and position",
    "TrainingConfig.plan": "worked out from the other settings when somebody asks",
    "SelfTest._left": "what is still to be tested; a resumed run tests itself again",
    "SelfTest._told": "what was told about it; a resumed run tells it again",
    "Vowels.talks": "what the reward of these tests was asked; no reward of the package keeps anything",
}
"""What a run goes on without, and why."""

SETTINGS = {
    "lr_schedule": "linear",
    "num_iterations": 2,
    "beta": 0.04,
    "algorithm": "ppo",
    "eval_every": 16,
    "eval_samples": 1,
    "early_stopping": True,
    "auto_adjust": True,
}


class Steps(Callback):
    """Remembers as it should."""

    def __init__(self):
        self.seen = 0

    def on_step_end(self, metrics):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Forgetful(Steps):
    """Remembers, and saves nothing."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def attributes(root: Any) -> dict[str, dict[str, Any]]:
    """For each "Class.attribute" that can be reached: plain values by path."""
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    kept: list[Any] = []  # an id is good only as long as its object

    def walk(owner: str, path: str, value: Any) -> None:
        if isinstance(value, bool | int | float | str | bytes | None):
            found.setdefault(owner, {})[path] = repr(value)  # NaN is as good as NaN
        elif isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            found.setdefault(owner, {})[path] = hashlib.sha256(raw.numpy().tobytes()).hexdigest()
        elif id(value) not in seen:
            if not isinstance(value, Mapping | Sequence):  # two objects may hold one list
                seen.add(id(value))
                kept.append(value)
            for name, part in parts_of(value):
                own = f"{type(value).__name__}.{name}" if is_ours(value) else owner
                if own in NOT_SAVED:
                    found[own] = {}
                else:
                    walk(own, f"{path}.{name}", part)

    walk("Trainer", "trainer", root)
    return found


def is_ours(value: Any) -> bool:
    return type(value).__module__.startswith(("stateset_agents", "tests.", "test_"))


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items() if key not in CLOCKED)
    elif isinstance(value, Sequence):
        yield from ((str(place), part) for place, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield "members", repr(sorted(value, key=repr))
    elif hasattr(value, "__self__"):  # a bound method leads to its object
        yield "self", value.__self__
    elif isinstance(value, torch.nn.Module):
        yield from value.named_parameters()
    elif is_ours(value):
        slots = (name for name in getattr(type(value), "__slots__", ()) if not name.startswith("__"))
        names = [*getattr(value, "__dict__", ()), *slots]
        yield from ((name, getattr(value, name)) for name in dict.fromkeys(names) if hasattr(value, name))


async def prepared(kit, folder, *callbacks):
    agent = await kit.agent(max_new_tokens=6)
    parts = RunParts(folder, callbacks=[DiagnosticsMonitor(), *callbacks])
    return await kit.trainer(agent, kit.Vowels(), steps=4, parts=parts, **SETTINGS)


async def lost(kit, path, make_callback):
    """What four steps changed and a resumed run does not have."""
    with RunFolder.create(path, config_yaml="") as folder:
        trainer = await prepared(kit, folder, make_callback())
        before = attributes(trainer)
        await trainer.run()
        after = attributes(trainer)
        await trainer.agent.aclose()
    with RunFolder.open(path) as folder:
        folder.lock()
        resumed = await prepared(kit, folder, make_callback())
        newest, _ = latest_checkpoint(folder.checkpoints_dir)
        take_up(resumed, folder, read_checkpoint(newest), "", lambda _: None)
        now = attributes(resumed)
        await resumed.agent.aclose()
    assert NOT_SAVED.keys() <= after.keys()  # what is no more has no place on the list
    changed = {name for name, values in after.items() if values != before.get(name)}
    assert {
        "Trainer.steps",
        "Trainer.episodes",
        "EarlyStopping.best_step",
        "Rollouts.drawn",
        "Learner.steps",
    } <= changed
    assert {"MasterWeights.masters", "DiagnosticsMonitor.rows", "LoadedModel.model"} <= changed
    assert any(name.startswith("ValueHead.") for name in changed)
    return {name: _first_difference(after[name], now.get(name, {})) for name in changed if after[name] != now.get(name)}


def _first_difference(one, other):
    """Where to look."""
    return next(path for path in {**one, **other} if one.get(path, "") != other.get(path, ""))


async def test_whatever_a_run_changes_is_resumed_or_listed_with_a_reason(kit, tmp_path):
    """Mutation: a count in `Judge.after` that `state_dict` lacks."""
    assert await lost(kit, tmp_path / "run", Steps) == {}


async def test_what_forgets_its_state_is_found(kit, tmp_path):
    assert await lost(kit, tmp_path / "run", Forgetful) == {"Forgetful.seen": "trainer.parts.callbacks.1.seen"}


@pytest.mark.parametrize("reason", NOT_SAVED.values())
def test_every_exception_has_a_reason(reason):
    assert len(reason) > 5
