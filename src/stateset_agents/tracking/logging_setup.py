"""Where log records go.

Invariant: nothing is logged twice, and no secret of the environment reaches a log. With a log file, the file gets every
record of `level` and above and the terminal only warnings; without one, the terminal gets this package's records of
`level` and above, and warnings of other packages. Records go to stderr, so a piped stdout holds results alone. What
`CHATTY` packages say at INFO is told at DEBUG alone.

A record is a line of text, or with the format "json" one JSON object a line, whatever the message holds.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TextIO

from ..core.errors import ConfigError
from ..core.secrets import Redactor
from .jsonl import to_line

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PACKAGE = "stateset_agents"
Form = Literal["text", "json"]

FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TERMINAL_FORMAT = "%(levelname)s %(message)s"

CHATTY = ("httpx2",)
"""Packages with a record at INFO for each request to a judge or a user, which would bury the run's own."""

FILE_ONLY = {"file_only": True}
"""`extra` of a record that the terminal is told in another way, or not at all."""


def setup_logging(
    level: str = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    *,
    redactor: Redactor | None = None,
    form: Form = "text",
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Redactor:
    """Send the records of this process where the config says. A second call replaces what the first one set up.

    Args:
        level: one of DEBUG, INFO, WARNING, ERROR, CRITICAL, in any case.
        log_file: appended to, mode 0600; its folder is made if needed.
        redactor: what hides secrets; by default one for the environment's.
        form: of a record: "text", or "json".
        facts: what each JSON record says beside its own, as it is at that time: the run, the step.

    Returns:
        The redactor in use; `add` a secret to it that only a flag or a config holds.

    Raises:
        ConfigError: an unknown level, or a file that cannot be written.
    """
    name = level.upper()
    if name not in LEVELS:
        raise ConfigError(f'logging.level is "{level}", which does not exist.\n  known levels: {", ".join(LEVELS)}')
    redactor = redactor or Redactor.from_environment()
    number = int(getattr(logging, name))
    handlers: list[logging.Handler] = [_Terminal(number, redactor, warnings_only=log_file is not None)]
    if log_file is not None:
        handlers.append(_open_file(Path(log_file).expanduser(), number, redactor))
    if form == "json":
        for handler in handlers:
            handler.setFormatter(_JsonFormatter(redactor, facts))
    root = logging.getLogger()
    _remove_own_handlers(root)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING if number == logging.INFO else logging.NOTSET)
    logging.captureWarnings(capture=True)
    return redactor


@contextmanager
def also_log_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within this block this package's records of INFO and above go to `path` too; everything else stays as it is.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler = _open_file(Path(path), logging.INFO, Redactor.from_environment())
    logger = logging.getLogger(PACKAGE)
    before = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


def speaks_json() -> bool:
    """Whether what goes to stderr is JSON, so that a message there must be a record too."""
    own = (handler for handler in logging.getLogger().handlers if isinstance(handler, _Terminal))
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in own)


def reset_logging() -> None:
    """Take away what `setup_logging` set up and close the log file."""
    _remove_own_handlers(logging.getLogger())
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)


class _RedactingFormatter(logging.Formatter):
    """Redacts last, so that arguments and tracebacks are covered too."""

    def __init__(self, pattern: str, redactor: Redactor) -> None:
        super().__init__(pattern)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor(super().format(record))


class _JsonFormatter(logging.Formatter):
    """One JSON object. Each text is redacted by itself, so that what hides a secret never breaks the JSON."""

    def __init__(self, redactor: Redactor, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self._redactor, self._facts = redactor, facts

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        row |= self._facts
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return to_line(row, self._redactor).decode().rstrip("\n")


class _Terminal(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that time: a live display puts its own stream there."""

    def __init__(self, level: int, redactor: Redactor, *, warnings_only: bool) -> None:
        logging.Handler.__init__(self, max(level, logging.WARNING) if warnings_only else level)
        self.setFormatter(_RedactingFormatter(TERMINAL_FORMAT, redactor))
        self.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] == PACKAGE)
        self.addFilter(lambda record: not getattr(record, "file_only", False))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _File(logging.FileHandler):
    pass


def _open_file(path: Path, level: int, redactor: Redactor) -> _File:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        handler = _File(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(
            f'logging.log_file is "{path}", which cannot be written ({error.strerror}).\n'
            "  name a file in a folder that you may write, or leave the key out"
        ) from error
    handler.setLevel(level)
    handler.setFormatter(_RedactingFormatter(FILE_FORMAT, redactor))
    return handler


def _remove_own_handlers(root: logging.Logger) -> None:
    for handler in [handler for handler in root.handlers if isinstance(handler, _Terminal | _File)]:
        root.removeHandler(handler)
        handler.close()
