"""The errors that a user may meet, by what they should do about it.

Invariant: each class has one exit code, and its message names the place, the value and the fix. Code that a user
plugs in raises whatever it likes; the boundary that called it (rollout, config loader, command) classifies.
"""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_STOPPED = 4
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 75


class StatesetError(Exception):
    """Base of the errors whose text is meant for the user. `exit_code` is what a command returns."""

    exit_code = EXIT_INTERNAL


class ConfigError(StatesetError, ValueError):
    """A config file, flag or argument is wrong. Carries every problem found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DataError(StatesetError, ValueError):
    """A scenario, task or ground-truth file is missing or malformed."""

    exit_code = EXIT_DATA


class ModelError(StatesetError, RuntimeError):
    """A model cannot be found, does not fit, or cannot do what is asked of it."""

    exit_code = EXIT_DATA


class ContextFull(ModelError):
    """The messages leave no room for a single token of a reply. It ends a conversation, never a run."""

    def __init__(self, prompt_tokens: int, max_context: int) -> None:
        self.prompt_tokens, self.max_context = prompt_tokens, max_context
        super().__init__(
            f"the messages have {prompt_tokens} tokens, but the model's context is {max_context}; shorten them or set "
            "memory_window"
        )


class CheckpointError(StatesetError, RuntimeError):
    """A checkpoint is missing, incomplete or does not verify."""

    exit_code = EXIT_DATA


class RunFolderError(StatesetError, RuntimeError):
    """The output folder cannot be used: it holds another run, is read-only, or the disk is full."""

    exit_code = EXIT_DATA


class TrainingStopped(StatesetError):
    """A run that cannot go on (no gradient, non-finite loss, a reward that fails) and says why."""

    exit_code = EXIT_STOPPED


class Interrupted(StatesetError):
    """Ctrl-C or SIGTERM. The run was saved; the message holds the command that resumes it."""

    exit_code = EXIT_INTERRUPTED


class ServiceDown(StatesetError):
    """A service that rewards or users need was down for longer than a run may wait. What was done is saved."""

    exit_code = EXIT_INTERRUPTED


class EnvironmentFailed(Exception):
    """A tool or another part of the agent's world is broken. The episode ends as `Outcome.ENVIRONMENT`.

    Raise it from a tool whose failure is not the agent's: a database that does not answer, not an order that does not
    exist. Whatever else a tool raises is told to the model.
    """


_PACKAGE = Path(__file__).parents[1]


def raised_at(error: BaseException) -> str | None:
    """File and line in the code that somebody plugged in; None if it was not that code which raised.

    Where that code called an installed package that raised, it is the call that is named.
    """
    return place_in(traceback.extract_tb(error.__traceback__))


def place_in(frames: Iterable[traceback.FrameSummary]) -> str | None:
    """The same for frames, outermost first."""
    files = [frame for frame in frames if not frame.filename.startswith("<")]  # <string> is generated code
    foreign = [frame for frame in files if not Path(frame.filename).is_relative_to(_PACKAGE)]
    last = ([frame for frame in foreign if not is_installed(frame.filename)] or foreign)[-1:]
    return f"{Path(last[0].filename).name}, line {last[0].lineno}" if last else None


def is_installed(file: str) -> bool:
    """Whether a file is Python's own or an installed package's."""
    installed = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(Path(file).is_relative_to(place) for place in installed)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or off it; torch is not imported to find out."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(one in text for one in said)


FEWER_CHECKPOINTS = "keep fewer checkpoints (training.keep_checkpoints, or a larger save_steps under TRL)"
"""What to do, beside freeing space, when checkpoints fill a disk."""

MORE_FILES = (
    "allow at least twice what `ulimit -n` shows in this shell (where it shows 1024: ulimit -n 2048), and see that no "
    "tool or reward of yours leaves files open"
)
"""What to do when a process has as many files open as it may."""


# What opens, what maps or shares, what saves, and what shares by name. "... in system" is ENFILE, and no limit of this
# process; and anybody may quote the bare words of another machine.
_TORCH_OUT_OF_FILES = re.compile(
    rf"because of errno {errno.EMFILE} on | mode: Too many open files \({errno.EMFILE}\)"
    r"|with strerror: Too many open files$|\AToo many open files$",
    re.MULTILINE,
)


def is_out_of_files(error: BaseException) -> bool:
    """Whether the process has as many files open as it may; torch says so in words of its own."""
    said = type(error) is RuntimeError and _TORCH_OUT_OF_FILES.search(str(error)) is not None
    return said or (isinstance(error, OSError) and error.errno == errno.EMFILE)


def first_line(error: BaseException) -> str:
    """What an error says, without its details; its kind if it says nothing."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
