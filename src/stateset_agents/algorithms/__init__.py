"""Algorithms: pure functions on tensors. They annotate data and measure; they own no loop."""

from .advantages import (
    above_batch,
    group_relative,
    leave_one_out,
    normalize_then_sum,
    standardized,
    turn_credit,
)
from .gae import generalized_advantages, value_loss
from .importance import importance_ratio, sampler_correction, sequence_sums
from .kl import kl_divergence
from .natural import LineSearch, conjugate_gradient, line_search, natural_step
from .policy import PolicyLoss, policy_loss, token_weights
from .preferences import PreferenceLoss, preference_loss

__all__ = [
    "LineSearch",
    "PolicyLoss",
    "PreferenceLoss",
    "above_batch",
    "conjugate_gradient",
    "generalized_advantages",
    "group_relative",
    "importance_ratio",
    "kl_divergence",
    "leave_one_out",
    "line_search",
    "natural_step",
    "normalize_then_sum",
    "policy_loss",
    "preference_loss",
    "sampler_correction",
    "sequence_sums",
    "standardized",
    "token_weights",
    "turn_credit",
    "value_loss",
]
