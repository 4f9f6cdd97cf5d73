"""Alerts as HTTP requests.

Invariant: who alerts waits for nothing. A thread posts one alert after the other, each with a limit of seconds, and
tries again what fails in passing; what waits is bounded, and what cannot be delivered is logged and dropped: it stands
in `alerts.jsonl`. The address is read from the environment where a request is made, and is in no log, message or
record.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import random
import threading
from dataclasses import asdict
from functools import partial
from urllib.parse import urlsplit

import httpx2

from ...core.errors import ConfigError
from ...engines.answers import Refused, Transient, refusal
from ...engines.endpoint_address import is_loopback
from ...engines.retrying import Tries, persistently
from .told import Alert

log = logging.getLogger(__name__)

TRIES = Tries(seconds=10.0, retries=5, total_seconds=120.0, first_wait=1.0)
MOST_WAITING = 100
"""Alerts that wait for a slow receiver; those beyond are dropped."""


class Webhook:
    """Posts alerts to the address in an environment variable.

    Args:
        variable: its name.
        tries: limits of each alert.
        key: of the setting that names it, for messages.
    """

    def __init__(self, variable: str, tries: Tries = TRIES, *, key: str = "webhook_env") -> None:
        self.variable, self._key = variable, key
        self._tries = tries
        self._chance = random.Random()  # a generator of its own: retries leave no trace in what a run draws
        self._waiting: queue.Queue[Alert | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Look before a run whether there is an address.

        Raises:
            ConfigError: the variable is not set, or holds none.
        """
        self._address()

    def send(self, alert: Alert) -> None:
        """Have an alert posted."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            log.warning("%d alerts wait for the webhook: %s is dropped", MOST_WAITING, alert.alert)

    def close(self, seconds: float) -> None:
        """Wait so long at most until everything is posted; what is left then is left behind."""
        if self._thread is None:
            return
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            pass
        else:
            self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning(
                "the webhook of %s does not answer and is left behind; alerts.jsonl has every alert", self.variable
            )

    def _work(self) -> None:
        while (alert := self._waiting.get()) is not None:
            try:
                asyncio.run(persistently(partial(self._post, alert), self._tries, self._chance))
            except Exception as error:  # the thread goes on with the next one
                told = isinstance(error, Transient | Refused | ConfigError)  # another text may hold the address
                why = error if told else type(error).__name__
                log.warning("the alert %s did not reach the webhook of %s: %s", alert.alert, self.variable, why)

    async def _post(self, alert: Alert) -> None:
        """One try; a redirect is not followed: it would take the alert to a place that nobody has named."""
        address = self._address()
        said = f"{alert.run}: {alert.alert} {alert.state}, step {alert.step}: {alert.text}"
        body = json.dumps({**asdict(alert), "text": said}).encode()  # chat services show `text`, and nothing else
        try:
            async with (
                httpx2.AsyncClient(timeout=None, trust_env=not is_loopback(address)) as client,
                client.stream("POST", address, content=body, headers={"content-type": "application/json"}) as answer,
            ):
                status, wait = answer.status_code, answer.headers.get("retry-after")
        except httpx2.TransportError as error:
            raise Transient(type(error).__name__) from None  # its text may hold the address
        if not 200 <= status < 300:
            raise refusal(status, "", wait)

    def _address(self) -> str:
        address = os.environ.get(self.variable, "").strip()
        if not address:
            raise ConfigError(f"the environment variable {self.variable} ({self._key}) is not set")
        try:
            parts = urlsplit(address)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            is_loopback(str(httpx2.URL(address)))
        except (ValueError, httpx2.InvalidURL, ConfigError):  # their texts hold parts of the address
            whole = False
        if not whole:
            raise ConfigError(
                f"the environment variable {self.variable} ({self._key}) holds no whole address such as "
                '"https://host/path"'
            )
        return address
