"""Row 10: a sampler that computes something else than the learner."""

import torch

from stateset_agents.algorithms import sampler_correction
from stateset_agents.tracking.health import HealthStatus, assess

NOISE = 0.5


def noisy(kit, size: float):
    """Two groups whose recorded log-probs are the learner's but for noise of this size."""
    groups, generator = kit.two_groups(), torch.Generator().manual_seed(0)
    model = kit.tiny().model
    for group in groups:
        for trajectory in group.trajectories:
            for row in trajectory.rows:
                with torch.no_grad():
                    true = iter(kit.stock_logprobs(model, row).tolist())
                for place, trained in enumerate(row.mask):
                    if trained:
                        row.logprobs[place] = next(true) + size * float(torch.randn((), generator=generator))
    return groups


def test_the_gap_is_measured_and_raises_an_alarm(kit):
    """Noise of 0.5 has a mean size of 0.5 x sqrt(2 / pi) = 0.40 nats.

    Mutation: mismatch_size as the mean of the signed gap in training/learner.py: fails, as that is near 0.
    """
    for size, status in ((0.0, HealthStatus.HEALTHY), (NOISE, HealthStatus.CRITICAL)):
        measured = kit.learner().step(noisy(kit, size), max_tokens=20)
        assert abs(measured.mismatch_size - 0.8 * size) < 0.1
        judged = assess([{"step": 1, "mismatch_size": measured.mismatch_size, "grad_norm": 1.0}])
        assert ("Sampler and learner disagree" in " ".join(judged.issues)) is (status is HealthStatus.CRITICAL)


def test_no_token_counts_more_than_the_cap_and_the_gradient_is_another_one(kit):
    """Mutation: no clamp in algorithms/importance.py: fails with a weight of 220,682."""
    gap = 3.0 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    weights = sampler_correction(gap, torch.zeros(1000), "token_truncate", cap=2.0)
    assert weights.max() == 2.0
    kept = sampler_correction(gap, torch.zeros(1000), "token_mask", cap=2.0)
    assert set((kept[gap.exp() > 2.0]).tolist()) == {0.0}
    assert torch.equal(kept[gap.exp() <= 2.0], gap[gap.exp() <= 2.0].exp())
    masters = []
    for kind in ("none", "token_truncate"):
        learner = kit.learner(sampler_correction=kind)
        learner.step(noisy(kit, NOISE), max_tokens=20)
        masters.append(kit.masters(learner))
    assert any(not torch.equal(masters[0][name], masters[1][name]) for name in masters[0])
