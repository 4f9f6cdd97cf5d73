"""What a command prints when it cannot go on, and the exit code it ends with.

Invariant: results go to stdout, everything else to stderr; a user meets a traceback only with `--debug`. Exit codes:
0 done, 2 config or usage, 3 data, model or disk, 4 training stopped or the user's own code failed, 70 internal error,
75 interrupted and saved.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
import typer.core

from ..core.dotted import named_code_that_raised
from ..core.errors import (
    EXIT_DATA,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    MORE_FILES,
    CheckpointError,
    ConfigError,
    DataError,
    ModelError,
    RunFolderError,
    StatesetError,
    TrainingStopped,
    first_line,
    is_out_of_files,
    is_out_of_memory,
)
from ..tracking.logging_setup import speaks_json

logger = logging.getLogger("stateset_agents.cli")

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

_TITLES: dict[type[StatesetError], str] = {
    ConfigError: "config error",
    DataError: "data error",
    ModelError: "model error",
    CheckpointError: "checkpoint error",
    RunFolderError: "run folder error",
    TrainingStopped: "training stopped",
}

_EXIT_CODES = (
    "Exit codes: 0 done; 2 config or usage error; 3 data, model or disk error; 4 {stopped}; 70 internal error; "
    "75 {interrupted}."
)
EXIT_CODES_OF_TRAINING = _EXIT_CODES.format(
    stopped="training stopped: a reward, environment or agent of yours fails, or there is nothing to learn",
    interrupted="interrupted, and saved where training had begun",
)
EXIT_CODES_HELP = _EXIT_CODES.format(stopped="a reward, environment or agent of yours fails", interrupted="interrupted")
"""Of commands that train nothing."""


class DocumentedCommand(typer.core.TyperCommand):
    """A command whose usage line reads `CONFIG_FILE`, as the documents write it, instead of `{CONFIG_FILE}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS]` and the arguments."""
        pieces = [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]
        return ["CONFIG_FILE" if piece == "[CONFIG_FILE]" else piece for piece in pieces]


@contextmanager
def reporting_errors(
    *, debug: bool, interrupted: str = "interrupted before training began: nothing was saved."
) -> Iterator[None]:
    """Turn whatever is raised inside into a message on stderr and an exit code.

    Args:
        debug: print the traceback too.
        interrupted: what Ctrl-C means here.

    Raises:
        typer.Exit: with the exit code of the error's class.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        _print(interrupted, debug=debug)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        _print(describe(error), debug=debug)
        raise typer.Exit(exit_code(error)) from None


def exit_code(error: BaseException) -> int:
    """The exit code that a command returns for this error."""
    if isinstance(error, StatesetError):
        return error.exit_code
    if is_out_of_memory(error) or is_out_of_files(error) or _is_disk(error) or _is_name(error):
        return EXIT_DATA
    return EXIT_STOPPED if named_code_that_raised(error) else EXIT_INTERNAL


def describe(error: BaseException) -> str:
    """What to tell the user about this error: what happened, where, and what to do; then its notes."""
    return "\n".join([_what_happened(error), *getattr(error, "__notes__", ())])


def _what_happened(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return "\n".join(_titled("config error", problem) for problem in error.problems)
    if isinstance(error, StatesetError):
        title = next((title for kind, title in _TITLES.items() if isinstance(error, kind)), None)
        return _titled(title, str(error)) if title else str(error)
    if is_out_of_memory(error):
        first = (str(error).splitlines() or [""])[0]
        return (
            f"out of memory: {first or type(error).__name__}\n"
            "  use less of it: --profile conservative, a smaller training.batch_size, or agent.max_new_tokens\n"
            "  or leave the GPU: --no-gpu"
        )
    if is_out_of_files(error):
        return f"too many open files: {first_line(error)}\n  {MORE_FILES}"
    if isinstance(error, OSError) and _is_disk(error):
        return f"cannot write {error.filename or 'to the disk'}: {error.strerror}\n  choose another --output-dir"
    if isinstance(error, OSError) and _is_name(error):
        return f"{str(error.filename)[:80]}... is no name of a file: it has more characters than the file system takes"
    if place := named_code_that_raised(error):
        return (
            f"error in your own code: {type(error).__name__}: {error} ({place})\n"
            "  run again with --debug for the traceback"
        )
    return (
        f"internal error: {type(error).__name__}: {error}\n"
        "  this is a fault of the program; run again with --debug for the traceback"
    )


def _is_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _is_name(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def _titled(title: str, text: str) -> str:
    return text if text.lower().startswith(title) else f"{title}: {text}"


def _print(text: str, *, debug: bool) -> None:
    if speaks_json():
        logger.error("%s", text, exc_info=debug)
        return
    if debug:
        traceback.print_exc()
    print(text, file=sys.stderr)
