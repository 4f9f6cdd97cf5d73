"""The gradient of a step: what it is made of, and what it does not depend on."""

import pytest
import torch

from stateset_agents.models import attach_lora
from stateset_agents.training.precision import MasterWeights
from stateset_agents.training.samples import samples_of


def gradient(kit, groups=None, **settings) -> dict[str, torch.Tensor]:
    learner = kit.learner(**settings)
    kit.step(learner, groups)
    return learner.gradients[0]


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
def test_it_is_the_sum_of_weight_times_advantage_times_the_slope_of_the_log_prob(kit, normalization):
    """On the first pass the ratio is 1. By autograd through the model's own forward pass, row by row.

    Mutation: weights by row instead of by conversation (the last conversation has two rows).
    """
    ours = gradient(kit, loss_normalization=normalization, temperature=0.7)
    loaded = kit.tiny()
    lengths = [[4, 9, 6, 12], [8, 5, 11, 12]]
    advantages = [
        # mean 0.4375; squares 0.31640625, 0.19140625, 0.00390625, 0.03515625: 0.546875 / 3
        [d / ((0.546875 / 3) ** 0.5 + 1e-4) for d in (0.5625, -0.4375, 0.0625, -0.1875)],
        [-0.25 / 0.5001, -0.25 / 0.5001, 0.75 / 0.5001, -0.25 / 0.5001],
    ]
    loss = torch.zeros(())
    for group, sizes, slopes in zip(kit.two_groups(), lengths, advantages, strict=True):
        for trajectory, size, advantage in zip(group.trajectories, sizes, slopes, strict=True):
            assert trajectory.trained_tokens == size
            weight = {"token": 1 / 67, "sequence": 1 / (8 * size), "constant": 1 / (8 * 20)}[normalization]
            for row in trajectory.rows:
                loss = loss - weight * advantage * kit.stock_logprobs(loaded, row, 0.7).sum()
    loss.backward()
    theirs = {name: parameter.grad for name, parameter in loaded.model.named_parameters()}
    assert kit.relative_gap(ours, theirs) < 1e-5


def test_the_prompt_of_a_group_goes_through_the_model_once(kit):
    """Prompt 12, then 3 sampled, 4 read and 1, 6, 3, 9 sampled, of which the last is not read."""
    learner = kit.learner()
    seen = []
    embedding = learner._loaded.model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    metrics = kit.step(learner, kit.two_groups()[:1])
    expected = 12 + (3 + 4 + 0) + (3 + 4 + 5) + (3 + 4 + 2) + (3 + 4 + 8)
    assert metrics.forwarded_tokens == metrics.unique_tokens == expected == sum(seen)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_recomputed_activations_give_the_same_gradient_and_are_recomputed(kit, compute, lora):
    """Each layer's MLP runs a second time. Mutation: transformers' own switch does nothing outside train mode."""

    def measured(**settings):
        loaded = attach_lora(kit.tiny(), r=4) if lora else kit.tiny()
        learner = kit.learner(loaded, compute=compute, batch_size=4, **settings)
        calls, kept = [], []
        loaded.model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(loaded.model.training))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            kit.step(learner)
        return learner, calls, sum(kept)

    plain, calls, kept = measured()
    recomputing, more_calls, less_kept = measured(gradient_checkpointing=True)
    assert kit.relative_gap(recomputing.gradients[0], plain.gradients[0]) == 0.0
    assert calls == [False] * 2
    assert more_calls == [False] * 4
    assert less_kept < kept
    layer = recomputing._loaded.model.model.layers[1]
    assert "forward" not in vars(layer)
    assert not layer.training


def test_recomputation_leaves_forward_passes_without_gradient_alone(kit):
    """The reference of a LoRA run is the same model. 2 micro-batches: reference, policy and policy again."""
    loaded = attach_lora(kit.tiny(), r=4)
    learner = kit.learner(loaded, batch_size=4, beta=0.04, gradient_checkpointing=True)
    calls = []
    loaded.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    kit.step(learner)
    assert calls.count(False) == 2
    assert calls.count(True) == 4


def test_gradients_of_the_computing_copy_are_freed(kit):
    """Mutation: a second gradient for each weight, in half precision, until the next step."""
    for compute in (torch.float32, torch.bfloat16):
        learner = kit.learner(compute=compute)
        kit.step(learner)
        assert all(parameter.grad is None for parameter in learner._loaded.model.parameters())
        assert all(master.grad is None for master in learner.weights.masters)


def test_samples_are_annotated_by_conversation(kit):
    """Lengths 4, 9, 6, 12 and 8, 5, 11, 12; the last conversation has two rows, and a group of one is left out."""
    config = kit.learner(scale_rewards="none", loss_normalization="sequence").config
    single = kit.group(kit.ids(5, 9), [1.0], [3], 9)
    first, second = kit.two_groups()
    samples = samples_of([first, single, kit.flat_group(), second], config, 20)
    assert [sample.group for sample in samples] == [0] * 4 + [2] * 5
    assert [sample.conversation for sample in samples] == [0, 1, 2, 3, 8, 9, 10, 11, 11]
    assert [sample.advantage for sample in samples] == [
        0.5625, -0.4375, 0.0625, -0.1875, -0.25, -0.25, 0.75, -0.25, -0.25
    ]  # fmt: skip
    expected = [1 / (12 * length) for length in (4, 9, 6, 12, 8, 5, 11, 12, 12)]
    assert [sample.weight for sample in samples] == pytest.approx(expected, rel=1e-15)


def test_with_a_divergence_conversations_without_an_advantage_are_computed_too(kit):
    config = kit.learner(beta=0.1).config
    groups = [*kit.two_groups(), kit.flat_group()]
    assert len(samples_of(groups, config, 20)) == 9 + 4
    assert samples_of([kit.flat_group()], config, 20) == []


def test_mixed_precision_gradients_point_where_float32_ones_do(kit):
    full, half = gradient(kit), gradient(kit, compute=torch.bfloat16)
    for name, slope in half.items():
        assert slope.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(slope.flatten(), full[name].flatten(), dim=0) > 0.95, name


def test_masters_are_made_for_the_model_that_is_given(kit):
    learner = kit.learner(compute=torch.bfloat16)
    assert isinstance(learner.weights, MasterWeights)
    assert learner._loaded.dtype == torch.bfloat16
    learner.close()
    assert learner._loaded.dtype == torch.float32
