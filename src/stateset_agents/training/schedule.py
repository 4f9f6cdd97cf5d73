"""The learning rate of a step, a function of its number."""

from __future__ import annotations

import math

from ..config.training import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up, then the configured schedule down to 0."""
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    left = (total_steps - step) / max(1, total_steps - warmup_steps)
    left = min(1.0, max(0.0, left))
    if config.lr_schedule == "cosine":
        return config.learning_rate * 0.5 * (1.0 - math.cos(math.pi * left))
    return config.learning_rate * left
