"""A chat model that says what it is told to say, and remembers what it was asked."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.engines.chat_model import ChatModel


class Told:
    """Says its lines in the order of the requests; an exception among them is raised. The last one is said for ever."""

    def __init__(self, *lines: str | Exception) -> None:
        self.lines = lines
        self.asked: list[dict[str, Any]] = []

    async def complete(self, messages: Any, *, key: str, temperature: float, max_tokens: int) -> str:
        line = self.lines[min(len(self.asked), len(self.lines) - 1)]
        self.asked.append({"messages": messages, "key": key, "temperature": temperature, "max_tokens": max_tokens})
        if isinstance(line, Exception):
            raise line
        return line

    def describe(self) -> dict[str, Any]:
        return {"model": "told", "repeatable": False}


@pytest.fixture
def told() -> Callable[..., Told]:
    assert isinstance(Told("x"), ChatModel)
    return Told


def conversation(*texts: str) -> Sequence[Any]:
    """Turns, the user's and the agent's by turns."""
    return [ConversationTurn(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


@pytest.fixture
def talk() -> Callable[..., Sequence[Any]]:
    return conversation
