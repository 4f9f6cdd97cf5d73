"""The environment variables of the training scripts.

Invariant: a variable that is set gives a value to one field, and a value that is not allowed is reported under the
variable's name. An empty variable counts as not set. `QUICK_MODE` only changes defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config.fields import read_switch
from ...config.problems import problem, shown
from ...core.errors import ConfigError
from ...models.names import TINY

VARIABLES = {
    "MODEL_NAME": "model_name",
    "OUTPUT_DIR": "output_dir",
    "NUM_EPISODES": "num_episodes",
    "BATCH_SIZE": "per_device_train_batch_size",
    "GRADIENT_ACCUMULATION_STEPS": "gradient_accumulation_steps",
    "LEARNING_RATE": "learning_rate",
    "USE_LORA": "use_lora",
    "LORA_R": "lora_r",
    "LORA_ALPHA": "lora_alpha",
    "BETA": "beta",
    "NUM_GENERATIONS": "num_generations",
    "GRADIENT_CHECKPOINTING": "gradient_checkpointing",
    "USE_BF16": "bf16",
    "WANDB_PROJECT": "wandb_project",
    "WANDB_ENTITY": "wandb_entity",
}
"""`QUICK_MODE` is read beside these; `WANDB_API_KEY` is read by wandb itself."""

SWITCHES = ("USE_LORA", "GRADIENT_CHECKPOINTING", "USE_BF16")

QUICK = {
    "model_name": TINY,
    "num_episodes": 32,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": False,
    "max_completion_length": 16,
    "learning_rate": 1e-3,
    "temperature": 1.0,
}
"""Defaults under `QUICK_MODE`: a random model that needs no download, and seconds of a CPU."""


@dataclass(frozen=True)
class Variables:
    """What the variables say.

    Attributes:
        values: by field, for the variables that are set.
        names: the variable of each of these fields.
        defaults: by field, for what neither a variable nor the caller says.
    """

    values: dict[str, Any]
    names: dict[str, str]
    defaults: dict[str, Any]


def read_variables(environ: Mapping[str, str]) -> Variables:
    """Read `VARIABLES` and `QUICK_MODE`.

    Raises:
        ConfigError: a switch is neither true nor false; numbers are checked by the config.
    """
    problems: list[str] = []
    quick = _switch("QUICK_MODE", environ.get("QUICK_MODE", ""), problems)
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for variable, field in VARIABLES.items():
        text = environ.get(variable, "").strip()
        if text:
            values[field] = _switch(variable, text, problems) if variable in SWITCHES else text
            names[field] = variable
    if problems:
        raise ConfigError(*problems)
    return Variables(values, names, dict(QUICK) if quick else {})


def _switch(variable: str, text: str, problems: list[str]) -> bool | None:
    if not text.strip():
        return None
    switch = read_switch(text)
    if switch is None:
        problems.append(problem("", f"{variable} is {shown(text)}; want true or false."))
    return switch
