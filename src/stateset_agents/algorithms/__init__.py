"""Algorithms: pure functions on tensors. They annotate data and measure; they own no loop."""

from .advantages import group_relative
from .grpo import PolicyLoss, policy_loss, token_weights
from .kl import kl_divergence

__all__ = ["PolicyLoss", "group_relative", "kl_divergence", "policy_loss", "token_weights"]
