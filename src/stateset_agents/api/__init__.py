"""The service: conversations with an agent that are stored, and the doors to them."""

from .conversations import Conversations
from .errors import ServeError
from .limits import ServeLimits
from .postgres_store import PostgresStore
from .replies import History, Reply, Started
from .sqlite_store import SqliteStore
from .store import ConversationStore, owner_of
from .watch import EngineWatch

__all__ = [
    "ConversationStore",
    "Conversations",
    "EngineWatch",
    "History",
    "PostgresStore",
    "Reply",
    "ServeError",
    "ServeLimits",
    "SqliteStore",
    "Started",
    "owner_of",
]
