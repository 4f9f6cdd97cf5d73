"""How a run stands, as `status.json` says it.

Invariant: the file is whole or absent. A run that was killed still says "running", with a heartbeat that has stopped:
nobody was left to say otherwise.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from .disk import replace_text

State = Literal["running", "finished", "failed", "interrupted"]

STATUS = "status.json"


@dataclass(frozen=True)
class RunStatus:
    """One reading of `status.json`.

    Attributes:
        state: how the run stands, or stood when its process died.
        step: the last step that was logged.
        started: when the process began to write, ISO 8601, UTC.
        updated: the last heartbeat.
        pid: the writer, on `host`.
        host: name of the machine.
        message: why a run failed, or how to continue it.
        resumed_at: the steps after which it was taken up again, in order.
    """

    state: State
    step: int
    started: str
    updated: str
    pid: int
    host: str
    message: str = ""
    resumed_at: tuple[int, ...] = ()


def read_status(path: str | os.PathLike[str]) -> RunStatus | None:
    """How a run stands, or None if `status.json` is missing or is not the status of a run.

    Args:
        path: the run folder.
    """
    try:
        status = RunStatus(**json.loads((Path(path) / STATUS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return status if _is_sound(status) else None


def write_status(path: Path, status: RunStatus) -> None:
    """Replace the status of the run folder `path`. Only an end waits for the disk, a heartbeat does not.

    Raises:
        OSError: the disk or the folder refuses.
    """
    text = json.dumps(asdict(status), indent=2, ensure_ascii=False) + "\n"
    # Half a character in a message (an error of code that was fed one) is no reason to say nothing at all.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    replace_text(path / STATUS, text, durable=status.state != "running")


def _is_sound(status: RunStatus) -> bool:
    texts = (status.started, status.updated, status.host, status.message)
    return (
        status.state in get_args(State)
        and all(isinstance(text, str) for text in texts)
        and type(status.step) is int
        and type(status.pid) is int
        and 0 < status.pid < 2**31  # of a process; the system takes no other number
        and isinstance(status.resumed_at, list | tuple)
        and all(type(step) is int for step in status.resumed_at)
    )


def timestamp() -> str:
    """Now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
