"""The four training profiles: what each value is, and why.

Invariant: a profile names every hyperparameter, so a run that states nothing is still fully determined; and
`conservative` needs the least memory per step, because it is what a run that ran out of memory is told to use.

The learning rates are for AdamW on models of 135M to 8B parameters. The update that GRPO makes carries about one bit
of information per conversation, so rates lie a factor of 2 to 10 below supervised fine-tuning: 5e-6 hardly moves a
135M model in 60 steps, 2e-5 does, and larger models bear less. Adapters start from zero and have few parameters: their
best rate is about ten times the one of full fine-tuning over a wide range of models and ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .algorithms import OFF, recipe_of


@dataclass(frozen=True)
class Profile:
    """Values that differ between profiles, each with its reason.

    Attributes:
        name: how users choose it.
        purpose: one line for help texts.
        learning_rate: peak rate for full fine-tuning.
        lora_learning_rate: peak rate when adapters are trained, ten times the other.
        lr_schedule: "linear" ends with small steps; "constant" keeps learning and does not depend on the run's length.
        warmup_steps: the first steps find AdamW's second moments empty and would be too large.
        num_generations: a larger group estimates its baseline better (its noise falls with 1 / G) and more often
            holds both good and bad conversations, at the price of fewer scenarios per step.
        batch_size: conversations per pass; activations, the largest part of a step's memory, are proportional to it.
        gradient_accumulation_steps: with batch_size gives the conversations per step; costs time, not memory.
        gradient_checkpointing: about a third more time for a fraction of the activations.
        max_grad_norm: caps what one odd batch can do.
        clip_high: upper clip; 0.28 lets rare good tokens grow faster (DAPO, 2503.14476), 0.2 is the usual value.
        num_iterations: updates per batch; above 1 re-uses conversations, which are the expensive part on a CPU.
        scale_rewards: "std" makes groups comparable (2402.03300); "none" does not overweight groups that are nearly
            solved or nearly hopeless (Dr. GRPO, 2503.20783).
        loss_normalization: "token" weighs every token of a step alike; "constant" also forgets how many there were.
    """

    name: str
    purpose: str
    learning_rate: float
    lora_learning_rate: float
    lr_schedule: str
    warmup_steps: int
    num_generations: int
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    max_grad_norm: float
    clip_high: float
    num_iterations: int
    scale_rewards: str
    loss_normalization: str


PROFILES: MappingProxyType[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            # Small moves on many conversations (32 a step), two at a time: the most stable and the least memory.
            Profile(
                name="conservative",
                purpose="smallest moves and least memory",
                learning_rate=5e-6,
                lora_learning_rate=5e-5,
                lr_schedule="linear",
                warmup_steps=20,
                num_generations=8,
                batch_size=2,
                gradient_accumulation_steps=16,
                gradient_checkpointing=True,
                max_grad_norm=0.5,
                clip_high=0.2,
                num_iterations=1,
                scale_rewards="std",
                loss_normalization="token",
            ),
            # Two scenarios of eight conversations a step: a step of a few seconds on a laptop, a curve in minutes.
            Profile(
                name="balanced",
                purpose="a good first choice",
                learning_rate=1e-5,
                lora_learning_rate=1e-4,
                lr_schedule="constant",
                warmup_steps=5,
                num_generations=8,
                batch_size=8,
                gradient_accumulation_steps=2,
                gradient_checkpointing=False,
                max_grad_norm=1.0,
                clip_high=0.2,
                num_iterations=1,
                scale_rewards="std",
                loss_normalization="token",
            ),
            # Twice the rate, paid for with a better baseline: 32 conversations a step in groups of 16.
            Profile(
                name="aggressive",
                purpose="fastest learning, most memory",
                learning_rate=2e-5,
                lora_learning_rate=2e-4,
                lr_schedule="constant",
                warmup_steps=5,
                num_generations=16,
                batch_size=16,
                gradient_accumulation_steps=2,
                gradient_checkpointing=False,
                max_grad_norm=1.0,
                clip_high=0.28,
                num_iterations=1,
                scale_rewards="std",
                loss_normalization="token",
            ),
            # Choices with good arguments and less experience: unscaled advantages, a constant divisor, re-used batches.
            Profile(
                name="experimental",
                purpose="recent ideas with less experience behind them",
                learning_rate=1e-5,
                lora_learning_rate=1e-4,
                lr_schedule="constant",
                warmup_steps=5,
                num_generations=8,
                batch_size=8,
                gradient_accumulation_steps=4,
                gradient_checkpointing=False,
                max_grad_norm=1.0,
                clip_high=0.28,
                num_iterations=2,
                scale_rewards="none",
                loss_normalization="constant",
            ),
        )
    }
)

COMMON: MappingProxyType[str, Any] = MappingProxyType(
    {
        "num_episodes": 1000,
        # Pulling weights towards zero is no part of the task, and runs are short.
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        **OFF,
        "algorithm": "grpo",
        "clip_low": 0.2,
        # Without a KL term no reference model is held in memory, and small rates keep the policy near its start.
        "beta": 0.0,
        "kl_estimator": "k3",
        "lora": None,
        # bfloat16 halves activations; the trained weights stay float32, or a step of 5e-6 would round to nothing.
        "mixed_precision": True,
        "multi_gpu": False,
        "auto_adjust": False,
        "early_stopping": False,
        "patience": 50,
        "save_every": 100,
        "eval_every": 50,
        "keep_checkpoints": 3,
        "eval_scenarios_file": None,
        "eval_samples": 2,
        "seed": 0,
        "threads": None,
        "max_concurrent": 64,
        # Kubernetes kills after 30 s, Slurm too; who waits at a terminal has less patience.
        "grace_period": 10.0,
        # Far longer than any answer takes, so that a call that hangs ends its conversation and not the night's run.
        "environment_timeout": 600.0,
        "reward_timeout": 600.0,
    }
)


def profile_values(name: str, algorithm: object = "grpo", *, lora: bool = False) -> dict[str, Any]:
    """Every hyperparameter of a profile by name, `profile` itself left out.

    Args:
        algorithm: whose own values replace the profile's.
        name: a key of `PROFILES`; an unknown one gives the values of "balanced", so that the problems of a config
            can be listed together with the wrong name.
        lora: whether adapters are trained, which takes the other learning rate.
    """
    profile = PROFILES.get(name, PROFILES["balanced"]) if isinstance(name, str) else PROFILES["balanced"]
    values = {key: value for key, value in vars(profile).items() if key not in ("name", "purpose")}
    lora_learning_rate = values.pop("lora_learning_rate")
    if lora:
        values["learning_rate"] = lora_learning_rate
    own = {} if algorithm is None else {**recipe_of(algorithm).values, "algorithm": algorithm}
    return {**COMMON, **values, **own}
