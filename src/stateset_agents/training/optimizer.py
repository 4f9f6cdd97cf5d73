"""The optimizer of a learner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .value_head import ValueHead

if TYPE_CHECKING:
    from ..config.training import TrainingConfig


def make_optimizer(
    masters: Sequence[Tensor], value_head: ValueHead | None, config: TrainingConfig
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: norms and biases are not pulled to zero.

    Each group has its share of the learning rate under "rate".

    Args:
        masters: the trained weights.
        value_head: has a rate of its own, and no decay.
        config: the hyperparameters.
    """
    matrices = [master for master in masters if master.dim() >= 2]
    others = [master for master in masters if master.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": config.weight_decay, "rate": 1.0}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0, "rate": 1.0})
    if value_head is not None:
        rate = config.value_learning_rate / config.learning_rate
        groups.append({"params": list(value_head.parameters()), "weight_decay": 0.0, "rate": rate})
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )
