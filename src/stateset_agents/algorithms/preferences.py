"""Learning from pairs: a chosen and a rejected answer to the same conversation.

Invariant: the loss depends only on how the policy's log-probabilities of the two differ from the reference's. It is a
sum over pairs, also where a loss compares a pair with others: what it is compared with is settled for the whole step
(`transport`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..config.algorithm_settings import PreferenceLossName as PreferenceKind
from ..config.algorithms import DIVERGENT
from .transport import Matches, matches_of, transported

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

PER_TOKEN = frozenset({"ipo", "sigmoid_norm"})
"""Kinds that average over the tokens of an answer."""
TRANSPORTED = frozenset({"aot", "aot_unpaired"})
"""Kinds that compare all pairs of a step with each other."""
DISCOPOP_TEMPERATURE = 0.05
"""Of DiscoPOP (2406.08414)."""
LARGEST_EXPONENT = 80.0
"""Exponents are cut there: float32 ends at 88."""


@dataclass(frozen=True)
class PreferenceLoss:
    """Of some pairs.

    Attributes:
        losses: (pairs,), with gradient.
        margins: (pairs,) beta x (score of the chosen less that of the rejected), without gradient. The policy agrees
            with a pair whose margin is above 0.
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
    label_smoothing: float = 0.0,
    divergence: Divergence = "reverse_kl",
    alpha: float = 0.5,
    matches: Matches | None = None,
) -> PreferenceLoss:
    """Direct preference optimization and its kin.

    With c = chosen - reference_chosen, r = rejected - reference_rejected, d = score(c) - score(r) (`scores`),
    s = sigmoid and e = label_smoothing:

    - "sigmoid": -log s(beta d) (DPO, 2305.18290); "sigmoid_norm": the same with each score averaged over the tokens of
      its answer (the length-normalized DPO of Tulu 3, 2411.15124);
    - "hinge": max(0, 1 - beta d) (SLiC, 2305.10425);
    - "ipo": (d - 1 / (2 beta))^2, averaged likewise (2310.12036);
    - "exo_pair": KL of (s(beta d), s(-beta d)) from (1 - e, e) (EXO, 2402.00856); e above 0;
    - "nca_pair": -log s(beta c) - log s(-beta c) / 2 - log s(-beta r) / 2 (2402.05369);
    - "robust": (-(1 - e) log s(beta d) + e log s(-beta d)) / (1 - 2 e) (2403.00409);
    - "bco_pair": -log s(beta c) - log s(-beta r) (BCO, 2404.04656; without its running mean of rewards);
    - "sppo_hard": (c - 1 / (2 beta))^2 + (r + 1 / (2 beta))^2 (2405.00675);
    - "aot", "aot_unpaired": -(1 - e) log s(beta t) - e log s(-beta t) with t between values of the same rank in the
      step: chosen - rejected of the policy against that of the reference, or c against r (2406.05882);
    - "apo_zero": 1 - s(beta c) + s(beta r); "apo_down": s(beta c) + 1 - s(beta (c - r)) (2408.06266);
    - "discopop": (1 - m) (-log s(beta d)) + m exp(-beta d) with m = s(beta d / 0.05) (2406.08414).

    Args:
        chosen, rejected: (pairs,) log-probability of each answer, summed over its tokens, with gradient.
        reference_chosen, reference_rejected: (pairs,) the same under the reference.
        kind: which loss.
        beta: how much a difference counts; above 0.
        lengths: tokens of the chosen and of the rejected answers, (pairs,) each; needed by the kinds in `PER_TOKEN`.
        label_smoothing: share of pairs that are the wrong way round, e above.
        divergence: from the reference, for the kinds in `DIVERGENT`; see `scores`.
        alpha: of the divergence "alpha".
        matches: for the kinds in `TRANSPORTED`, what each pair is compared with; None where these are all pairs of
            the step.

    Raises:
        ValueError: a kind of `PER_TOKEN` without lengths.
    """
    gain, loss = chosen - reference_chosen, rejected - reference_rejected
    if kind in DIVERGENT:
        above, below = scores(gain, divergence, alpha), scores(loss, divergence, alpha)
        if kind in PER_TOKEN:
            if lengths is None:
                raise ValueError(f"{kind} averages over tokens and needs the lengths of the answers")
            above, below = above / lengths[0], below / lengths[1]
        losses = _of_difference(above - below, kind, beta, label_smoothing)
        return PreferenceLoss(losses, beta * (above - below).detach())
    if kind in TRANSPORTED:
        matches = matches or matches_of(chosen, rejected, reference_chosen, reference_rejected, paired=kind == "aot")
        upper, lower = (chosen - rejected, reference_chosen - reference_rejected) if kind == "aot" else (gain, loss)
        losses = transported(upper, lower, matches, lambda t: _smoothed(beta * t, label_smoothing))
    else:
        losses = _of_each(gain, loss, kind, beta)
    return PreferenceLoss(losses, beta * (gain - loss).detach())


