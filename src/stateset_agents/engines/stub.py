"""An engine without a model: it says what it was told to say.

Invariant: like any engine's, a reply depends on the request alone. Which of the scripted replies comes next is read off
the prompt, by counting the assistant turns in it. Log-probs are 0.0: a scripted reply was certain.

`stub://` says one fixed sentence, `stub://echo` what the user said last, and `stub://Hello there|And what then?` its
replies in turn, from the start again after the last. Text is percent-decoded, so that `%7C` is a bar that does not
separate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from ..core.outcome import StopReason
from .base import GeneratedToken, Generation, GenerationRequest

if TYPE_CHECKING:
    from ..chat.codec import ChatCodec
    from ..chat.tokenizer import ChatTokenizer

PREFIX = "stub://"
ECHO = "stub://echo"
DEFAULT_REPLY = "Hello! How can I help you today?"
Fault = Literal["raise", "hang", "truncate"]


class StubFault(RuntimeError):
    """What a stub raises when it was told to."""


def replies_of(name: str) -> tuple[str, ...]:
    """The replies that a `stub://...` name scripts."""
    script = name.removeprefix(PREFIX)
    return tuple(unquote(reply) for reply in script.split("|")) if script else (DEFAULT_REPLY,)


class StubEngine:
    """Engine with scripted replies.

    Args:
        tokenizer: turns replies into ids.
        codec: what prompts are rendered with.
        replies: said in turn, from the start again after the last; None repeats the user's last message.
        latency: seconds before each reply.
        faults: call number (from 0, in order of arrival) to what goes wrong with it: "raise" raises `StubFault`, "hang"
            never answers, "truncate" ends after half of the reply as `LENGTH`.

    Raises:
        ValueError: there are no replies.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        codec: ChatCodec,
        replies: Sequence[str] | None = (DEFAULT_REPLY,),
        *,
        latency: float = 0.0,
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        if replies is not None and not replies:
            raise ValueError("a stub needs at least one reply")
        self.version = 0
        self.calls = 0
        """Requests that arrived so far."""
        self.sessions: set[str] = set()
        """Sessions that were used and not released."""
        self._latency = latency
        self._faults = dict(faults or {})
        self._closed = False
        self._replies = [
            tuple(tokenizer.encode(reply, add_special_tokens=False, split_special_tokens=True, verbose=False))
            for reply in replies or ()
        ]
        self._stop = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else codec.stop_ids[0]
        greeting = [{"role": "user", "content": "Hi"}]
        plain = codec.open(greeting, add_generation_prompt=False).ids
        self._header = codec.open(greeting).ids[len(plain) :]
        self._user = _around_the_user(codec)

    @classmethod
    def from_name(cls, name: str, tokenizer: ChatTokenizer, codec: ChatCodec) -> StubEngine:
        """The engine that a `stub://...` model name asks for."""
        return cls(tokenizer, codec, None if name == ECHO else replies_of(name))

    async def generate(self, request: GenerationRequest) -> Generation:
        """See `Engine.generate`.

        Raises:
            StubFault: this call was told to fail.
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("the stub engine is closed")
        fault = self._faults.get(self.calls)
        self.calls += 1
        if request.session is not None:
            self.sessions.add(request.session)
        if fault == "raise":
            raise StubFault("this call was told to fail")
        if fault == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(self._latency)
        prompt = request.prompt_ids
        words = self._replies[self._turn(prompt) % len(self._replies)] if self._replies else self._last_said(prompt)
        reply = (*words, self._stop)
        if fault == "truncate":
            reply = reply[: max(1, len(reply) // 2)]
        reply = reply[: request.params.max_new_tokens]
        reason = StopReason.STOP if len(reply) == len(words) + 1 else StopReason.LENGTH
        return Generation(reply, (0.0,) * len(reply), reason, self.version, len(request.prompt_ids) + len(reply))

    async def stream(self, request: GenerationRequest) -> AsyncIterator[GeneratedToken]:
        """See `Engine.stream`."""
        generation = await self.generate(request)
        for index, token in enumerate(generation.ids):
            last = index == len(generation.ids) - 1
            yield GeneratedToken(token, generation.logprobs[index], generation if last else None)
            await asyncio.sleep(0)

    def release(self, session: str) -> None:
        """See `Engine.release`."""
        self.sessions.discard(session)

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        self._closed = True
        self.sessions.clear()

    def _last_said(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The user's last message, as it stands in the prompt."""
        before, after = self._user
        end = len(prompt) - len(after)
        starts = range(end - len(before), -1, -1)
        found = next((at for at in starts if tuple(prompt[at : at + len(before)]) == before), None)
        return () if found is None else tuple(prompt[found + len(before) : end])

    def _turn(self, prompt: Sequence[int]) -> int:
        """How many assistant turns the prompt holds before the one that it asks for."""
        width = len(self._header)
        if not width:
            return 0
        starts = range(len(prompt) - width + 1)
        return max(0, sum(tuple(prompt[at : at + width]) == self._header for at in starts) - 1)


def _around_the_user(codec: ChatCodec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens before a user's message in a conversation, and those from its end to the reply."""
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]
    start = len(codec.open(earlier, add_generation_prompt=False).ids)
    one, other = (codec.open([*earlier, {"role": "user", "content": text}]).ids[start:] for text in ("A", "B"))
    at = next(place for place, (first, second) in enumerate(zip(one, other, strict=True)) if first != second)
    return tuple(one[:at]), tuple(one[at + 1 :])
