"""A store whose tables are in an SQL database.

Invariant: each call is one of the operations, run as one transaction: it happens as a whole or not at all.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, TypeVar

from . import operations
from .operations import Dialect, Operation
from .store import Attempt, Conversation, Start, Status, StoredTurn
from .watch import Observe, ignore

Result = TypeVar("Result")


class SqlStore(ABC):
    """A `ConversationStore`; see there for what the methods promise. What is left is where the tables are.

    Args:
        observe: hears how long each operation took.
    """

    dialect: ClassVar[Dialect]
    server: int = 0
    """Of this process, among those that use the same tables."""

    def __init__(self, observe: Observe = ignore) -> None:
        self._observe = observe

    @abstractmethod
    async def transaction(self, operation: Operation[Result]) -> Result:
        """Run an operation as one transaction.

        Raises:
            StoreFailed: the database cannot do it.
        """

    async def run(self, operation: Operation[Result]) -> Result:
        """Run an operation, and measure it."""
        begun = time.monotonic()
        try:
            return await self.transaction(operation)
        finally:
            self._observe("store", time.monotonic() - begun, op=str(getattr(operation, "__name__")))  # noqa: B009 - of a generator, which its type hides

    async def ping(self) -> None:
        """See `ConversationStore.ping`."""
        await self.run(operations.ping())

    async def create(
        self, conversation: Conversation, greeting: StoredTurn | None, start: Start | None = None
    ) -> tuple[Conversation, StoredTurn | None]:
        """See `ConversationStore.create`."""
        return await self.run(operations.create(conversation, greeting, start))

    async def begun(self, start: Start) -> tuple[Conversation, StoredTurn | None] | None:
        """See `ConversationStore.begun`."""
        return await self.run(operations.begun(start))

    async def find(self, conversation_id: str) -> Conversation | None:
        """See `ConversationStore.find`."""
        return await self.run(operations.find(conversation_id))

    async def ongoing(self) -> list[Conversation]:
        """See `ConversationStore.ongoing`."""
        return await self.run(operations.ongoing())

    async def turns(self, conversation_id: str, after: int = 0, limit: int | None = None) -> list[StoredTurn]:
        """See `ConversationStore.turns`."""
        return await self.run(operations.turns(conversation_id, after, limit))

    async def interrupted(self, conversation_id: str) -> list[Attempt]:
        """See `ConversationStore.interrupted`."""
        return await self.run(operations.interrupted(conversation_id))

    async def answered(self, conversation_id: str, key: str) -> Attempt | None:
        """See `ConversationStore.answered`."""
        return await self.run(operations.answered(conversation_id, key))

    async def begin(self, attempt: Attempt) -> tuple[Conversation, Attempt]:
        """See `ConversationStore.begin`."""
        return await self.run(operations.begin(attempt, self.dialect, self.server))

    async def commit(
        self, attempt: Attempt, turns: Sequence[StoredTurn], reply: Mapping[str, object], *, ends: str | None = None
    ) -> Conversation:
        """See `ConversationStore.commit`."""
        return await self.run(operations.commit(attempt, turns, reply, ends, self.dialect))

    async def drop(self, attempt_id: str, *, interrupted: bool = False) -> None:
        """See `ConversationStore.drop`."""
        await self.run(operations.drop(attempt_id, interrupted=interrupted))

    async def end(
        self, conversation_id: str, at: datetime, status: Status, reason: str, *, if_idle_since: datetime | None = None
    ) -> Conversation | None:
        """See `ConversationStore.end`."""
        ending = operations.end(conversation_id, at, status, reason, if_idle_since, self.dialect, self.server)
        return await self.run(ending)

    async def purge(self, before: datetime) -> int:
        """See `ConversationStore.purge`."""
        return await self.run(operations.purge(before))
