"""TRL itself: the one version that is known, and its settings.

Invariant: no default of TRL decides what is learned. Its defaults move from release to release, so every one that has
an effect here is set, and another minor release than the known one is refused.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError
from .machine import Precision
from .plan import TRLPlan

if TYPE_CHECKING:
    from .config import TRLGRPOConfig

KNOWN = "1.16"
INSTALL = "pip install 'grpo-agent-framework[trl]'"


def require_trl() -> None:
    """Look whether the known TRL is installed, without importing it.

    Raises:
        ConfigError: it is absent, or another release.
    """
    try:
        found = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"training with TRL needs the package trl, which is not installed: {INSTALL}") from None
    if found != KNOWN and not found.startswith(f"{KNOWN}."):
        raise ConfigError(f"training with TRL is made for trl {KNOWN}, and {found} is installed: {INSTALL}")


def import_trl() -> Any:
    """The package, imported; takes some seconds the first time.

    Raises:
        ConfigError: it is installed, but cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import datasets  # noqa: F401 - TRL takes its prompts in no other form

            trl: Any = importlib.import_module("trl")
            _ = trl.GRPOTrainer  # TRL imports its parts when they are first asked for
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"trl is installed, but not importable ({_last_line(error)}): {INSTALL}") from error
    return trl


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def grpo_arguments(
    config: TRLGRPOConfig, plan: TRLPlan, precision: Precision, folder: Path, *, temperature: float, max_tokens: int
) -> dict[str, Any]:
    """The arguments of TRL's `GRPOConfig`.

    Args:
        config: of the run.
        plan: of the same.
        precision: what the machine gives.
        folder: where TRL may write; nothing but what it writes unasked.
        temperature: of sampling, by which TRL divides logits too.
        max_tokens: most that the agent can say in a conversation; the divisor of `dr_grpo`.
    """
    schedule = config.lr_scheduler_type
    if schedule == "constant" and config.warmup_steps:
        schedule = "constant_with_warmup"  # type: ignore[assignment]
    return {
        "output_dir": str(folder),
        # Work.
        "max_steps": plan.steps,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "steps_per_generation": plan.accumulation,
        "num_generations": config.num_generations,
        "num_iterations": config.num_iterations,
        "seed": config.seed,
        "data_seed": config.seed,
        "shuffle_dataset": False,
        # Optimizer.
        "optim": "adamw_torch",
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        # Loss.
        "loss_type": config.loss_type,
        "scale_rewards": config.scale_rewards,
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": [1.0],
        "importance_sampling_level": "token",
        "epsilon": config.epsilon,
        "epsilon_high": config.epsilon_high,
        "delta": None,
        "beta": config.beta,
        "use_bias_correction_kl": False,
        "mask_truncated_completions": False,
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "sync_ref_model": False,
        "router_aux_loss_coef": 0.0,
        "disable_dropout": False,
        "cast_lm_head_to_fp32": False,
        # Sampling is ours; TRL needs the temperature for its log-probs.
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "generation_kwargs": None,
        "max_completion_length": max_tokens,
        "use_vllm": False,
        "use_transformers_continuous_batching": False,
        # Computation.
        "bf16": precision.bf16,
        "fp16": precision.fp16,
        "use_cpu": precision.use_cpu,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "pad_to_multiple_of": None,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not precision.use_cpu,
        "remove_unused_columns": False,
        # What is written and shown is ours.
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "log_completions": False,
        "report_to": [],
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
    }
