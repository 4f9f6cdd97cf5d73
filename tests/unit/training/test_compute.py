"""How long it is measured which precision is faster."""

from itertools import accumulate, cycle

import pytest
import torch

from stateset_agents.training import compute

HALF, FULL = torch.bfloat16, torch.float32


@pytest.mark.parametrize(("half", "products", "found"), [(45, 8, FULL), (3, 80, FULL), (1.2, 80, HALF), (0.1, 8, HALF)])
def test_a_clear_difference_is_measured_a_few_times_only(monkeypatch, half, products, found):
    """Of each two products the first takes `half` seconds, the other 1. Mutation: always as many products."""
    looks = [0]
    times = accumulate(cycle([0.0, half, 0.0, 1.0]))

    def clock():
        looks[0] += 1
        return next(times)

    monkeypatch.setattr(compute.time, "perf_counter", clock)
    dtype, told = compute.compute_dtype(True, torch.device("cpu"))
    assert dtype is found
    assert looks[0] == 2 * products
    assert (told is None) == (found is HALF)
