"""What a TRL config amounts to, in conversations and steps.

Invariant: a round of conversations holds whole groups and is trained as one batch, `num_iterations` times. So TRL
generates exactly at the steps at which the weights were last published, and no conversation is trained in part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...config.training import count

if TYPE_CHECKING:
    from .config import TRLGRPOConfig


@dataclass(frozen=True)
class TRLPlan:
    """A `TRLGRPOConfig` in TRL's units.

    Attributes:
        accumulation: passes per update, rounded up so that a round holds whole groups.
        groups: scenarios of each round.
        conversations: of each round, `groups * num_generations`.
        rounds: how often conversations are held.
        steps: updates, `rounds * num_iterations`.
        notes: sentences that say what was rounded.
    """

    accumulation: int
    groups: int
    conversations: int
    rounds: int
    steps: int
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line for the start of a run."""
        return (
            f"{count(self.steps, 'step')} in {count(self.rounds, 'round')} of {self.conversations} conversations "
            f"({count(self.groups, 'scenario')} x {self.conversations // self.groups})"
        )


def make_plan(config: TRLGRPOConfig) -> TRLPlan:
    """Round the episodes of `config` up to whole groups and rounds, and say so."""
    notes = []
    batch, size = config.per_device_train_batch_size, config.num_generations
    whole = size // math.gcd(size, batch)  # passes that hold whole groups
    accumulation = math.ceil(config.gradient_accumulation_steps / whole) * whole
    conversations = batch * accumulation
    if accumulation != config.gradient_accumulation_steps:
        notes.append(
            f"gradient_accumulation_steps {config.gradient_accumulation_steps} becomes {accumulation}: a step trains "
            f"{conversations} conversations, whole groups of {size}"
        )
    rounds = math.ceil(config.num_episodes / conversations)
    if rounds * conversations != config.num_episodes:
        notes.append(
            f"{rounds * conversations} episodes will be held: num_episodes {config.num_episodes}, rounded up to "
            f"{count(rounds, 'whole round')} of {conversations}"
        )
    if config.num_iterations > 1:
        notes.append(f"each round is used for {config.num_iterations} updates (num_iterations)")
    groups = conversations // size
    return TRLPlan(accumulation, groups, conversations, rounds, rounds * config.num_iterations, tuple(notes))
