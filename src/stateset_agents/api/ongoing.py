"""The conversations that are under way in this process, and which of them nobody writes to any more.

Invariant: how long a conversation has been idle is measured by the monotonic clock from the moment that this process
heard of it, and what came before by what is stored; so a wall clock that is set expires nothing. A conversation with a
turn never expires. The store has the last word: another process may know it better.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from datetime import datetime

from .clock import Clock
from .errors import ConversationOver, TooManyConversations
from .finishing import finished
from .forks import Forks
from .limits import ServeLimits
from .store import Conversation, ConversationStore, Status
from .turn import Turn
from .watch import Observe


@dataclass(eq=False)
class Active:
    """An ongoing conversation.

    Attributes:
        last_activity: as it is stored.
        touched: the same on the monotonic clock.
        lock: of the turn that runs.
        turns: that run or wait for the lock.
    """

    last_activity: datetime
    touched: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: set[Turn] = field(default_factory=set)


class Ongoing:
    """See the module."""

    def __init__(
        self, store: ConversationStore, forks: Forks, limits: ServeLimits, clock: Clock, observe: Observe
    ) -> None:
        self._store, self._forks, self._limits = store, forks, limits
        self._clock, self._observe = clock, observe
        self._active: dict[str, Active] = {}

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, conversation_id: str) -> bool:
        return conversation_id in self._active

    def see(self, conversation: Conversation) -> Active:
        """Take in what the store says of an ongoing conversation."""
        active = self._active.get(conversation.id)
        if active is None or conversation.last_activity > active.last_activity:
            age = max(0.0, (self._clock.now() - conversation.last_activity).total_seconds())
            active = active or Active(conversation.last_activity, 0.0)
            active.last_activity, active.touched = conversation.last_activity, self._clock.monotonic() - age
            self._active[conversation.id] = active
        return active

    def touch(self, active: Active, conversation: Conversation) -> None:
        """A turn of it was stored."""
        active.last_activity, active.touched = conversation.last_activity, self._clock.monotonic()

    def leave(self, conversation: Conversation) -> None:
        """A conversation is over, or was never stored: its turns are cut, and nothing is kept for it."""
        active = self._active.pop(conversation.id, None)
        self._forks.forget(conversation.id)
        if active is None or conversation.status is Status.ONGOING:
            return
        reason = conversation.reason or conversation.status.value
        self._observe("eviction", 1, reason=reason)
        for turn in active.turns:
            if turn.task is not asyncio.current_task():
                turn.cancel(ConversationOver(reason, conversation.over_at or conversation.last_activity))

    async def expire(self, conversation_id: str) -> None:
        """End a conversation if it has been idle for too long."""
        active = self._active.get(conversation_id)
        if active is None or active.turns or self._left(active) > 0:
            return
        conversation = await finished(
            self._store.end(
                conversation_id, self._clock.now(), Status.EXPIRED, "expired", if_idle_since=active.last_activity
            )
        )
        if conversation is None:
            self._active.pop(conversation_id, None)
        elif conversation.status is Status.ONGOING:  # another process knows it better
            self.see(conversation)
        else:
            self.leave(conversation)

    async def expire_all(self) -> None:
        """End all that have been idle for too long."""
        for conversation_id in [*self._active]:
            await self.expire(conversation_id)

    async def make_room(self) -> None:
        """Let there be room for one more.

        Raises:
            TooManyConversations: there is none.
        """
        most = self._limits.max_conversations
        if len(self._active) >= most:
            await self.expire_all()
        if len(self._active) >= most:
            idle = [self._left(active) for active in self._active.values() if not active.turns]
            raise TooManyConversations(
                f"{most} conversations are under way, as many as may be; end one, or wait until one expires",
                retry_after=max(1.0, math.ceil(min(idle, default=self._limits.idle_seconds))),
            )

    def _left(self, active: Active) -> float:
        """Seconds until it expires."""
        return active.touched + self._limits.idle_seconds - self._clock.monotonic()
