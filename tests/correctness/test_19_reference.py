"""Row 19. A reference that is the policy itself, or a base that the adapters changed: the KL stays 0 or explodes."""

import pytest
import torch

from stateset_agents.models import attach_lora, load_model, save_model_folder


def steps(learner, groups, count=2):
    for _ in range(count):
        learner.step(groups, max_tokens=20)


def test_the_reference_of_adapters_is_the_saved_base(kit):
    """At first it is the policy, exactly; after two steps it is what it was, and the policy is not.

    Mutation: no base_policy in training/policy_model.py: fails after the first step. Fresh adapters of 0.01 in
    models/lora.py: fails before it.
    """
    base = kit.learner(kit.tiny())
    learner = kit.learner(attach_lora(kit.tiny(), r=4), beta=0.04)
    batch = kit.batch(learner)
    assert torch.equal(learner.policy.logprobs(batch)[0], learner.policy.reference_logprobs(batch))
    before = learner.policy.reference_logprobs(batch)
    steps(learner, kit.two_groups())
    after = learner.policy.reference_logprobs(batch)
    assert torch.equal(before, after)
    assert torch.equal(after, base.policy.logprobs(batch)[0])
    assert (learner.policy.logprobs(batch)[0] - after).abs().max() > 0.01
    assert learner.policy.reference is None


@pytest.mark.parametrize("half", [False, True])
def test_the_reference_of_a_full_fine_tuning_is_a_frozen_copy(kit, half):
    """Mutation: the model itself as its reference in training/policy_model.py: fails after the first step."""
    learner = kit.learner(beta=0.04, half=half)
    batch = kit.batch(learner)
    before = learner.policy.reference_logprobs(batch)
    assert torch.equal(before, learner.policy.logprobs(batch)[0])
    steps(learner, kit.two_groups(), 1)
    assert torch.equal(learner.policy.reference_logprobs(batch), before)
    assert not torch.equal(learner.policy.logprobs(batch)[0], before)
    parameters = list(learner.policy.reference._causal_lm.parameters())
    assert {p.dtype for p in parameters} == {torch.bfloat16 if half else torch.float32}
    assert not any(p.requires_grad or p.grad is not None for p in parameters)


def test_taking_the_reference_leaves_the_adapters_on(kit):
    """Mutation: adapters not switched on again in models/lora.py: fails, nothing has a gradient."""
    learner = kit.learner(attach_lora(kit.tiny(), r=4), beta=0.04)
    batch = kit.batch(learner)
    steps(learner, kit.two_groups())
    before = learner.policy.logprobs(batch)[0]
    learner.policy.reference_logprobs(batch)
    assert torch.equal(learner.policy.logprobs(batch)[0], before)


def test_merged_weights_compute_what_base_and_adapters_compute(kit, tmp_path):
    """Mutation: adapters left out of models/saving.py: fails with 7.8 nats; added to the base in place: fails, the live
    model has changed.
    """
    loaded = attach_lora(kit.tiny(), r=4)
    learner = kit.learner(loaded)
    steps(learner, kit.two_groups())
    row = kit.two_groups()[0].trajectories[0].rows[0]
    with torch.no_grad():
        adapted = kit.stock_logprobs(loaded.model, row)
        save_model_folder(loaded, tmp_path)
        assert torch.equal(kit.stock_logprobs(loaded.model, row), adapted)
        merged = kit.stock_logprobs(load_model(str(tmp_path), dtype="float32", device="cpu").model, row)
        plain = kit.stock_logprobs(kit.tiny().model, row)
    assert (merged - adapted).abs().max() < 1e-4
    assert (merged - plain).abs().max() > 0.01
