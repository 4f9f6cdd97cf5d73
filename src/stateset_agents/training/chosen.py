"""What `AutoTrainer` chose for a run, as the run keeps it.

Invariant: a run's choices are made once. They lie in its folder, and a resumed run takes them from there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..agents.multi_turn import MultiTurnAgent
from ..core.environment import Environment
from ..core.errors import RunFolderError
from ..core.reward import GroupReward, RewardFunction
from ..tracking.layout import AUTO_TRAINER
from .baseline import look
from .choosing import Choice, choose, remarks
from .run import Say
from .trainer import Trainer

_OF_AGENT = ("temperature", "max_new_tokens")


@dataclass(frozen=True)
class Chosen:
    """The choices of one run.

    Attributes:
        seen: the baseline in words.
        choices: what was chosen, with the reasons.
        remarks: what no setting mends.
        again: how to resume the run.
    """

    seen: str
    choices: tuple[Choice, ...]
    remarks: tuple[str, ...] = ()
    again: str = "AutoTrainer(...).train(..., resume=True)"

    @classmethod
    async def by_looking(
        cls,
        agent: MultiTurnAgent,
        environment: Environment,
        reward: RewardFunction,
        evaluation: Environment | None,
        given: dict[str, Any],
    ) -> Self:
        """Play a few groups, and choose.

        Args:
            agent, environment, reward, evaluation: of the run.
            given: settings by name that the caller made. Early stopping is chosen all the same where it makes no sense.
        """
        seen = await look(agent, environment, reward, evaluation, seed=int(given.get("seed", 0)))
        told = vars(agent.config)
        choices = choose(seen, told, given)
        if given.get("early_stopping") and isinstance(reward, GroupReward):
            reason = "the reward compares conversations with each other, so its mean stays where it is"
            choices.append(Choice("early_stopping", False, reason))
        return cls(str(seen), tuple(choices), tuple(remarks(seen)))

    @classmethod
    def remembered(cls, folder: Path) -> Self | None:
        """The choices of a run that is resumed; None if it was killed before it had any.

        Raises:
            RunFolderError: the file was changed.
        """
        path = folder / AUTO_TRAINER
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(data["seen"], tuple(Choice(**one) for one in data["choices"]), tuple(data["remarks"]))
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(f"{path} does not hold what AutoTrainer chose: {error}; put it back") from error

    @property
    def lines(self) -> list[str]:
        """One for what was seen, and one for each choice."""
        return [f"analysis: {self.seen}", *(f"chosen: {one}" for one in self.choices), *self.remarks]

    @property
    def of_agent(self) -> dict[str, Any]:
        """Settings of the agent."""
        return {one.name: one.value for one in self.choices if one.name in _OF_AGENT}

    @property
    def of_run(self) -> dict[str, Any]:
        """Settings of the run."""
        return {one.name: one.value for one in self.choices if one.name not in _OF_AGENT}

    async def keep(self, trainer: Trainer, _: Say) -> None:
        """Write the choices into the run folder."""
        folder = trainer.parts.folder
        if folder is not None:
            data = {"seen": self.seen, "choices": [asdict(one) for one in self.choices], "remarks": self.remarks}
            folder.write_text(AUTO_TRAINER, json.dumps(data, indent=1) + "\n")

    async def tell(self, _: Trainer, __: Say) -> str:
        """The part of the report."""
        return "\n".join(["Settings of AutoTrainer", *(f"- {line}" for line in self.lines)]) + "\n"
