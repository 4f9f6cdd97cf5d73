"""Agent: the side of the conversation that is trained.

Invariant: an episode talks to a fork. A fork has its own copy of the agent's Python state and shares what is expensive
(model, engine), so that an agent with state is safe in any number of conversations at once.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, ClassVar, Self

from ..core.tool_calls import spoken
from ..core.trajectory import ConversationTurn, TokenRow

logger = logging.getLogger(__name__)

History = Sequence[ConversationTurn | Mapping[str, str]]


class Agent(ABC):
    """Base of all agents. A subclass needs `process_turn` alone; one without a model is scored, and never trained.

    Attributes:
        shared: names of attributes that forks share instead of copying: clients, models, large tables.
        training_sampling: sample at temperature only, whatever truncation the config asks for. Trainers switch it on.
        key: of the episode that this fork plays; empty for an agent that is no fork.
    """

    shared: ClassVar[tuple[str, ...]] = ()
    training_sampling: bool = False
    key: str = ""

    async def initialize(self) -> None:
        """Load what the agent needs. Optional: the first reply does it. Doing it twice changes nothing."""

    @abstractmethod
    async def process_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> ConversationTurn:
        """Answer one user message.

        Args:
            history: the conversation so far, without `user_input`.
            user_input: what the user just said.
            context: what the agent may know about the situation; `agent_context` goes into its system prompt.

        Returns:
            The assistant's turn. Content that an override changed stays in the conversation and is not trained.
        """

    async def stream_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """Like `process_turn`, in pieces as they come.

        Yields:
            Pieces of text that the user may read at once. Each step on the way (a call of a tool, what the tool said)
            follows the text that was said beside it. The reply is the last item and has all steps too.
        """
        turn = await self.process_turn(history, user_input, context)
        for step in turn.steps:
            yield step
        if spoken(turn):
            yield spoken(turn)
        yield turn

    def fork(self, key: str) -> Self:
        """A twin for one episode.

        Attributes are copied deeply, with their references to one another and to the agent kept. What `shared` names,
        and what Python cannot copy (open files, locks, sockets), is shared with the original.

        Args:
            key: opaque; all sampling noise of the twin's replies derives from it.
        """
        twin = object.__new__(type(self))
        memo: dict[int, Any] = {id(self): twin}
        for name in self._shared_names():
            if name in vars(self):
                memo[id(vars(self)[name])] = vars(self)[name]
        attempts = []  # kept: deepcopy finds by id what a memo holds, and the id of one that is gone is given again
        for name, value in vars(self).items():
            attempt = dict(memo)
            attempts.append(attempt)
            try:
                vars(twin)[name] = copy.deepcopy(value, attempt)
            except Exception as error:  # whatever a foreign __deepcopy__ raises: sharing is the documented answer
                _tell_once(type(self).__name__, name, error)
                vars(twin)[name] = value
            else:
                memo = attempt
        twin.key = key
        twin._on_fork()
        return twin

    @property
    def rows(self) -> list[TokenRow]:
        """Training rows of the episode that this fork plays."""
        return []

    def settle(self, turns: Sequence[ConversationTurn]) -> int:
        """Called once when an episode is over: mask what did not reach the conversation as it was sampled.

        Returns:
            Assistant turns whose text code wrote or edited.
        """
        return sum(turn.role == "assistant" for turn in turns)

    def release(self) -> None:
        """Called when an episode is over, however it ended: free what the engine keeps for this fork."""

    def _shared_names(self) -> tuple[str, ...]:
        return self.shared

    def _on_fork(self) -> None:
        """Begin the twin's own episode state."""


_TOLD: set[tuple[str, str]] = set()


def _tell_once(owner: str, name: str, error: Exception) -> None:
    """A state that all conversations write to is a surprise; a client that they share is not."""
    if (owner, name) not in _TOLD:
        _TOLD.add((owner, name))
        logger.warning(
            "%s.%s cannot be copied (%s), so all conversations share it. If that is meant, say so: shared = (%r,)",
            owner,
            name,
            error,
            name,
        )
