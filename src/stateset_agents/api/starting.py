"""How a conversation begins.

Invariant: requests of one owner with the same idempotency key begin one conversation, whether they come one after the
other or at the same moment, and whether or not there is room for another. A place among those that may be under way is
taken before anything is stored, and given back if nothing is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .admission import check_context, check_key
from .clock import Clock
from .finishing import finished
from .limits import ServeLimits
from .ongoing import Ongoing
from .replies import Started
from .store import Conversation, ConversationStore, Start, StoredTurn, new_id


class Starting:
    """See the module."""

    def __init__(
        self, store: ConversationStore, ongoing: Ongoing, limits: ServeLimits, clock: Clock, greeting: str
    ) -> None:
        self._store, self._ongoing, self._limits, self._clock = store, ongoing, limits, clock
        self.greeting = greeting
        """What each conversation begins with; a reload sets it."""

    async def start(
        self, user_id: str | None, context: Mapping[str, Any] | None, owner: str, idempotency_key: str | None
    ) -> Started:
        """See `Conversations.start`."""
        check_context(user_id, context, self._limits)
        check_key(idempotency_key)
        start = None
        if idempotency_key is not None:
            asked = json.dumps([user_id, dict(context or {})])
            start = Start(owner, idempotency_key, hashlib.sha256(asked.encode()).hexdigest())
            if known := await self._store.begun(start):
                return _started(*known, replayed=True)
        await self._ongoing.make_room()
        now = self._clock.now()
        conversation = Conversation(new_id(), owner, now, now, user_id, dict(context or {}))
        self._ongoing.see(conversation)  # before it is stored: its place is taken
        try:
            greeting = StoredTurn("assistant", self.greeting, now) if self.greeting else None
            stored, said = await finished(self._store.create(conversation, greeting, start))
        except BaseException:
            self._ongoing.leave(conversation)
            raise
        if stored.id != conversation.id:  # a twin of this request was faster
            self._ongoing.leave(conversation)
        return _started(stored, said, replayed=stored.id != conversation.id)


def _started(conversation: Conversation, greeting: StoredTurn | None, *, replayed: bool) -> Started:
    return Started(conversation.id, greeting.content if greeting else "", replayed=replayed)
