"""A run's state as a checkpoint, and back.

Invariant: a checkpoint is self-contained. Its root loads with `AutoModelForCausalLM.from_pretrained`; `agent.json`,
`environment.json`, `reward.json` and `scenarios.json` say what was trained on what; `trainer.json` and the optimizer's
slots, absent from a final model, are all that a run needs to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..agents.loading import agent_record
from ..agents.multi_turn import MultiTurnAgent
from ..checkpoints import PROGRESS, Checkpoint, prune_checkpoints, write_checkpoint
from ..checkpoints.locate import step_folder
from ..core.environment import Environment, TaskEnvironment
from ..core.errors import CheckpointError
from ..core.reward import RewardFunction
from ..models import has_lora, save_model_folder, weight_bytes

if TYPE_CHECKING:
    from .learner import Learner


class Stateful(Protocol):
    """What remembers something from one step to the next."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, as JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


@dataclass(frozen=True)
class Subject:
    """What a run trains, on what.

    Attributes:
        agent: the trained agent.
        environment: where it is trained.
        reward: what it is trained for.
        records: more JSON for the checkpoint by stem, such as the resolved config.
    """

    agent: MultiTurnAgent
    environment: Environment
    reward: RewardFunction
    records: Mapping[str, Any]

    def to_records(self) -> dict[str, Any]:
        """The JSON files of a checkpoint, by stem."""
        environment = {
            "class": type(self.environment).__name__,
            "max_turns": self.environment.max_turns,
            "persona": getattr(self.environment, "persona", None),
            "user": self.environment.describe_user(),
        }
        if isinstance(self.environment, TaskEnvironment):
            environment["success_criteria"] = self.environment.criterion_name
        reward = {"config": self.reward.to_config(), "attainable": self.reward.attainable}
        return {
            "agent": agent_record(self.agent),
            "environment": environment,
            "reward": reward,
            "scenarios": {"scenarios": [s.to_dict() for s in self.environment.episode_scenarios()]},
            **self.records,
        }


def save_run_state(
    folder: Path, subject: Subject, learner: Learner, trainer: Mapping[str, Any], *, replace: bool = False
) -> Path:
    """Write a checkpoint that a run can go on from."""
    weights, slots, counters = learner.state()
    loaded = subject.agent.runtime.model
    assert loaded is not None  # noqa: S101 - a learner has a model
    tensors = {"optimizer": slots}
    if has_lora(loaded):
        tensors["adapter"] = weights
    records = subject.to_records() | {"trainer": {**trainer, "learner": counters}}
    full = None if has_lora(loaded) else learner.full_weights()
    return write_checkpoint(
        folder,
        tensors=tensors,
        records=records,
        parts={".": lambda path: save_model_folder(loaded, path, state_dict=full)},
        part_bytes=weight_bytes(loaded, full),
        replace=replace,
    )


def save_step(
    checkpoints: Path, subject: Subject, learner: Learner, trainer: Mapping[str, Any], *, again: bool
) -> None:
    """Write the checkpoint of a run's state; where there is one of its step, only if it is to be written `again`."""
    target = step_folder(checkpoints, int(trainer["step"]))
    if again or not target.exists():
        save_run_state(target, subject, learner, trainer, replace=again)


def keep_best(checkpoints: Path, count: int, best: int) -> None:
    """Remove all but the newest `count` checkpoints and that of the step `best`, if there is one."""
    prune_checkpoints(checkpoints, count, protect=[step_folder(checkpoints, best)] if best else [])


def save_final(folder: Path, subject: Subject, step: int, *, replace: bool = False) -> Path:
    """Write the trained agent after `step` steps, without what only training needs. Its learner must be closed."""
    loaded = subject.agent.runtime.model
    records = subject.to_records() | {PROGRESS: {"step": step}}
    if loaded is None:
        return write_checkpoint(folder, records=records, replace=replace)
    parts = {".": lambda path: save_model_folder(loaded, path)}
    return write_checkpoint(folder, records=records, parts=parts, part_bytes=weight_bytes(loaded), replace=replace)


def load_run_state(checkpoint: Checkpoint, learner: Learner, *, adapters: bool) -> dict[str, Any]:
    """Give a learner the weights and slots of a checkpoint.

    Returns:
        The trainer's record.

    Raises:
        CheckpointError: the checkpoint belongs to another model, or cannot be continued.
    """
    if "trainer" not in checkpoint.manifest.records:
        raise CheckpointError(f"{checkpoint.path} is a finished model: there is no optimizer state to continue from")
    record: dict[str, Any] = checkpoint.record("trainer")
    weights = checkpoint.tensors("adapter") if adapters else model_weights(checkpoint.path)
    _require_fit(checkpoint, weights, learner)
    learner.load(weights, checkpoint.tensors("optimizer"), record["learner"])
    return record


def load_weights(checkpoint: Checkpoint, learner: Learner) -> None:
    """Give a learner the weights of a checkpoint, and nothing else.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
    """
    weights = model_weights(checkpoint.path)
    _require_fit(checkpoint, weights, learner)
    learner.weights.load(weights)


def _require_fit(checkpoint: Checkpoint, weights: Mapping[str, Any], learner: Learner) -> None:
    for name, master in learner.weights.state().items():
        if name not in weights:
            raise CheckpointError(f"{checkpoint.path} is a checkpoint of another model: it has no weight {name}")
        if weights[name].shape != master.shape:
            raise CheckpointError(
                f"{checkpoint.path} is a checkpoint of another model: its {name} is "
                f"{' x '.join(map(str, weights[name].shape))}, this model's is {' x '.join(map(str, master.shape))}"
            )


def model_weights(folder: Path) -> dict[str, Any]:
    """Tensors of a saved model by name, read from its safetensors files."""
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights.update(load_file(file))
    return weights
