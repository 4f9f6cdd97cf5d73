"""Calls of a chat model, as tests make them."""

from typing import Any

import pytest

from stateset_agents.engines.chat_model import ChatFailed, ChatModel

HI = [{"role": "user", "content": "Hi"}]


async def ask(model: ChatModel, messages: list[dict[str, str]] = HI, **more: Any) -> str:
    return await model.complete(messages, **{"key": "k", "temperature": 0.5, "max_tokens": 7, **more})


async def failure(model: ChatModel) -> str:
    """What a call that must fail says."""
    with pytest.raises(ChatFailed) as caught:
        await ask(model)
    return str(caught.value)
