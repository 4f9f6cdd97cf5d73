"""Row 13. A metric that writes to its tensors in place: the logged number is wrong, or the loss is another one."""

import dataclasses

import torch

from stateset_agents.algorithms import policy_loss
from stateset_agents.training import learner as learner_module
from stateset_agents.training.packing import PackedBatch


def test_measuring_changes_no_gradient(kit, monkeypatch):
    """Two passes, so that what the first one measured is still needed in the second.

    Mutation: the gap computed by logprobs.neg_() in Pass.add of training/measures.py: fails with 24 % in the second
    pass.
    """
    measured, plain = (kit.learner(beta=0.04, num_iterations=2) for _ in range(2))
    measured.step(kit.two_groups(), max_tokens=20)
    monkeypatch.setattr(learner_module.Pass, "add", lambda *_: None)
    plain.step(kit.two_groups(), max_tokens=20)
    assert len(measured.gradients) == 2
    for one, other in zip(measured.gradients, plain.gradients, strict=True):
        assert kit.gap(one, other) == 0.0


def test_a_step_leaves_its_batch_as_it_was(kit, monkeypatch):
    """What was sampled, advantages and weights are read by both passes and by whoever logs them afterwards.

    Mutation: sampled_logprobs.sub_() in Pass.add of training/measures.py: fails.
    """
    made = []
    pack = PackedBatch.of

    def remembering(*arguments):
        batch = pack(*arguments)
        values = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
        made.append([(value, value.clone()) for value in values if isinstance(value, torch.Tensor)])
        return batch

    monkeypatch.setattr(PackedBatch, "of", remembering)
    kit.learner(beta=0.04, num_iterations=2, batch_size=4).step(kit.two_groups(), max_tokens=20)
    assert [len(tensors) for tensors in made] == [12, 12]
    assert all(torch.equal(tensor, before) for tensors in made for tensor, before in tensors)


def test_a_divergence_that_is_only_measured_has_no_gradient():
    """Mutation: max(beta, 1e-3) in algorithms/policy.py: fails."""
    old = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    slopes = []
    for reference in (None, old - 0.3):
        leaf = (old + 0.1).requires_grad_()
        result = policy_loss(leaf, old, torch.ones(2), torch.ones(2), beta=0.0, reference=reference)
        result.loss.backward()
        slopes.append(leaf.grad)
    assert torch.equal(*slopes)
    assert result.kl is not None
    assert not result.kl.requires_grad
    assert not result.ratio.requires_grad
