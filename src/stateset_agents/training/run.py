"""What a run is: everything that it needs, and how it ended.

Invariant: a `Run` says all of it. `execution.execute` asks neither a config file nor the command line for more, but for
the places that messages name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..agents.multi_turn import MultiTurnAgent
from ..agents.tool_agent import ToolAgent
from ..config import RunConfig
from ..config.alerts import AlertSettings
from ..config.training import TrainingConfig
from ..core.environment import Environment
from ..core.reward import RewardFunction
from .callbacks import Callback
from .trainer import Trainer

Say = Callable[[str], None]
"""Tells the user something."""


@dataclass(frozen=True)
class Run:
    """Everything that a run needs.

    Attributes:
        agent, environment, reward: what is trained, in what, for what.
        config: every hyperparameter.
        evaluation: environment whose scenarios are evaluated; None evaluates on the training scenarios.
        callbacks: watchers.
        folder: the run folder's path; None keeps everything in memory.
        save_path: one more place for the trained agent, shown in the report as it is given.
        source: the config file that all of this comes from, if it does: it names sinks and log file, and places in
            messages.
        alerts: what to be told of while the run goes on, where no config file says it.
        quiet: nothing on the terminal.
        resume: continue the run in `folder` from its last checkpoint.
        resume_from: start from this checkpoint.
        again: how to continue the run, as the user would type it.
        catch_signals: Ctrl-C and SIGTERM stop the run, saved. A library call leaves them to its caller: a cancelled
            task saves as well.
        before: called with the loaded, still untrained agent.
        after: called with the trained agent; what it returns is added to the report.
    """

    agent: MultiTurnAgent
    environment: Environment
    reward: RewardFunction
    config: TrainingConfig
    evaluation: Environment | None = None
    callbacks: Sequence[Callback] = ()
    folder: Path | None = None
    save_path: str | Path | None = None
    source: RunConfig | None = None
    alerts: AlertSettings | None = None
    quiet: bool = False
    resume: bool = False
    resume_from: Path | None = None
    again: str = ""
    catch_signals: bool = False
    before: Callable[[Trainer, Say], Awaitable[None]] | None = None
    after: Callable[[Trainer, Say], Awaitable[str]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was told, as JSON."""
        if self.source is not None:
            return self.source.to_dict()
        environment = {
            "max_turns": self.environment.max_turns,
            "persona": getattr(self.environment, "persona", None),
        }
        user = self.environment.describe_user()
        if user is not None and user != {"type": "scripted"}:
            environment["user"] = user
        agent = asdict(self.agent.config)
        if isinstance(self.agent, ToolAgent):
            agent["tools"] = [tool.definition()["function"] for tool in self.agent.tools]
        settings = {
            "agent": agent,
            "environment": environment,
            "rewards": self.reward.to_config(),
            "training": self.config.model_dump(mode="json"),
        }
        if self.alerts is not None:
            asked = self.alerts.model_dump(mode="json", exclude_none=True)
            settings |= {"alerts": asked.pop("rules"), "logging": {"alerts": asked}}
        return settings

    @property
    def log_file(self) -> str | None:
        """Where the run's journal goes, relative to the folder."""
        return None if self.source is None else self.source.logging.log_file

    def located(self, key: str, message: str) -> str:
        """A problem with a setting, with the place where it was written if that is known."""
        return message if self.source is None else self.source.located(key, message)


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    Attributes:
        text: the documented report.
        folder: the run folder; None if there is none.
        rows: the metrics.
    """

    text: str
    folder: Path | None
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        return self.text
