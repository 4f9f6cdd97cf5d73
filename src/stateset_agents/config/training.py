"""How a run trains: every hyperparameter with a value, and what the numbers amount to.

Invariant: a `TrainingConfig` is complete and consistent. Whoever holds one never asks where a value came from nor
whether it is set. Users count in episodes (one episode is one conversation); `plan` turns that into optimizer steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ..core.errors import ConfigError
from .algorithm_settings import AlgorithmSettings
from .algorithms import Recipe, conflicts, recipe_of
from .fields import NotNegative, Positive, ProfileName, Real, Section, Whole
from .problems import Conflicts, NamedPlaces, explain_all
from .profiles import profile_values

MIN_PATIENCE_EVALUATIONS = 3
MAX_WARMUP_SHARE = 0.1

Seconds = Annotated[Real, Field(gt=0)]


class LoraSettings(Section):
    """Low-rank adapters instead of full fine-tuning."""

    r: Positive = Field(default=16, description="rank of the adapters")
    alpha: Positive = Field(default=32, description="scale: the update is multiplied by alpha / r")
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of adapter inputs dropped; 0 keeps sampler and learner on the same policy"
    )
    target_modules: list[str] | None = Field(
        default=None, min_length=1, description="names of the layers to adapt; null: every linear layer but the head"
    )


def _lora_switch(value: Any) -> Any:
    if value is True:
        return {}
    return None if value is False else value


class TrainingConfig(AlgorithmSettings):
    """Every hyperparameter of a run. Make one with `from_profile`.

    Counts of conversations are called episodes. One optimizer step trains `batch_size * gradient_accumulation_steps`
    episodes, rounded up to whole groups of `num_generations`. With `data_file` an episode is one record.
    """

    profile: ProfileName = Field(description="set of values that everything else starts from")
    num_episodes: Annotated[Positive, Field(le=10**12)] = Field(
        description="conversations to train on; with data_file records, over and over"
    )
    num_generations: Annotated[Whole, Field(ge=2)] = Field(
        description="G: conversations held for one scenario and compared with each other"
    )
    batch_size: Positive = Field(description="conversations per forward and backward pass; sets the memory of a step")
    gradient_accumulation_steps: Positive = Field(description="passes added up before the weights move")
    learning_rate: Annotated[Real, Field(gt=0, le=1)] = Field(description="peak learning rate of AdamW")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(description="learning rate after the warm-up")
    warmup_steps: NotNegative = Field(description="steps over which the learning rate rises from 0")
    weight_decay: Annotated[Real, Field(ge=0, le=1)] = Field(description="decoupled weight decay of AdamW")
    max_grad_norm: Annotated[Real, Field(gt=0)] = Field(description="gradients are scaled down to this norm")
    adam_beta1: Annotated[Real, Field(ge=0, lt=1)] = Field(description="decay of the gradient's running mean")
    adam_beta2: Annotated[Real, Field(ge=0, lt=1)] = Field(description="decay of the squared gradient's running mean")
    adam_epsilon: Annotated[Real, Field(gt=0, le=1e-2)] = Field(description="added to AdamW's denominator")
    lora: Annotated[LoraSettings | None, BeforeValidator(_lora_switch)] = Field(
        description="true or {r, alpha, dropout, target_modules}; null trains all weights"
    )
    mixed_precision: bool = Field(description="compute in bfloat16; trained weights stay float32")
    gradient_checkpointing: bool = Field(description="recompute activations instead of storing them: slower, smaller")
    multi_gpu: bool = Field(description="train on several GPUs")
    auto_adjust: bool = Field(description="move settings when training turns unhealthy, and say why")
    early_stopping: bool = Field(description="stop when evaluations no longer improve")
    patience: Positive = Field(description="episodes without improvement before stopping; at least 3 evaluations")
    save_every: NotNegative = Field(description="episodes between checkpoints; 0: only at the end")
    eval_every: NotNegative = Field(description="episodes between evaluations; 0: none")
    keep_checkpoints: Positive = Field(description="checkpoints kept; older ones are removed")
    eval_scenarios_file: str | None = Field(description="scenarios that evaluations use and training never sees")
    eval_samples: Positive = Field(description="conversations per scenario in an evaluation")
    data_file: Annotated[str, Field(min_length=1)] | None = Field(
        description="JSONL file of recorded conversations (sft) or pairs (dpo) to learn from, instead of playing any"
    )
    seed: Annotated[Whole, Field(ge=0, le=2**63 - 1)] = Field(description="seed of every random choice")
    threads: Annotated[Positive, Field(le=1024)] | None = Field(
        description="CPU threads of torch; null: as many as torch takes"
    )
    max_concurrent: Positive = Field(description="conversations in flight at once")
    grace_period: Annotated[Real, Field(ge=0)] | None = Field(
        description="seconds after Ctrl-C or SIGTERM by which a run is to be saved: an update that could not be made "
        "and saved by then is given up, and made again by --resume; null: it is finished, however long it takes"
    )
    environment_timeout: Seconds | None = Field(description="seconds for one answer of the environment; null: no limit")
    reward_timeout: Seconds | None = Field(
        description="seconds for one call of the reward; null: no limit. One that blocks is told of, and ends the run "
        "after three times that"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.early_stopping and self.eval_every == 0:
            raise Conflicts(
                [
                    "early_stopping is true, and it watches evaluations, but eval_every is 0, so there are none: set "
                    "eval_every to a number of episodes (such as 50), or early_stopping to false"
                ]
            )
        lora = self.lora is not None
        problems = conflicts(self.algorithm, vars(self), profile_values(self.profile, self.algorithm, lora=lora))
        if problems:
            raise Conflicts(problems)
        return self

    @property
    def recipe(self) -> Recipe:
        """What the algorithm is made of."""
        return recipe_of(self.algorithm)

    @property
    def group_size(self) -> int:
        """Episodes that are compared with each other; a record of `data_file` is one by itself."""
        return self.num_generations if self.data_file is None else 1

    @classmethod
    def from_profile(cls, profile: str = "balanced", **overrides: Any) -> TrainingConfig:
        """The profile's values with some of them replaced.

        Args:
            profile: conservative, balanced, aggressive or experimental.
            **overrides: hyperparameters by name; text such as "5e-6" is read as a number.

        Raises:
            ConfigError: an unknown profile or name (with the nearest known one), or values that are not allowed.
        """
        places = NamedPlaces()
        try:
            lora = overrides.get("lora") not in (None, False)
            values = profile_values(profile, overrides.get("algorithm"), lora=lora)
            return cls.model_validate({**values, **overrides, "profile": profile})
        except ValidationError as error:
            raise ConfigError(*explain_all(error, cls, overrides | {"profile": profile}, places)) from None

    @cached_property
    def plan(self) -> Plan:
        """What these numbers amount to in groups, steps and evaluations."""
        return make_plan(self)

    def fingerprint_fields(self) -> dict[str, Any]:
        """The values that decide what is learned, as JSON: a resumed run compares them with the saved ones.

        The profile is left out because its values are in; so is what only concerns disk space, time limits and speed.
        """
        skipped = {"profile", "save_every", "keep_checkpoints", "threads", "max_concurrent"}
        skipped |= {"environment_timeout", "reward_timeout", "grace_period"}
        skipped |= {"data_file", "eval_scenarios_file"}  # compared by what they hold, not by how they are named
        values = self.model_dump(mode="json", exclude=skipped)
        return values | {"conversations_per_step": self.plan.conversations_per_step}


@dataclass(frozen=True)
class Plan:
    """A `TrainingConfig` in the units of the training loop.

    Attributes:
        groups_per_step: scenarios per optimizer step; with `data_file` records.
        conversations_per_step: episodes per optimizer step, `groups_per_step` times those of a group.
        micro_batches_per_step: forward and backward passes per update.
        total_steps: steps of the run; the last one is as large as the others.
        total_episodes: conversations held by then, at least `num_episodes`.
        warmup_steps: steps over which the learning rate rises, at most a tenth of the run.
        save_every_steps: steps between checkpoints; 0: only at the end.
        eval_every_steps: steps between evaluations; 0: none.
        patience_evaluations: evaluations without improvement before early stopping.
        notes: sentences that say what was rounded or shortened.
    """

    groups_per_step: int
    conversations_per_step: int
    micro_batches_per_step: int
    total_steps: int
    total_episodes: int
    warmup_steps: int
    save_every_steps: int
    eval_every_steps: int
    patience_evaluations: int
    notes: tuple[str, ...]


def make_plan(config: TrainingConfig) -> Plan:
    """Round the episodes of `config` up to whole groups and steps, and say so."""
    notes: list[str] = []
    asked = config.batch_size * config.gradient_accumulation_steps
    groups = math.ceil(asked / config.group_size)
    per_step = groups * config.group_size
    if per_step != asked:
        notes.append(
            f"A step trains {per_step} conversations: batch_size x gradient_accumulation_steps = {asked}, "
            f"rounded up to whole groups of {config.group_size}."
        )
    steps = math.ceil(config.num_episodes / per_step)
    if steps * per_step != config.num_episodes:
        what = "episodes will be held" if config.data_file is None else "records will be read"
        notes.append(
            f"{steps * per_step} {what}: num_episodes = {config.num_episodes}, "
            f"rounded up to {count(steps, 'whole step')} of {per_step}."
        )
    warmup = min(config.warmup_steps, int(steps * MAX_WARMUP_SHARE))
    if warmup < config.warmup_steps:
        notes.append(
            f"The warm-up takes {count(warmup, 'step')} instead of {config.warmup_steps}: "
            f"at most a tenth of the run's {count(steps, 'step')}."
        )
    save_steps = math.ceil(config.save_every / per_step)
    eval_steps = math.ceil(config.eval_every / per_step)
    evaluations = MIN_PATIENCE_EVALUATIONS
    if eval_steps:
        evaluations = max(evaluations, math.ceil(config.patience / (eval_steps * per_step)))
        covered = evaluations * eval_steps * per_step
        if config.early_stopping and covered != config.patience:
            notes.append(
                f"Early stopping waits {evaluations} evaluations ({covered} episodes) without improvement: "
                f"patience = {config.patience} episodes, rounded up to whole evaluations and never fewer than "
                f"{MIN_PATIENCE_EVALUATIONS}."
            )
    if config.num_iterations > 1:
        notes.append(f"Each step's conversations are used for {config.num_iterations} updates (num_iterations).")
    at_once = config.batch_size
    if config.data_file is not None and config.recipe.kind == "preference":
        at_once = max(1, config.batch_size // 2)  # a pair is two conversations, and they stay together
    return Plan(
        groups_per_step=groups,
        conversations_per_step=per_step,
        micro_batches_per_step=math.ceil(per_step / at_once),
        total_steps=steps,
        total_episodes=steps * per_step,
        warmup_steps=warmup,
        save_every_steps=save_steps,
        eval_every_steps=eval_steps,
        patience_evaluations=evaluations,
        notes=tuple(notes),
    )


def count(number: int, noun: str) -> str:
    """A number of things: "1 step", "2 steps"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
