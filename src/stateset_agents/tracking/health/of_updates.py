"""Signs in the updates: gradients, entropy, distance from the reference, clipping, sampler against learner.

Invariant: a step whose groups taught nothing has no gradient and is left out; a gradient norm of null is one that was
not finite.
"""

from __future__ import annotations

import math
import statistics

from .evidence import FEWEST_STEPS, NEAR_MAXIMUM, Evidence
from .signal import HealthStatus, Look, Signal

NORM_FACTOR = 3.0
"""A gradient norm further than this factor from the run's median is an outlier."""
STABLE_SHARE = 0.75
"""Share of steps that may not be outliers."""
ENTROPY_LEFT = 0.2
"""Share of its own start below which the entropy has collapsed: a run that learns loses some of it, and one that has
lost four fifths samples nearly the same reply again and again."""
KL_FAR = 1.0
"""Mean KL to the reference of a token: from there on (a token is, on average, e times likelier than before) a KL term
holds nothing any more."""
CLIPPED_SHARE = 0.3
"""Share of tokens that may be clipped: their gradient is 0, so more means updates that are larger than the clip
allows. Usual are 0.05 to 0.2."""
MISMATCH = 0.1
"""Mean size of the difference of sampled and learned log-probs that rounding can explain, bfloat16 included."""
COLD = 0.1
"""Temperature below which rounding explains more. What rounding does to a logit is divided by the temperature; down to
the size of that (0.05 in bfloat16) fewer and fewer tokens are near enough to another one to be touched by it, which
makes up for it (measured: 0.046 at 1, 0.040 at 0.1 with SmolLM2), and further down nothing does."""


def norms(evidence: Evidence) -> tuple[list[float], int] | None:
    """The norms of steps that had a gradient, and how many were not finite; None if none was measured."""
    measured = [row["grad_norm"] for row in evidence.rows if "grad_norm" in row]
    if not measured:
        return None
    finite = [float(norm) for norm in measured if norm is not None and math.isfinite(norm)]
    return [norm for norm in finite if norm > 0], len(measured) - len(finite)


def gradient(evidence: Evidence) -> Look | None:
    """Whether there is one, and a finite one."""
    found = norms(evidence)
    if found is None:
        return None
    moved, broken = found
    if broken:
        wrong = f"{broken} of {len(evidence.rows)} steps had a gradient that is not finite"
        return Look(None, f"not finite in {broken}", wrong)
    if not moved:
        wrong = "No step had a gradient, so nothing was learned; the rewards inside each group were equal"
        return Look(0.0, "0", wrong, action="raise the temperature, or take a reward that tells replies apart")
    median = statistics.median(moved)
    return Look(median, f"{median:.3g}")


def stability(evidence: Evidence) -> Look | None:
    """Share of steps whose norm is near the run's median."""
    found = norms(evidence)
    # Where answers are read and not sampled, the gradient falls with the loss: that is no instability.
    if found is None or not found[0] or evidence.read:
        return None
    moved, broken = found
    median = statistics.median(moved)
    close = sum(median / NORM_FACTOR <= norm <= median * NORM_FACTOR for norm in moved)
    share = close / (len(moved) + broken)
    restless = share < STABLE_SHARE and evidence.enough and not broken
    return Look(share, f"{share:.3f}", "Unstable gradients" if restless else None)


def entropy(evidence: Evidence) -> Look | None:
    """At the end, as a share of the start."""
    start, end = evidence.start("entropy"), evidence.end("entropy")
    if evidence.read or start is None or end is None or start <= 0:
        return None
    fell = end < ENTROPY_LEFT * start and evidence.enough and not evidence.solved
    wrong = f"The entropy collapsed from {start:.3f} to {end:.3f}, so that the replies of a group are nearly alike"
    return Look(end / start, f"{end:.3f} ({end / start:.0%} of its start)", wrong if fell else None)


def kl(evidence: Evidence) -> Look | None:
    """At the end."""
    value = evidence.end("kl")
    if value is None:
        return None
    wrong = f"The policy went far from its reference (KL {value:.2f} a token)"
    return Look(value, f"{value:.3f}", wrong if value > KL_FAR else None)


def clipped(evidence: Evidence) -> Look | None:
    """Over the run."""
    value = evidence.mean("clip_fraction")
    if value is None:
        return None
    wrong = f"{value:.0%} of the tokens were clipped, as the updates of a step go further than the clip allows"
    return Look(value, f"{value:.1%}", wrong if value > CLIPPED_SHARE else None)


def mismatch(evidence: Evidence) -> Look | None:
    """Over the run, as a share of what rounding can explain."""
    value = evidence.mean("mismatch_size")
    if value is None:
        return None
    share = statistics.fmean(
        size / (MISMATCH * (COLD / temperature if 0 < temperature < COLD else 1.0))
        for size, temperature in evidence.pairs("mismatch_size", "temperature", without=1.0)
    )
    wrong = (
        f"Sampler and learner disagree: a token's log-prob differs by {value:.2f} on average, so what is trained is "
        "not what was sampled"
    )
    return Look(value, f"{value:.2g}", wrong if share > 1.0 else None)


SIGNALS = (
    Signal(
        "Gradient",
        ("grad_norm",),
        "any that is not finite, or none at all",
        "The size of what a step learns; without one nothing is learned.",
        "lower the learning rate",
        HealthStatus.CRITICAL,
        gradient,
    ),
    Signal(
        "Gradient stability",
        ("grad_norm",),
        f"below {STABLE_SHARE:.0%}, from {FEWEST_STEPS} steps on",
        f"Share of steps whose gradient norm is within a factor of {NORM_FACTOR:.0f} of the run's median.",
        "lower the learning rate or take the conservative profile",
        HealthStatus.WARNING,
        stability,
    ),
    Signal(
        "Entropy",
        ("entropy",),
        f"below {ENTROPY_LEFT:.0%} of its own start, from {FEWEST_STEPS} steps on, while the reward is below "
        f"{NEAR_MAXIMUM:.0%} of the attainable one",
        "How undecided the policy is; where it collapses, the replies of a group become alike and teach nothing.",
        "lower the learning rate, raise clip_high or the temperature, or set entropy_coef",
        HealthStatus.WARNING,
        entropy,
    ),
    Signal(
        "KL to the reference",
        ("kl",),
        f"above {KL_FAR:g} a token at the end",
        "How far the policy is from where it began; measured where there is a KL term.",
        "raise beta or lower the learning rate",
        HealthStatus.WARNING,
        kl,
    ),
    Signal(
        "Clipped tokens",
        ("clip_fraction",),
        f"more than {CLIPPED_SHARE:.0%}",
        "Tokens whose ratio left the clip, so that they taught nothing more.",
        "lower the learning rate or num_iterations",
        HealthStatus.WARNING,
        clipped,
    ),
    Signal(
        "Sampler against learner",
        ("mismatch_size", "temperature"),
        f"above {MISMATCH:g}; at a temperature below {COLD:g} that is multiplied by {COLD:g} / temperature",
        "How far the log-probs that were sampled with are from those that are trained.",
        "look at the engine: old weights, another precision, another temperature or chat template",
        HealthStatus.CRITICAL,
        mismatch,
    ),
)
