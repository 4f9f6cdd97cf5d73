"""The `GRPO_*` variables that concern training, as layers of config values.

Invariant: a variable either gives a value to one key, belongs to another room (`OTHER_ROOMS`), or is reported as
unknown. An empty variable counts as not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .fields import read_switch
from .problems import did_you_mean, problem, shown


class Override(NamedTuple):
    """One value from outside the file.

    Attributes:
        key: dotted key, such as "training.num_episodes".
        value: what it is set to.
        name: where it came from as the user knows it, such as "--num-episodes" or "GRPO_LOG_LEVEL".
    """

    key: str
    value: Any
    name: str


HERE = {
    "GRPO_DEFAULT_MODEL": "the model where neither the command line nor the config names one",
    "GRPO_DATA_DIR": "where relative data files are looked for last",
    "GRPO_LOG_LEVEL": "logging.level; wins over the config",
    "GRPO_MIXED_PRECISION": "training.mixed_precision, true or false; wins over the config",
    "GRPO_USE_GPU": "false is --no-gpu: agent.device is cpu; wins over the config",
}
"""Variables that concern training, each with its meaning."""
OTHER_ROOMS = {
    "GRPO_CACHE_DIR": "where the embedded model is unpacked; ~/.cache/grpo if it is not set",
    "GRPO_AUTH_TOKEN": "for serving; no effect on training",
    "GRPO_SERVER_HOST": "for serving; no effect on training",
    "GRPO_SERVER_PORT": "for serving; no effect on training",
}
"""Variables that are read elsewhere."""


def environment_defaults(environ: Mapping[str, str]) -> list[Override]:
    """Values that hold only where neither the command line nor the config names one."""
    model = environ.get("GRPO_DEFAULT_MODEL")
    return [Override("agent.model_name", model, "GRPO_DEFAULT_MODEL")] if model else []


def environment_overrides(environ: Mapping[str, str]) -> tuple[list[Override], list[str]]:
    """Values that win over the config, and problems with the variables that would give them."""
    found: list[Override] = []
    problems: list[str] = []
    if level := environ.get("GRPO_LOG_LEVEL"):
        found.append(Override("logging.level", level, "GRPO_LOG_LEVEL"))
    for name in ("GRPO_MIXED_PRECISION", "GRPO_USE_GPU"):
        text = environ.get(name)
        if not text:
            continue
        switch = read_switch(text)
        if switch is None:
            problems.append(problem("", f"{name} is {shown(text)}; want true or false."))
        elif name == "GRPO_MIXED_PRECISION":
            found.append(Override("training.mixed_precision", switch, name))
        elif not switch:
            found.append(Override("agent.device", "cpu", name))
    return found, problems


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """`GRPO_*` variables that nothing reads, each with the reason."""
    known = (*HERE, *OTHER_ROOMS)
    unknown = []
    for name in sorted(environ):
        if name.startswith("GRPO_") and name not in known:
            near = did_you_mean(name, known)
            unknown.append((name, "no such variable" + (f'; did you mean "{near}"?' if near else "")))
    return unknown
