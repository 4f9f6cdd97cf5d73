"""Row 28. A loss that looks fine, and weights that do not move, or that were not to move."""

import pytest
import torch

from stateset_agents.models import attach_lora, trainable_parameters


def test_every_weight_moves_by_5e_6_with_masters_and_hardly_any_without(kit):
    """AdamW's first step is the learning rate, whatever the gradient; bf16 rounds it away.

    Mutation: no optimizer.step(), or gradients for the MLPs alone, in training/learner.py; bf16 masters in
    training/precision.py: fails.
    """
    learner = kit.learner(half=True, learning_rate=5e-6)
    before = kit.masters(learner)
    assert learner.step(kit.two_groups(), max_tokens=20).updated
    moved = {name: (master - before[name]).abs() for name, master in learner.weights.state().items()}
    assert len(moved) == 20
    assert all(change.max() > 0 for change in moved.values())
    everything = torch.cat([change.flatten() for change in moved.values()])
    assert everything.max() < 5.2e-6
    assert (everything > 4.5e-6).float().mean() > 0.95
    # the same gradient on weights that are bf16 themselves
    alone = kit.tiny().model.bfloat16()
    start = {name: p.detach().clone() for name, p in alone.named_parameters()}
    for name, parameter in alone.named_parameters():
        parameter.grad = learner.gradients[0][name].bfloat16()
    torch.optim.AdamW(alone.parameters(), lr=5e-6, weight_decay=0.0).step()
    changes = torch.cat([(p != start[name]).flatten() for name, p in alone.named_parameters()])
    assert changes.float().mean() < 0.05
    assert all(torch.equal(p, start[name]) for name, p in alone.named_parameters() if "norm" in name)


@pytest.mark.parametrize("half", [False, True])
def test_adapters_move_and_their_base_does_not(kit, half):
    """The first gradient of each A is 0 because each B is.

    Mutation: requires_grad_(True) for all in models/lora.py: fails with the base among what is trained.
    """
    loaded = attach_lora(kit.tiny(), r=4)
    learner = kit.learner(loaded, half=half)
    base = {n: p.clone() for n, p in loaded.model.named_parameters() if "lora_" not in n}
    start = kit.masters(learner)
    assert start.keys() == trainable_parameters(loaded).keys()
    learner.step(kit.two_groups(), max_tokens=20)
    assert all(torch.equal(m, start[n]) == ("lora_A" in n) for n, m in learner.weights.state().items())
    learner.step(kit.two_groups(), max_tokens=20)
    assert not any(torch.equal(m, start[n]) for n, m in learner.weights.state().items())
    left = {n: p for n, p in loaded.model.named_parameters() if "lora_" not in n}
    assert base.keys() == left.keys()
    assert all(torch.equal(base[n], left[n]) and left[n].grad is None for n in base)


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["full", "lora"])
async def test_after_a_run_everything_that_is_trained_has_moved_and_the_model_says_something_else(kit, lora):
    """Through the trainer, which decides what is trained. The gradient's norm of each step is logged.

    Mutation: gradients for the MLPs alone in training/learner.py: fails with 6 weights for 20; no optimizer.step():
    fails.
    """
    agent = await kit.agent()
    trainer = await kit.trainer(agent, kit.Vowels(), steps=2, lora=lora)
    before = kit.masters(trainer.learner)
    row = kit.row((kit.ids(9, 1), False), (kit.ids(4, 2), True))
    said = kit.stock_logprobs(agent.runtime.model.model, row).detach()
    await trainer.run()
    says = kit.stock_logprobs(agent.runtime.model.model, row).detach()
    await agent.aclose()
    assert len(before) == (20 if lora is None else 28)
    assert not any(torch.equal(m, before[n]) for n, m in trainer.learner.weights.state().items())
    assert (says - said).abs().min() > 0
    assert all(step["grad_norm"] > 0 for step in trainer.rows)
