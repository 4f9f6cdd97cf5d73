"""`--log-conversations`: what was said, one JSON object a line.

Invariant: a line holds no secret that is known or has a known form, no e-mail address and no card number; it is one
line whatever was said, since control characters are escaped; and only the server's user may read the file.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from ..core.errors import RunFolderError
from ..core.secrets import MASK, Redactor

logger = logging.getLogger(__name__)

# Bounded parts, so that a text without a match takes time in proportion to its length.
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")


class PersonalRedactor(Redactor):
    """A redactor that also hides e-mail addresses and what may be a card number."""

    def __call__(self, text: str) -> str:
        """See `Redactor`."""
        return _DIGITS.sub(_card, _EMAIL.sub(MASK, super().__call__(text)))


def _card(found: re.Match[str]) -> str:
    """A number of 13 to 19 digits whose check digit is right; an order number seldom is one."""
    digits = [int(character) for character in found[0] if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return found[0] if sum(doubled) % 10 else MASK


class ConversationLog:
    """The file.

    Args:
        path: where; its folder is made, for its user alone.
        secrets: texts that are hidden too, such as the server's tokens.
        max_bytes: after which another file is begun.
        keep: older files that are kept, as `path.1` (the newest of them) to `path.N`.

    Raises:
        RunFolderError: the file cannot be written.
    """

    def __init__(
        self, path: str | Path, *, secrets: Iterable[str] = (), max_bytes: int = 50_000_000, keep: int = 5
    ) -> None:
        self.path = Path(path)
        self._redact = PersonalRedactor.from_environment()
        for secret in secrets:
            self._redact.add(secret)
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        try:
            self._file = self._open()
        except OSError as error:
            raise RunFolderError(f"the conversation log {path} cannot be written: {error.strerror}") from None

    def write(self, event: str, conversation_id: str, **told: Any) -> None:
        """Add a line.

        Args:
            event: what happened: "started", "turn", "ended".
            conversation_id: whose.
            told: what else; texts in it are redacted.
        """
        line = {"time": datetime.now(UTC).isoformat(), "event": event, "conversation_id": conversation_id}
        line |= {key: self._clean(value) for key, value in told.items()}
        data = (json.dumps(line) + "\n").encode()  # plain ASCII: JSON escapes what a terminal would act on
        with self._lock:
            try:
                self._write(data)
            except (OSError, ValueError) as error:  # a full disk costs the log, and never a reply
                logger.error("a line of the conversation log is lost: %s", error)  # noqa: TRY400

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _write(self, data: bytes) -> None:
        """Write a whole line, or nothing of it.

        Raises:
            OSError, ValueError: nothing is written; the next line has another chance.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size and size + len(data) > self._max_bytes:
            self._rotate()
        elif not self._has_its_name():  # deleted, or taken away by another program that rotates logs
            self._reopen()
        size = os.fstat(self._file.fileno()).st_size
        if self._file.write(data) < len(data):
            self._file.truncate(size)
            raise OSError("the disk is full")

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value).replace("\x7f", "\\x7f")
        if isinstance(value, Mapping):
            return {self._clean(str(key)): self._clean(one) for key, one in value.items()}
        return [self._clean(one) for one in value] if isinstance(value, (list, tuple)) else value

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _open(self) -> FileIO:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no file")
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def _reopen(self) -> None:
        file = self._open()  # if that fails, there is still the one that is open
        self._file.close()
        self._file = file

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        self._reopen()
