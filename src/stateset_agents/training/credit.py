"""What an update made of its conversations: which turns and tokens it made likelier, which less likely, which neither.

Invariant: looking changes nothing. A turn has an advantage exactly if one of its tokens was trained; what reached the
conversation edited, or was cut and masked, has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.secrets import MASK, Redactor
from ..core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
from .conversations import Conversation
from .packing import Sample

SPELLED_STEPS = 100
"""Of a run, the steps whose first group is logged token by token: evenly spread, so that the log's size is bounded."""
SPELLED_TOKENS = 2048
"""Of a conversation."""
_DIGITS = 4


@dataclass(frozen=True)
class Credit:
    """The advantages of one step.

    Attributes:
        talks: the conversations that the step learned from.
        samples: their rows as they were trained; conversations without any advantage may be missing.
    """

    talks: Sequence[Conversation]
    samples: Sequence[Sample]

    def note(self, spelled: TrajectoryGroup | None, spell: Callable[[int], str]) -> None:
        """Write the advantages into the trajectories.

        Args:
            spelled: a group whose conversations get them token by token too.
            spell: the text of a token.
        """
        trained = self._by_place()
        chosen = {id(trajectory) for trajectory in (spelled.trajectories if spelled else ())}
        for talk in self.talks:
            trajectory = talk.trajectory
            trajectory.advantages = _of_turns(trajectory, trained)
            if id(trajectory) in chosen:
                trajectory.tokens = [_spelled(row, trained.get(id(row.ids)), spell) for row in trajectory.rows]

    def _by_place(self) -> dict[int, list[float | None]]:
        """For each row, by the identity of its ids (masking copies a row, and shares them): what each token got."""
        found: dict[int, list[float | None]] = {}
        for talk in self.talks:
            for row in talk.rows:
                found[id(row.ids)] = [0.0 if mask else None for mask in row.mask]
        for sample in self.samples:
            given = iter(sample.column(sample.advantage))
            found[id(sample.row.ids)] = [next(given) if mask else None for mask in sample.row.mask]
        return found


def note_credit(credit: Credit, groups: Sequence[TrajectoryGroup], tokenizer: Any, *, spelled: bool) -> None:
    """Write into the conversations of a step what the update made of them.

    Args:
        credit: of the step.
        groups: all of the step's.
        tokenizer: spells tokens.
        spelled: whether the first group that teaches something is logged token by token.
    """
    chosen = next((group for group in groups if group.teaches), None) if spelled else None
    credit.note(chosen, lambda token: str(tokenizer.decode([token])))


def is_spelled(step: int, total_steps: int) -> bool:
    """Whether a step, counted from 1, is one of those that are logged token by token."""
    return step == 1 or step % -(-total_steps // SPELLED_STEPS) == 0


def _of_turns(trajectory: MultiTurnTrajectory, trained: dict[int, list[float | None]]) -> list[float | None]:
    found: list[float | None] = []
    for turn in trajectory.assistant_turns:
        row = [] if turn.span is None else trained.get(id(turn.span.row.ids), [])
        values = [value for value in row[turn.span.start : turn.span.end] if value is not None] if turn.span else []
        found.append(round(sum(values) / len(values), _DIGITS) if values else None)
    return found


def _spelled(row: TokenRow, advantages: list[float | None] | None, spell: Callable[[int], str]) -> dict[str, Any]:
    kept = min(len(row), SPELLED_TOKENS)
    values = (advantages or [None] * len(row))[:kept]
    pieces = [spell(token) for token in row.ids[:kept]]
    whole = "".join(pieces)
    if Redactor.from_environment()(whole) != whole:  # the log looks at one text after the other, and sees no secret
        pieces = [MASK] * kept
    return {
        "pieces": pieces,
        "mask": [int(value is not None) for value in values],
        "advantages": [None if value is None else round(value, _DIGITS) for value in values],
        "logprobs": [round(value, _DIGITS) for value in row.logprobs[:kept]],
        "cut": len(row) - kept,
    }
