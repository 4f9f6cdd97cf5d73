"""Asks the rules after each step, and holds what they moved.

Invariant: the settings of a step are a function of the configuration and the moves so far, and a move is one of the
rows and the moves before it. Both are saved, so a resumed run makes the same moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...core.trajectory import TrajectoryGroup
from ...tracking.health import NEAR_MAXIMUM
from ..curriculum import Curriculum
from .moves import Move
from .rules import RULES, Rule
from .settings import Settings
from .signals import Rows, View


class Adjuster:
    """The moves of one run.

    Args:
        configured: the settings of the first step.
        attainable: the highest reward that an episode can get, if known.

    Attributes:
        settings: in force for the next step.
        moves: so far.
        curriculum: which scenarios taught something.
    """

    def __init__(self, configured: Settings, attainable: float | None) -> None:
        self._first = configured
        self._attainable = attainable
        self.settings = self._first
        self.moves: list[Move] = []
        self.curriculum = Curriculum(None if attainable is None else NEAR_MAXIMUM * attainable)

    def note(self, groups: Iterable[TrajectoryGroup]) -> None:
        """Take note of which scenarios of a step taught something."""
        self.curriculum.note(groups)

    def after(self, rows: Rows) -> Move | None:
        """Look at the rows of the run so far, and move a setting if there is a reason to."""
        done = self.moves[-1].step if self.moves else 0
        since = [row for row in rows if row["step"] > done]
        for rule in RULES:
            if len(since) >= rule.window and self.settings.can_move(rule.setting):
                move = self._asked(rule, View(rows, since, rule.window, self._attainable))
                if move is not None:
                    self._make(move)
                    return move
        return None

    def _asked(self, rule: Rule, view: View) -> Move | None:
        before = self.settings.value(rule.setting)
        reason = rule.looks(view)
        after = before if reason is None else rule.change(self.settings, self._first, view.rows)
        if reason is None or after == before:
            return None
        return Move(view.rows[-1]["step"], rule.signal, rule.setting, before, after, reason)

    def _make(self, move: Move) -> None:
        self.moves.append(move)
        self.settings = self.settings.moved(move.setting, move.after)
        self.curriculum.rests = self.settings.rests

    def state_dict(self) -> dict[str, Any]:
        """The moves, and what is known of scenarios."""
        return {"moves": [move.to_dict() for move in self.moves], "curriculum": self.curriculum.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.settings, self.moves = self._first, []
        for move in state["moves"]:
            self._make(Move(**move))
        self.curriculum.load_state_dict(state["curriculum"])
