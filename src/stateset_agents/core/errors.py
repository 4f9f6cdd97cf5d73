"""The errors that a user may meet, by what they should do about it.

Invariant: each class has one exit code, and its message names the place, the value and the fix. Code that a user
plugs in raises whatever it likes; the boundary that called it (rollout, config loader, command) classifies.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_DATA = 3
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


class CheckpointError(StatesetError, RuntimeError):
    """A checkpoint is missing, incomplete or does not verify."""

    exit_code = EXIT_DATA


class RunFolderError(StatesetError, RuntimeError):
    """The output folder cannot be used: it holds another run, is read-only, or the disk is full."""

    exit_code = EXIT_DATA


class TrainingStopped(StatesetError):
    """A run that cannot go on (no gradient, non-finite loss, nothing scored) and says why."""

    exit_code = EXIT_INTERNAL


class Interrupted(StatesetError):
    """Ctrl-C or SIGTERM. The run was saved; the message holds the command that resumes it."""

    exit_code = EXIT_INTERRUPTED
