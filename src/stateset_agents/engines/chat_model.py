"""A model that is asked in words: judges and simulated users need no tokens.

Invariant: what it answers is never trained. An answer that does not come is a `ChatFailed`, never an empty text:
whoever asked decides whose failure that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


class ChatFailed(Exception):
    """The model gave no answer: it could not be reached, refused, took too long, or said nothing that can be read.

    Attributes:
        passing: whether it is down or too busy, and may answer another time.
        retry_after: seconds until then, if it named any.
    """

    def __init__(self, reason: str, *, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.passing, self.retry_after = passing, retry_after


@runtime_checkable
class ChatModel(Protocol):
    """Anyone who answers messages with text."""

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        key: str,
        temperature: float,
        max_tokens: int,
    ) -> str:
        """Answer the messages.

        Args:
            messages: `{"role", "content"}`; roles are system, user and assistant.
            key: opaque; where the model allows it, all sampling noise derives from it.
            temperature: of sampling; 0 is greedy.
            max_tokens: longest answer.

        Raises:
            ChatFailed: there is no answer.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What a result has to say of it: model, where it runs, whether its answers can be repeated. No secrets."""
        ...
