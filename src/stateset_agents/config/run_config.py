"""One run, fully decided: what `load_config` returns and the trainer takes.

Invariant: every value is present and valid, files are absolute paths that exist, and `origins` tells where each value
came from. `to_yaml` writes a config that `load_config` reads back to the same run, with secrets left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..core.secrets import is_secret
from ..core.yaml_strict import Path as KeyPath
from ..core.yaml_strict import StrictDumper
from .alerts import AlertRule
from .problems import problem
from .reward_spec import RewardSpec
from .schema import AgentSection, CombinationMethod, EnvironmentSection, LoggingSection
from .training import TrainingConfig
from .variables import apply_environment_variables

_FROM = "# Every value of a run that was started from "
_LEFT_OUT = "# Left out because they are secret: environment_variables "
_STATUS = "status.json"
"""What is beside a `config.yaml` in a run's folder."""


@dataclass(frozen=True)
class RunConfig:
    """A resolved config.

    Attributes:
        agent: kind, model and sampling of the agent.
        environment: kind, scenarios and length of the conversations.
        rewards: reward functions with their weights; empty where the default reward is to be used.
        combination_method: how their scores become one.
        training: every hyperparameter; `training.plan` has them in steps.
        logging: level, files and services.
        environment_variables: what `apply_environment_variables` sets.
        output_dir: the run folder.
        config_file: the file that was read, absolute.
        origins: dotted key to where its value came from: "customer_service.yaml:14", "--num-episodes",
            "GRPO_LOG_LEVEL", "profile balanced" or "default".
        notes: sentences about what was read with tolerance, rounded or shortened.
        unused: (key, reason) of keys that have no effect in this run.
        references: path of each value made from a secret variable to its text with the reference in it.
        alerts: what to be told of while the run goes on.
    """

    agent: AgentSection
    environment: EnvironmentSection
    rewards: tuple[RewardSpec, ...]
    combination_method: CombinationMethod
    training: TrainingConfig
    logging: LoggingSection
    environment_variables: Mapping[str, str]
    output_dir: Path
    config_file: Path
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unused: tuple[tuple[str, str], ...] = ()
    references: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)
    alerts: tuple[AlertRule, ...] = ()

    @property
    def base_dir(self) -> Path:
        """Where modules of the user's own are looked for: the config's folder.

        For the `config.yaml` in a run's folder, that of the file which the run was started from, if it is still there.
        """
        return self._first_file.parent

    @property
    def _first_file(self) -> Path:
        """The file that somebody wrote, even where a run's `config.yaml` was read."""
        first = started_from(self.config_file) if (self.config_file.parent / _STATUS).is_file() else None
        return self.config_file if first is None else first

    def place(self, key: str) -> str:
        """Where the value of a key was written, for messages: "run.yaml, line 14", "--seed", or the file's name.

        Args:
            key: dotted; where it has no origin of its own, the nearest key that contains it counts.
        """
        origin = self.origin(key)
        file, _, line = origin.rpartition(":")
        if line.isdecimal():
            return f"{file}, line {line}"
        return self.config_file.name if origin == "default" else origin

    def origin(self, key: str) -> str:
        """Where the value of a key came from: "run.yaml:14", "--seed", "profile balanced" or "default"."""
        while key:
            if key in self.origins:
                return self.origins[key]
            cut = max(key.rfind("."), key.rfind("["))
            key = key[: max(cut, 0)]
        return "default"

    def located(self, key: str, message: str, hint: str | None = None) -> str:
        """A problem with the value of `key`, in the form that commands print."""
        return problem(self.place(key), message, hint)

    def apply_environment_variables(self) -> list[str]:
        """Set the config's environment variables, leaving alone what the shell has set.

        Returns:
            Names that were left alone although their value differs.
        """
        return apply_environment_variables(self.environment_variables)

    def to_dict(self) -> dict[str, Any]:
        """The config as a file would hold it, secrets replaced by the variables they came from or left out."""
        data: dict[str, Any] = {
            "agent": _dump(self.agent),
            "environment": _dump(self.environment),
            "rewards": [_dump(reward) for reward in self.rewards],
            "combination_method": self.combination_method,
            "training": self.training.model_dump(mode="json"),
            "logging": _dump(self.logging),
            "environment_variables": dict(self.environment_variables),
        }
        if self.alerts:
            data["alerts"] = [_dump(rule) for rule in self.alerts]
        if not self.rewards:
            del data["rewards"], data["combination_method"]
        data = _escape(data, (), self.references)
        variables = data["environment_variables"]
        for name in [n for n in variables if is_secret(n) and ("environment_variables", n) not in self.references]:
            del variables[name]
        return data

    def to_yaml(self) -> str:
        """The resolved config as YAML text, which `load_config` reads back."""
        header = f"{_FROM}{json.dumps(str(self._first_file), ensure_ascii=False)}\n"
        hidden = sorted(
            name
            for name in self.environment_variables
            if is_secret(name) and ("environment_variables", name) not in self.references
        )
        if hidden:
            header += f"{_LEFT_OUT}{', '.join(hidden)}\n"
        body = yaml.dump(self.to_dict(), Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)
        return header + body


def started_from(written: Path) -> Path | None:
    """The config file from which a run was started, by the file that `to_yaml` made; None where it is not there now."""
    try:
        with written.open(encoding="utf-8") as file:
            line = file.readline()
        named = json.loads(line.removeprefix(_FROM)) if line.startswith(_FROM) else None
        return Path(named) if isinstance(named, str) and Path(named).is_file() else None
    except (OSError, ValueError):
        return None


def left_out(written: Path) -> list[str]:
    """Names of the secret variables that the file which `to_yaml` made does not have."""
    lines = written.read_text(encoding="utf-8").splitlines()[:2]
    return [name for line in lines if line.startswith(_LEFT_OUT) for name in line.removeprefix(_LEFT_OUT).split(", ")]


def _dump(section: AgentSection | EnvironmentSection | LoggingSection | RewardSpec | AlertRule) -> dict[str, Any]:
    return section.model_dump(mode="json", by_alias=True, exclude_none=True)


def _escape(value: Any, path: KeyPath, references: Mapping[KeyPath, str]) -> Any:
    """Text with `${` written as `$${`, and secrets as the reference that they came from."""
    if isinstance(value, dict):
        return {key: _escape(item, (*path, key), references) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item, (*path, i), references) for i, item in enumerate(value)]
    if isinstance(value, str):
        return references.get(path, value.replace("${", "$${"))
    return value
