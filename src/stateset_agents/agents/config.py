"""What an agent is told: which model, which system prompt, how to sample.

Invariant: a config that exists is valid; a field that cannot do anything is refused instead of ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from ..config.problems import did_you_mean
from ..config.schema import DEFAULT_MODEL
from ..core.errors import ConfigError


@dataclass
class AgentConfig:
    """Settings of an agent.

    Attributes:
        model_name: a Hugging Face name or folder, `tiny`, `smollm2-135m-instruct`, or `stub://...` (no model).
        system_prompt: what the agent is told before each conversation.
        temperature: of sampling; 0 is greedy.
        max_new_tokens: longest reply, in tokens.
        top_p, top_k, repetition_penalty: truncation for evaluation and serving; training samples at temperature only.
        memory_window: how many of the latest turns of the history the agent sees; None shows it all.
        context_compression: turns that are not shown any more are kept as a line each in the system prompt (the latest
            12, by their first words); and turns leave as soon as prompt and reply would not fit into the model's
            context, where a conversation is cut otherwise.
        dtype: of the weights: "auto", "float32", "bfloat16" or "float16".
        device: where the model goes; None: the GPU if there is a CUDA one, else the CPU.
        trust_remote_code: run Python code that comes with the model. No checkpoint records it.
    """

    model_name: str = DEFAULT_MODEL
    system_prompt: str | None = None
    temperature: float = 0.7
    max_new_tokens: int = 256
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    memory_window: int | None = None
    context_compression: bool = False
    dtype: str = "auto"
    device: str | None = None
    trust_remote_code: bool = False

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse unknown fields, with the known ones.

        Raises:
            ConfigError: a field does not exist.
        """
        known = list(cls.__dataclass_fields__)
        unknown = [name for name in given if name not in known]
        if unknown and cls is AgentConfig:  # a class that derives from it may have an __init__ of its own
            near = {name: did_you_mean(name, known) for name in unknown}
            hints = {name: f'; did you mean "{word}"?' if word else "." for name, word in near.items()}
            raise ConfigError(
                *(f"AgentConfig has no field {name!r}{hints[name]} Known: {', '.join(known)}" for name in unknown)
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.model_name, str) or not self.model_name.strip():
            problems.append(f"model_name is {self.model_name!r}; it must be a model's name, a folder or stub://...")
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            problems.append(f"system_prompt is {self.system_prompt!r}; it must be text")
        if not _number(self.temperature) or self.temperature < 0:
            problems.append(f"temperature is {self.temperature!r}; it must be a number >= 0 (0 is greedy)")
        if not _whole(self.max_new_tokens) or self.max_new_tokens < 1:
            problems.append(f"max_new_tokens is {self.max_new_tokens!r}; it must be a whole number >= 1")
        if not _number(self.top_p) or not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p!r}; it must be in (0, 1] (1 switches it off)")
        if not _whole(self.top_k) or self.top_k < 0:
            problems.append(f"top_k is {self.top_k!r}; it must be a whole number >= 0 (0 switches it off)")
        if not _number(self.repetition_penalty) or self.repetition_penalty <= 0:
            problems.append(f"repetition_penalty is {self.repetition_penalty!r}; it must be a number > 0 (1 is off)")
        if self.memory_window is not None and (not _whole(self.memory_window) or self.memory_window < 1):
            problems.append(f"memory_window is {self.memory_window!r}; it must be a whole number >= 1, or None")
        if not isinstance(self.trust_remote_code, bool):
            problems.append(f"trust_remote_code is {self.trust_remote_code!r}; it must be True or False")
        if not isinstance(self.context_compression, bool):
            problems.append(f"context_compression is {self.context_compression!r}; it must be True or False")
        if problems:
            raise ConfigError(*problems)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
