"""A reward that was learned from preferences.

Invariant: the score is sigmoid(value), where the value is that of a `PreferenceModel`: the same conversation always has
the same score, alone or beside others. `training.neural_reward` fits one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ..checkpoints import read_checkpoint
from ..core.errors import ConfigError, DataError
from ..core.reward import RewardFunction, RewardResult, RewardType
from ..core.rewards.base import Context, Turns
from ..core.tool_calls import replies_at
from .preference_model import PreferenceModel, head_hash


class LearnedReward(RewardFunction):
    """How much a conversation is like those that were preferred, in (0, 1).

    0.5 is the mean of the conversations that it was fitted on, 0.73 and 0.27 are one standard deviation from it, and no
    conversation reaches 0 or 1. One without a reply gets 0; one that does not fit into the model's context is unscored.
    What comes after the last reply is not read. The agent's system prompt is read if the pairs had one.

    It knows what was preferred in its pairs and nothing else. A policy that is trained for it finds what the pairs did
    not show and it likes by accident: keep its weight below that of rewards that check facts, and look at what the
    policy says.

    Args:
        weight: see `RewardFunction`.
        folder: what `save` wrote.
        sha256: of the head that the folder must hold; None: any.
        device: of the frozen model; None: the first CUDA GPU if there is one, else the CPU.
        reward_type: see `RewardFunction`.
        name: see `RewardFunction`.

    Raises:
        CheckpointError: the folder is missing, damaged, or holds something else.
        ConfigError: it holds another head than `sha256` says.
    """

    maximum = 1.0

    def __init__(
        self,
        weight: float = 1.0,
        *,
        folder: str | Path,
        sha256: str | None = None,
        device: str | None = None,
        reward_type: RewardType | str | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, name, reward_type)
        checkpoint = read_checkpoint(folder)
        found = head_hash(checkpoint)
        if sha256 is not None and found != sha256:
            raise ConfigError(f"{folder} holds a learned reward with SHA-256 {found}, not {sha256}: it is another one")
        self.model = PreferenceModel.load(checkpoint, device=device)
        self.folder: str | None = str(Path(folder).absolute())
        self.sha256: str | None = found
        self.device = device

    @classmethod
    def of(cls, model: PreferenceModel, weight: float = 1.0, name: str = "") -> Self:
        """The reward of a model that is in no folder yet."""
        made = cls.__new__(cls)
        RewardFunction.__init__(made, weight, name)
        made.model = model
        made.folder = made.sha256 = None
        made.device = model.backbone.device
        return made

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Self:
        """The reward that `save` wrote; settings are those of the class."""
        return cls(folder=folder, **settings)

    def save(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Write it so that a config can name the folder.

        Args:
            folder: made if missing.
            replace: whether an older reward there may be written over.

        Raises:
            CheckpointError: the folder is taken.
            RunFolderError: it cannot be written.
        """
        path, self.sha256 = self.model.save(folder, replace=replace)
        self.folder = str(path)
        return path

    async def compute_reward(self, turns: Turns, context: Context | None = None) -> RewardResult:
        """Read the conversation up to its last reply."""
        ends = replies_at(turns)
        if not ends:
            return RewardResult(0.0)
        told = (context or {}).get("system_prompt") if self.model.reads_system_prompt else None
        messages = [{"role": "system", "content": str(told)}] if told else []
        messages += [turn.to_message() for turn in turns[: ends[-1] + 1]]
        try:
            # In a thread, so that other conversations go on meanwhile.
            value = await asyncio.to_thread(self.model.value, messages)
        except DataError as error:
            return RewardResult.unscored(str(error))
        return RewardResult(_sigmoid(value), {"value": value})

    def notices(self, scenarios: Sequence[Mapping[str, Any]]) -> list[str]:
        """How well it orders pairs that had no part in its fit."""
        return [f"reward {self.label!r}, learned on {self.model.backbone.name}: it {self.model.report.text()}"]

    def to_config(self) -> dict[str, Any]:
        """The entry of a config's list of rewards; no entry can make one that was never saved."""
        return self._custom_entry(type(self), rebuildable=False) if self.folder is None else super().to_config()


def _sigmoid(value: float) -> float:
    if value < 0:
        grown = math.exp(max(value, -700.0))
        return grown / (1.0 + grown)
    return 1.0 / (1.0 + math.exp(-value))
