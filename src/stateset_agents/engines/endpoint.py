"""A model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, a hosted service.

Invariant: what comes back is the text of a well-formed answer, or a `ChatFailed` that says why there is none. One call
passes, in this order, a slot (so many calls at once), the wait for a service that is down where that is asked for, the
circuit breaker, the retries, the limit of seconds for one request, the request. Tries inside one call count once for
the breaker; being told to slow down (429) is no failure of the service.

The API key is named by its environment variable and read where a request is made. It is in no attribute, `repr`, log,
message or result, and it is sent to the operator's own `base_url` alone: redirects are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from ..core.errors import ConfigError, ServiceDown
from ..core.standstill import here
from .answers import BadAnswer, Refused, Transient, Unsent, read_answer, refusal
from .breaker import Admission, Breaker, BreakerOpen, BreakerState
from .chat_model import ChatFailed
from .connections import Lines
from .endpoint_address import api_key, checked_address, checked_variable, is_loopback
from .retrying import Tries, persistently

logger = logging.getLogger(__name__)

_PROBE_POLL = 0.1
_STRIKES = 3
"""Times that a call fails while others are answered, until it is the call's own failure and not the service's."""
WHEN_DOWN = {"skip": 0.0, "wait": 3600.0}
"""What is done about a service that is down, with the patience that it has by default."""
_HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}


class Endpoint:
    """Asks a chat model over HTTP; see `ChatModel`.

    Args:
        base_url: what stands before `/chat/completions`, such as "http://127.0.0.1:8000/v1". It must come from whoever
            runs the program, never from data. Refused: other schemes than http and https, a user name, password, query
            or fragment, hosts written as an unusual number, and link-local (a cloud's metadata), multicast and
            unspecified addresses. Loopback and private addresses are allowed, and names are not resolved to look
            behind them: judges on one's own machine are the normal case.
        model: as the server calls it.
        api_key_env: environment variable that holds the API key. It is sent over https, or over http to this machine.
        seconds: for one request, from the first byte sent to the last one read.
        retries: further tries of a request that failed in passing.
        total_seconds: for a call with all its tries and the waits between them.
        concurrency: requests in flight at once; further calls wait for their turn, which no limit of seconds counts.
        max_bytes: of one answer.
        first_wait: seconds before the first retry, half of it by chance; doubled for each further one, up to 30. A
            server's Retry-After is honoured, if `total_seconds` allow it.
        extra_body: keys that every request has beside those of `complete`; one that is None is left out of it, such
            as `{"seed": None}` for a server that refuses to be told a seed.
        when_down: "skip": a call fails that a service does not answer, and while it is left alone the calls fail at
            once. "wait": all calls stand still until it answers again, and with them the limits of seconds of whoever
            asks; no call is lost.
        patience: with "skip" seconds that a call waits for a service that is left alone, 0 by default; with "wait"
            seconds that the service may be down, 3600 by default, after which the run stops.
        breaker: shared by all calls; by default one of its own.

    Raises:
        ConfigError: the address, the variable or a number cannot be.
    """

    OPTIONS = (
        "seconds",
        "retries",
        "total_seconds",
        "concurrency",
        "max_bytes",
        "first_wait",
        "extra_body",
        "when_down",
        "patience",
    )
    """Arguments that have a default."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        seconds: float = 60.0,
        retries: int = 4,
        total_seconds: float = 180.0,
        concurrency: int = 16,
        max_bytes: int = 1_000_000,
        first_wait: float = 0.5,
        extra_body: Mapping[str, Any] | None = None,
        when_down: str = "skip",
        patience: float | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.base_url = checked_address(base_url, with_key=api_key_env is not None)
        self.api_key_env = None if api_key_env is None else checked_variable(api_key_env)
        if not isinstance(model, str) or not model.strip():
            raise ConfigError(f"model is {model!r}; it must be the name by which the server knows it")
        if when_down not in WHEN_DOWN:
            raise ConfigError(f"when_down is {when_down!r:.40}; it must be one of {', '.join(WHEN_DOWN)}")
        patience = WHEN_DOWN[when_down] if patience is None else patience
        above = {"seconds": seconds, "total_seconds": total_seconds, "concurrency": concurrency, "max_bytes": max_bytes}
        wrong = [f"{name} is {value!r}; it must be above 0" for name, value in above.items() if not _number(value)]
        others = {"retries": retries, "first_wait": first_wait, "patience": patience}
        wrong += [
            f"{name} is {value!r}; it must be at least 0"
            for name, value in others.items()
            if value != 0 and not _number(value)
        ]
        if wrong:
            raise ConfigError(*wrong)
        self.model = model
        self.seconds, self.retries, self.total_seconds = seconds, retries, total_seconds
        self.concurrency, self.max_bytes, self.first_wait = concurrency, max_bytes, first_wait
        self.extra_body, self.when_down, self.patience = dict(extra_body or {}), when_down, patience
        self.breaker = breaker or Breaker()
        self._told = 0
        self._answered = 0
        self._waiting = 0
        self._down_since: float | None = None
        # A proxy of the environment is for the world outside this machine.
        self._lines = Lines(concurrency, proxied=not is_loopback(self.base_url))
        self._chance = random.Random()  # a generator of its own: retries leave no trace in what a run draws

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    def __deepcopy__(self, memo: object) -> Endpoint:
        """Itself: whoever asks the same service shares its breaker and its slots."""
        return self

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        key: str,
        temperature: float,
        max_tokens: int,
    ) -> str:
        """Answer the messages; see `ChatModel.complete`. The seed that the server is told follows from `key`.

        Raises:
            ChatFailed: there is no answer.
            ServiceDown: with `when_down` "wait", the service was down for longer than it may be.
        """
        body = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) >> 1,
            **self.extra_body,
        }
        body = {name: value for name, value in body.items() if value is not None}
        sent = json.dumps(body, allow_nan=False).encode()
        async with self._lines.line() as line, line.slots:
            try:
                return await self._admitted(line.client, sent)
            except ChatFailed as error:
                if self.when_down == "skip" or not error.passing:
                    raise
                return await self._outlasting(error, line.client, sent)

    def describe(self) -> dict[str, Any]:
        """Model and address. What it answers cannot be had again for certain: a seed is a wish, weights may change."""
        return {"kind": "endpoint", "model": self.model, "base_url": self.base_url, "repeatable": False}

    def to_config(self) -> dict[str, Any]:
        """The arguments that make it again, without those that are the default."""
        given = {name: getattr(self, name) for name in self.OPTIONS}
        parameters = inspect.signature(Endpoint).parameters
        changed = {name: value for name, value in given.items() if value != (parameters[name].default or type(value)())}
        key = {} if self.api_key_env is None else {"api_key_env": self.api_key_env}
        return {"base_url": self.base_url, "model": self.model, **key, **changed}

    @property
    def longest_call(self) -> float:
        """Seconds after which it is known that a call has failed. Where it is tried again, a server names the waits."""
        return self.total_seconds if self.retries else min(self.seconds, self.total_seconds)

    def check(self) -> None:
        """Check before a run what can be checked without asking the server.

        Raises:
            ConfigError: the API key is not there.
        """
        try:
            self._headers()
        except Refused as error:
            raise ConfigError(str(error)) from None

    async def _admitted(self, client: httpx2.AsyncClient, body: bytes) -> str:
        admission = await self._admission()
        try:
            with admission:
                try:
                    answer = await self._persistently(client, body)
                except Unsent:
                    raise
                except Refused:
                    admission.answered()
                    raise
                except Transient as error:
                    if error.fault:
                        admission.failed()
                    else:
                        admission.answered()
                    raise
                admission.succeeded()
                self._answered += 1
                self._works()
                return answer
        except Refused as error:
            if not isinstance(error, Unsent):
                self._works()
            raise ChatFailed(f"{self._service}: {error}") from None
        except Transient as error:
            if self.breaker.openings > self._told:
                self._told = self.breaker.openings
                logger.warning("%s keeps failing and is left alone for a while", self._service)
                here().down(self._service, str(error))
            passing = error.fault or error.busy
            # A busy service that is waited for stays down: its patience would begin anew with each 429.
            back = error.busy and self.when_down == "skip" and self.breaker.state is BreakerState.CLOSED
            if back or not passing:
                self._works()
            raise ChatFailed(f"{self._service}: {error}", passing=passing, retry_after=error.retry_after) from None

    async def _outlasting(self, error: ChatFailed, client: httpx2.AsyncClient, body: bytes) -> str:
        """Ask again and again until there is an answer, while the run stands still."""
        backoff = Tries(self.seconds, 0, self.total_seconds, max(self.first_wait, _PROBE_POLL))
        tried = strikes = 0
        self._waiting += 1
        try:
            async with here().waiting(self._service, str(error)):
                while True:
                    left = self._left_of_patience(error)
                    tried, answered = tried + 1, self._answered
                    await asyncio.sleep(min(left, max(backoff.wait(tried, self._chance), error.retry_after or 0.0)))
                    try:
                        return await self._admitted(client, body)
                    except ChatFailed as again:
                        strikes += self._answered > answered
                        if not again.passing or strikes == _STRIKES:
                            raise
                        error = again
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._down_since = None

    def _left_of_patience(self, error: ChatFailed) -> float:
        if self._down_since is None:
            self._down_since = time.monotonic()
            logger.warning("%s. The run waits until it is back, %s at most", error, _span(self.patience))
        left = self._down_since + self.patience - time.monotonic()
        if left <= 0:
            raise ServiceDown(f"{error}\n  it was waited for, {_span(self.patience)} (patience), and the run stops")
        return left

    def _works(self) -> None:
        """It has answered, whatever it said."""
        if self._down_since is not None:
            logger.warning("%s answers again, and the run goes on", self._service)
        self._down_since = None
        here().up(self._service)

    @property
    def _service(self) -> str:
        return f"{self.model} at {self.base_url}"

    async def _admission(self) -> Admission:
        end = time.monotonic() + (self.patience if self.when_down == "skip" else 0.0)
        while True:
            try:
                return self.breaker.admit()
            except BreakerOpen as error:
                wait = max(error.seconds, _PROBE_POLL)
                if wait > end - time.monotonic():
                    raise ChatFailed(f"{self._service}: {error}", passing=True) from None
            await asyncio.sleep(wait)

    async def _persistently(self, client: httpx2.AsyncClient, body: bytes) -> str:
        def tell(error: Transient, wait: float) -> None:
            logger.debug("%s: %s; trying again in %.2f s", self, error, wait)

        tries = Tries(self.seconds, self.retries, self.total_seconds, self.first_wait)
        return await persistently(lambda: self._ask(client, body), tries, self._chance, tell)

    async def _ask(self, client: httpx2.AsyncClient, body: bytes) -> str:
        url = f"{self.base_url}/chat/completions"
        headers = self._headers()
        try:
            async with client.stream("POST", url, content=body, headers=headers) as response:
                content = await self._content(response)
        except httpx2.TransportError as error:
            raise Transient(self._hidden(f"{type(error).__name__}: {error}")) from None
        if response.status_code != 200:
            said = self._hidden(content.decode(errors="replace"))
            raise refusal(response.status_code, said, response.headers.get("retry-after"))
        try:
            return read_answer(content)
        except BadAnswer as error:
            raise Transient(str(error), fault=error.fault) from None

    async def _content(self, response: httpx2.Response) -> bytes:
        """The bytes of an answer, and never many more than are allowed: packed ones could unfold to any number."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Transient("the answer is compressed, which it was asked not to be")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self.max_bytes:
                raise Transient(f"the answer is longer than {self.max_bytes} bytes")
        return bytes(content)

    def _headers(self) -> dict[str, str]:
        key = api_key(self.api_key_env)
        return dict(_HEADERS) if key is None else {**_HEADERS, "authorization": f"Bearer {key}"}

    def _hidden(self, text: str) -> str:
        """Text of somebody else's, without the key that a server may repeat, short and on one line."""
        key = api_key(self.api_key_env)
        text = text.replace(key, "***") if key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"


def _number(value: object) -> bool:
    """Whether it is a number above 0."""
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < math.inf
