"""`TRLGRPOConfig`: how a run under TRL's GRPO trainer trains.

Invariant: a config that exists is possible on some machine; what this machine lacks is told by `validate` and refused
or switched off, and said, when training begins. A field that is left out has its documented default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, model_validator

from ...config.fields import NotNegative, Positive, Real, Section, Whole
from ...config.problems import NamedPlaces, explain_all
from ...config.schema import DEFAULT_MODEL
from ...core.errors import ConfigError
from .advice import advice
from .variables import read_variables

BATCH_SIZE_NAMES = ("per_device_train_batch_size", "batch_size")


def _name(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("want a name that is not empty")
    return value


Name = Annotated[str, BeforeValidator(_name)]
Seconds = Annotated[Real, Field(gt=0)]


class TRLGRPOConfig(Section):
    """Settings of `train_with_trl_grpo`. Every field may be left out.

    An episode is one conversation. A step trains `per_device_train_batch_size * gradient_accumulation_steps` of them,
    rounded up to whole groups of `num_generations`.

    Raises:
        ConfigError: a field is unknown (with the nearest known one) or has a value that is not allowed.
    """

    model_name: Name = Field(default=DEFAULT_MODEL, description="model to train; must be the agent's where both say")
    output_dir: Name = Field(default="./outputs", description="run folder; the trained model is its final_model")
    num_episodes: Annotated[Positive, Field(le=10**12)] = Field(default=1000, description="conversations to train on")
    per_device_train_batch_size: Positive = Field(
        default=1,
        validation_alias=AliasChoices(*BATCH_SIZE_NAMES),
        description="conversations per forward and backward pass; batch_size is another name of it",
    )
    gradient_accumulation_steps: Positive = Field(default=16, description="passes added up before the weights move")
    learning_rate: Annotated[Real, Field(gt=0, le=1)] = Field(default=5e-6, description="peak learning rate of AdamW")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="learning rate after the warm-up"
    )
    warmup_steps: NotNegative = Field(default=0, description="steps over which the learning rate rises from 0")
    weight_decay: Annotated[Real, Field(ge=0, le=1)] = Field(default=0.0, description="weight decay of AdamW")
    max_grad_norm: Annotated[Real, Field(gt=0)] = Field(default=1.0, description="gradients are scaled down to it")
    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1)] = Field(default=42, description="seed of every random choice")

    beta: Annotated[Real, Field(ge=0, le=10)] = Field(default=0.0, description="weight of the KL; 0 loads no reference")
    num_generations: Annotated[Whole, Field(ge=2)] = Field(default=4, description="conversations of one scenario")
    num_iterations: Positive = Field(default=1, description="updates made with each batch of conversations")
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = Field(
        default="dapo", description="what the loss is averaged over, as TRL calls it"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="over what advantages are divided by the deviation of the rewards"
    )
    epsilon: Annotated[Real, Field(gt=0, lt=1)] = Field(default=0.2, description="the ratio is clipped below 1 - this")
    epsilon_high: Annotated[Real, Field(gt=0, le=10)] = Field(default=0.2, description="and above 1 + this")

    use_lora: bool = Field(default=True, description="train adapters instead of all weights")
    lora_r: Positive = Field(default=16, description="rank of the adapters")
    lora_alpha: Positive = Field(default=32, description="the adapters' output is multiplied by lora_alpha / lora_r")
    lora_dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of adapter inputs dropped while learning; conversations are held without"
    )

    gradient_checkpointing: bool = Field(default=True, description="recompute activations: slower, smaller")
    bf16: bool = Field(default=True, description="learn under bfloat16 autocast, on a GPU that has it")
    fp16: bool = Field(default=False, description="learn under float16 autocast, on a GPU")
    use_8bit: bool = Field(default=False, description="adapters on weights rounded to 8 bits; needs bitsandbytes")
    use_4bit: bool = Field(default=False, description="adapters on weights rounded to 4 bits; needs bitsandbytes")
    device_map: Name | None = Field(default=None, description="auto, cpu or cuda: where the whole model goes")
    offload_folder: Name | None = Field(default=None, description="has no effect: offloaded weights are not trained")

    temperature: Annotated[Real, Field(gt=0, le=10)] | None = Field(
        default=None, description="of sampling in training, and of the trained agent; null: the agent's own"
    )
    top_p: Annotated[Real, Field(gt=0, le=1)] | None = Field(
        default=None, description="of the trained agent's replies; training samples untruncated; null: the agent's own"
    )
    max_prompt_length: Positive | None = Field(
        default=None,
        description="tokens that a conversation may begin with; null: what the model's context holds. With it, a whole "
        "conversation has at most max_prompt_length + max_completion_length tokens",
    )
    max_completion_length: Positive | None = Field(
        default=None, description="tokens of one reply at most; null: the agent's max_new_tokens"
    )

    save_steps: NotNegative = Field(default=100, description="steps between checkpoints; 0: only at the end")
    environment_timeout: Seconds | None = Field(default=None, description="seconds for one answer of the environment")
    reward_timeout: Seconds | None = Field(default=None, description="seconds for scoring one conversation")
    wandb_project: Name | None = Field(default=None, description="W&B project; null: the variable WANDB_PROJECT")
    wandb_entity: Name | None = Field(default=None, description="W&B entity; null: the variable WANDB_ENTITY")
    wandb_samples: NotNegative = Field(default=4, description="conversations of each step that W&B gets; 0: none")

    def __init__(self, **values: Any) -> None:
        self._begin(values, {})

    def _begin(self, values: Mapping[str, Any], names: Mapping[str, str]) -> None:
        """Check the values; `names` is what to call some of them in messages."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            places = NamedPlaces({(field,): name for field, name in names.items()})
            raise ConfigError(*explain_all(error, type(self), dict(values), places)) from None

    @model_validator(mode="before")
    @classmethod
    def _one_of_two(cls, values: Any) -> Any:
        """bf16 is the default, so fp16 alone takes its place; the batch size has one value under two names."""
        if not isinstance(values, dict):
            return values
        if all(name in values for name in BATCH_SIZE_NAMES):
            raise ValueError("batch_size is another name of per_device_train_batch_size: give one of them")
        return values if "bf16" in values or values.get("fp16") is not True else {**values, "bf16": False}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 are both true: choose one of them")
        if self.use_8bit and self.use_4bit:
            raise ValueError("use_8bit and use_4bit are both true: choose one of them")
        if self.quantized and not self.use_lora:
            raise ValueError(
                f"{self.quantized} needs use_lora: rounded weights cannot be trained, adapters on them can"
            )
        return self

    @property
    def quantized(self) -> str | None:
        """Which of `use_8bit` and `use_4bit` is set."""
        return "use_8bit" if self.use_8bit else "use_4bit" if self.use_4bit else None

    @property
    def bits(self) -> Literal[4, 8] | None:
        """In how many bits weights are kept under adapters; None: they are not rounded."""
        return 8 if self.use_8bit else 4 if self.use_4bit else None

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields of `AgentConfig` that this config names."""
        named = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_completion_length,
        }
        return {field: value for field, value in named.items() if value is not None}

    @property
    def batch_size(self) -> int:
        """`per_device_train_batch_size`."""
        return self.per_device_train_batch_size

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **values: Any) -> TRLGRPOConfig:
        """A config from the variables of the training scripts; see `variables`.

        Args:
            environ: environment variables; those of the process by default.
            **values: fields that no variable is set for.

        Raises:
            ConfigError: a value is not allowed; the message names the variable.
        """
        found = read_variables(os.environ if environ is None else environ)
        config = cls.__new__(cls)
        config._begin({**found.defaults, **values, **found.values}, found.names)  # noqa: SLF001 - its own
        return config

    def validate(self) -> list[str]:  # type: ignore[override]
        """What a reader of this config should think about before training; empty if there is nothing.

        Values outside the recommended ranges, settings that have no effect, and what this machine lacks.
        """
        return advice(self)
