"""Learning from pairs: a chosen and a rejected answer to the same conversation.

Invariant: the loss depends only on how much more the policy than the reference prefers the chosen one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

PreferenceKind = Literal["sigmoid", "ipo", "hinge"]


@dataclass(frozen=True)
class PreferenceLoss:
    """Of some pairs.

    Attributes:
        losses: (pairs,), with gradient.
        margins: (pairs,) beta x (implicit reward of the chosen less that of the rejected), without gradient. The policy
            agrees with a pair whose margin is above 0.
    """

    losses: Tensor
    margins: Tensor


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    kind: PreferenceKind = "sigmoid",
    beta: float = 0.1,
    lengths: tuple[Tensor, Tensor] | None = None,
) -> PreferenceLoss:
    """Direct preference optimization. With d = (chosen - reference_chosen) - (rejected - reference_rejected):

    - "sigmoid": -log sigmoid(beta d) (DPO, 2305.18290);
    - "hinge": max(0, 1 - beta d) (SLiC, 2305.10425);
    - "ipo": (d - 1 / (2 beta))^2, the log-probs averaged over their tokens (2310.12036).

    Args:
        chosen, rejected: (pairs,) log-probability of each answer, summed over its tokens, with gradient.
        reference_chosen, reference_rejected: (pairs,) the same under the reference.
        kind: which loss.
        beta: how much a difference counts; above 0.
        lengths: tokens of the chosen and of the rejected answers, (pairs,) each; needed by "ipo".

    Raises:
        ValueError: "ipo" without lengths.
    """
    gain, loss = chosen - reference_chosen, rejected - reference_rejected
    if kind == "ipo":
        if lengths is None:
            raise ValueError("ipo averages over tokens and needs the lengths of the answers")
        difference = gain / lengths[0] - loss / lengths[1]
        return PreferenceLoss((difference - 1.0 / (2.0 * beta)).square(), beta * difference.detach())
    scaled = beta * (gain - loss)
    losses = -logsigmoid(scaled) if kind == "sigmoid" else torch.relu(1.0 - scaled)
    return PreferenceLoss(losses, scaled.detach())
