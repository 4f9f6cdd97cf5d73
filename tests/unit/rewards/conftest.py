"""A judge that was told what to say, and remembers what it was asked."""

import pytest

from stateset_agents.engines.chat_model import ChatFailed


class Scripted:
    """A `ChatModel` whose answers come in order, the last one for ever after; None is no answer."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []
        self.keys = []

    async def complete(self, messages, *, key, temperature, max_tokens):
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append([dict(message) for message in messages])
        self.keys.append(key)
        if answer is None:
            raise ChatFailed("nobody there")
        return answer

    def describe(self):
        return {"kind": "scripted", "repeatable": True}


@pytest.fixture
def scripted():
    return Scripted
