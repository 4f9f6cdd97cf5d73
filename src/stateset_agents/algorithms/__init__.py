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
from .masks import entropy_threshold, high_entropy_mask, on_policy_mask
from .natural import LineSearch, conjugate_gradient, line_search, natural_step
from .policy import PolicyLoss, policy_loss, token_weights
from .preferences import PreferenceLoss, preference_loss
from .transport import Matches, matches_of

__all__ = [
    "LineSearch",
    "Matches",
    "PolicyLoss",
    "PreferenceLoss",
    "above_batch",
    "conjugate_gradient",
    "entropy_threshold",
    "generalized_advantages",
    "group_relative",
    "high_entropy_mask",
    "importance_ratio",
    "kl_divergence",
    "leave_one_out",
    "line_search",
    "matches_of",
    "natural_step",
    "normalize_then_sum",
    "on_policy_mask",
    "policy_loss",
    "preference_loss",
    "sampler_correction",
    "sequence_sums",
    "standardized",
    "token_weights",
    "turn_credit",
    "value_loss",
]
