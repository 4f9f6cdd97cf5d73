"""What a continuation would do otherwise than the run did so far.

Invariant: a setting is compared by its value and a file by what it holds, so that a project may move and may not
change. Every difference is told with both sides, or with what was added, is missing and has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..checkpoints import Checkpoint
from ..config.algorithms import OFF
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.errors import CheckpointError
from ..core.records import Record, digest
from .run import Run

_FREE = {
    "agent.device",
    "agent.greeting",
    "environment.scenarios",  # compared by what they hold, not by how they are named
    "environment.scenarios_file",
    "environment.tasks_file",
    "training.num_episodes",
    *(f"training.{name}" for name in ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing")),
}
"""Settings that a resumed run may change. The last three cut the same update into other pieces: a run that ran out of
memory needs them."""

_BY_CONTENT = ("data_file", "eval_scenarios_file")
"""Files whose names a run may change, and not what they hold."""


def changes(checkpoint: Checkpoint, run: Run, data: Sequence[Record] | None) -> Iterator[str]:
    """Each difference, as a problem with its place.

    Args:
        checkpoint: of the run so far.
        run: what it is told now.
        data: what it learns from, if that is a file.
    """
    folder, located = run.folder, run.located
    for key, now, then in changed_settings(checkpoint, run.settings, run.config):
        yield located(key, f"{key} is {now}, but the run in {folder} has {then}.")
    if data is None:
        yield from _changed_scenarios(checkpoint, run.environment)
    for problem in _changed_data(checkpoint, data):
        yield located("training.data_file", problem)
    for problem in _changed_evaluation(checkpoint, run):
        yield located("training.eval_scenarios_file", problem)
    for key, problem in _changed_ground_truth(checkpoint, run):
        yield located(key, f"{key} {problem}")


def changed_settings(
    checkpoint: Checkpoint, settings: Mapping[str, Any], config: TrainingConfig
) -> Iterator[tuple[str, str, str]]:
    """Key, present value and the run's value of each setting that differs."""
    if "trainer" not in checkpoint.manifest.records:
        raise CheckpointError(f"{checkpoint.path} holds no state of a run, so no run can be resumed from it")
    # A run that was made before there was such a setting has what the setting is without it.
    before: dict[str, Any] = {"training": {**OFF, **checkpoint.record("trainer")["config"]}}
    for name in _BY_CONTENT:
        before["training"].pop(name, None)
    after: dict[str, Any] = {"training": config.fingerprint_fields()}
    if "run" in checkpoint.manifest.records:
        run = checkpoint.record("run")
        for section in ("agent", "environment", "rewards", "combination_method"):
            before[section], after[section] = run.get(section), settings.get(section)
    then, now = dict(_flat("", before)), dict(_flat("", _as_json(after)))
    for key in dict.fromkeys([*then, *now]):
        free = key.endswith(".ground_truth_file") or any(key == one or key.startswith(f"{one}[") for one in _FREE)
        if then.get(key) != now.get(key) and not free:
            yield key, _shown(now.get(key)), _shown(then.get(key))


def _changed_scenarios(checkpoint: Checkpoint, environment: Environment) -> Iterator[str]:
    then = {scenario["id"]: scenario for scenario in checkpoint.record("scenarios")["scenarios"]}
    now = {scenario.id: _as_json(scenario.to_dict()) for scenario in environment.episode_scenarios()}
    if told := _changes(then, now):
        yield f"config error: the scenarios are not those that the run trains on: {told}."
    elif list(then) != list(now):
        yield "config error: the scenarios are in another order than the run trains on them."


def evaluation_record(run: Run) -> dict[str, Any]:
    """What a checkpoint tells of the scenarios of evaluations; null where they are those that it trains on, or none.

    `held_out` has those that the run never trains on, whether it evaluates or leaves that to others.
    """
    held_out = None if run.evaluation is None else [one.to_dict() for one in run.evaluation.episode_scenarios()]
    apart = run.evaluation or (run.environment if run.config.data_file is not None else None)
    if apart is None or not run.config.eval_every:
        return {"scenarios": None, "held_out": held_out}
    return {"scenarios": [scenario.to_dict() for scenario in apart.episode_scenarios()], "held_out": held_out}


def _changed_evaluation(checkpoint: Checkpoint, run: Run) -> Iterator[str]:
    if "evaluation" not in checkpoint.manifest.records:
        return
    then, now = checkpoint.record("evaluation")["scenarios"], _as_json(evaluation_record(run))["scenarios"]
    if (then is None) != (now is None):
        kinds = ["those that it trains on" if one is None else "scenarios of their own" for one in (then, now)]
        yield f"evaluations of the run play {kinds[0]}, and this one's would play {kinds[1]}."
    elif then is not None:
        told = _changes(*({scenario["id"]: scenario for scenario in one} for one in (then, now)))
        if told or then != now:
            yield f"evaluations would not play what those of the run play: {told or 'the order has changed'}."


def _changed_ground_truth(checkpoint: Checkpoint, run: Run) -> Iterator[tuple[str, str]]:
    """Key and problem of each ground-truth file; where rewards are made in code, their settings hold the answers."""
    if run.source is None:
        return
    then, now = (_answers(config) for config in (checkpoint.record("reward")["config"], run.reward.to_config()))
    for place, (before, after) in enumerate(zip(then, now, strict=False)):
        if told := _changes(before, after):
            key = f"rewards[{place}].ground_truth_file"
            yield key, f"does not hold the answers that the run learns from: {told}."


def _answers(reward: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers by scenario of each part of a reward."""
    return [_as_json(part.get("ground_truth") or {}) for part in reward.get("functions", ())]


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How many entries were added, are missing and have changed; "" for none."""
    kinds = {
        "added": [name for name in now if name not in then],
        "missing": [name for name in then if name not in now],
        "changed": [name for name in now if name in then and now[name] != then[name]],
    }
    return ", ".join(f'{len(names)} {how} (first: "{names[0]}")' for how, names in kinds.items() if names)


def _changed_data(checkpoint: Checkpoint, data: Sequence[Record] | None) -> Iterator[str]:
    then, now = checkpoint.record("trainer").get("data"), None if data is None else digest(data)
    if then != now:
        kinds = [("conversations that it plays" if one is None else "a data file") for one in (then, now)]
        change = "it has changed" if None not in (then, now) else f"the run learns from {kinds[0]}, not from {kinds[1]}"
        yield f"training.data_file does not hold what the run learns from: {change}."


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for place, item in enumerate(value):
            yield from _flat(f"{key}[{place}]", item)
    else:
        yield key, value


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