def scores(log_ratios: Tensor, divergence: Divergence, alpha: float = 0.5) -> Tensor:
    """What an answer is worth to a policy that is held to the reference by an f-divergence: f'(t), t = exp(log_ratios).

    "reverse_kl" log t; "forward_kl" 1 - 1 / t; "js" log(2 t / (1 + t)); "alpha" (t^(alpha - 1) - 1) / (alpha - 1), and
    log t at alpha 1 (f-DPO, 2309.16240).

    Args:
        log_ratios: any shape.
        divergence: which.
        alpha: of "alpha".
    """
    if divergence == "forward_kl":
        return -torch.expm1((-log_ratios).clamp(max=LARGEST_EXPONENT))
    if divergence == "js":
        return math.log(2.0) + logsigmoid(log_ratios)
    if divergence == "alpha" and abs(alpha - 1.0) >= 1e-6:
        return torch.expm1(((alpha - 1.0) * log_ratios).clamp(max=LARGEST_EXPONENT)) / (alpha - 1.0)
    return log_ratios


def _of_difference(difference: Tensor, kind: PreferenceKind, beta: float, smoothing: float) -> Tensor:
    scaled = beta * difference
    if kind == "hinge":
        return torch.relu(1.0 - scaled)
    if kind == "ipo":
        return (difference - 1.0 / (2.0 * beta)).square()
    if kind == "exo_pair":
        right = torch.sigmoid(scaled) * (logsigmoid(scaled) - math.log1p(-smoothing))
        return right + torch.sigmoid(-scaled) * (logsigmoid(-scaled) - math.log(smoothing))
    if kind == "robust":
        return (smoothing * logsigmoid(-scaled) - (1.0 - smoothing) * logsigmoid(scaled)) / (1.0 - 2.0 * smoothing)
    if kind == "discopop":
        share = torch.sigmoid(scaled / DISCOPOP_TEMPERATURE)
        return torch.exp((-scaled).clamp(max=LARGEST_EXPONENT)) * share - logsigmoid(scaled) * (1.0 - share)
    return -logsigmoid(scaled)


def _of_each(gain: Tensor, loss: Tensor, kind: PreferenceKind, beta: float) -> Tensor:
    """Losses that look at each answer by itself."""
    if kind == "sppo_hard":
        return (gain - 0.5 / beta).square() + (loss + 0.5 / beta).square()
    up, down = beta * gain, beta * loss
    if kind == "nca_pair":
        return -logsigmoid(up) - 0.5 * logsigmoid(-up) - 0.5 * logsigmoid(-down)
    if kind == "bco_pair":
        return -logsigmoid(up) - logsigmoid(-down)
    if kind == "apo_zero":
        return 1.0 - torch.sigmoid(up) + torch.sigmoid(down)
    return torch.sigmoid(up) + 1.0 - torch.sigmoid(up - down)


def _smoothed(scaled: Tensor, smoothing: float) -> Tensor:
    return -(1.0 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)
