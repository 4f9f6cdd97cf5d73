"""An engine that says what was recorded, so that a recorded conversation becomes the tokens that a rollout would have.

Invariant: the n-th reply of a session is the n-th recorded text, as the ids with which a model would say it and end its
turn. Log-probs are 0.0, which means nothing: nobody sampled these tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from ..core.outcome import StopReason
from .base import GeneratedToken, Generation, GenerationRequest

if TYPE_CHECKING:
    from ..chat.codec import ChatCodec

NOT_SAMPLED = -1
"""The version of weights that recorded tokens are said to come from."""


class RecordedEngine:
    """Engine for one conversation.

    Args:
        codec: what prompts are rendered with.
        texts: the replies, in turn.
    """

    def __init__(self, codec: ChatCodec, texts: Sequence[str]) -> None:
        self.version = NOT_SAMPLED
        self._codec = codec
        self._texts = list(texts)

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`. The length limit is not looked at: the reply is as long as it was.

        Raises:
            DataError: the tokenizer cannot write the text.
        """
        ids = self._codec.record_reply(self._texts[int(request.key.rpartition("#")[2])])
        return Generation(ids, (0.0,) * len(ids), StopReason.STOP, self.version)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GeneratedToken]:
        """See `Engine.stream`."""
        generation = await self.generate(request)
        for index, token in enumerate(generation.ids):
            last = index == len(generation.ids) - 1
            yield GeneratedToken(token, 0.0, generation if last else None)
            await asyncio.sleep(0)

    def release(self, session: str) -> None:
        """See `Engine.release`: nothing is kept."""

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
