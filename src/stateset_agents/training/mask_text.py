"""One conversation as it is trained: who said what, and which of it the mask keeps.

Invariant: it is read off the token row that the learner gets, never off the words of the turns; so a mask that lies
beside the replies is seen to do so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..core.trajectory import MultiTurnTrajectory, TokenRow

_SHOWN = 60
Spell = Callable[[list[int]], str]
"""Token ids to text."""


def mask_text(episode: MultiTurnTrajectory, spell: Spell) -> str:
    """Every stretch of the conversation's rows: trained or only read, its role, its tokens, and how it reads."""
    lines = []
    for row in episode.rows:
        roles, at = _roles(episode, row), 0
        for (kept, role), stretch in itertools.groupby(zip(row.mask, roles, strict=True)):
            size = len(list(stretch))
            text = repr(spell(row.ids[at : at + size]))
            text = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
            lines.append(f"  {'trained' if kept else 'read':<8} {role:<20} {size:>5}  {text}")
            at += size
    return "\n".join(lines)


def _roles(episode: MultiTurnTrajectory, row: TokenRow) -> list[str]:
    """Of each token: the role that said it; before a reply, all that spoke since the last one. A prompt is first."""
    roles = [""] * len(row)
    spoke = ["prompt"]
    at = 0
    for turn in episode.turns:
        if turn.span is None or turn.span.row is not row:
            spoke.append(turn.role)
            continue
        roles[at : turn.span.start] = ["+".join(dict.fromkeys(spoke))] * (turn.span.start - at)
        roles[turn.span.start : turn.span.end] = [turn.role] * (turn.span.end - turn.span.start)
        at, spoke = turn.span.end, []
    roles[at:] = ["after the last reply"] * (len(row) - at)
    return roles
