"""What a step does to the weights: all that should move moves, nothing else does, and a bad update is not made."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from stateset_agents.core.errors import ConfigError, ModelError, TrainingStopped
from stateset_agents.core.trajectory import TrajectoryGroup
from stateset_agents.models import attach_lora, save_model_folder
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.recompute import recomputed_layers
from stateset_agents.training.samples import samples_of
from stateset_agents.training.saving import model_weights

CPU = torch.device("cpu")


def unchanged(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batch_of(kit, learner) -> PackedBatch:
    """Everything that `two_groups` trains, in one batch."""
    return PackedBatch.of(samples_of(kit.two_groups(), learner.config, 20), CPU)


def test_without_a_divergence_there_is_no_reference(kit):
    learner = kit.learner(beta=0.0)
    assert learner.policy.reference is None
    assert learner.policy.reference_logprobs(batch_of(kit, learner)) is None
    assert kit.step(learner).kl is None


def test_a_second_pass_compares_with_the_log_probs_before_the_first_update(kit, record_losses):
    """Two micro-batches, two passes. Mutation: old log-probs from the pass itself keep the ratio at 1."""
    learner = kit.learner(batch_size=4, num_iterations=2)
    metrics = kit.step(learner)
    first, second = record_losses[:2], record_losses[2:]
    assert len(second) == 2
    for (before, old, result), (after, same_old, later) in zip(first, second, strict=True):
        assert torch.equal(old, before)
        assert torch.equal(same_old, before)
        assert torch.equal(result.ratio, torch.ones_like(old))
        assert (later.ratio - (after - before).exp()).abs().max() < 1e-6
        assert (later.ratio - 1).abs().max() > 0.01
    assert int(next(iter(learner.optimizer.state.values()))["step"]) == 2
    assert len(learner.gradients) == 2
    # the metrics are those of the second pass, over its 67 tokens
    ratios = torch.cat([result.ratio for _, _, result in second])
    clipped = torch.cat([result.clipped for _, _, result in second])
    assert len(ratios) == metrics.trained_tokens == 67
    assert metrics.ratio_mean == pytest.approx(ratios.mean().item(), rel=1e-6)
    assert 0 < metrics.clip_fraction < 1
    assert metrics.clip_fraction == pytest.approx(clipped.float().mean().item(), rel=1e-6)
    outside = ((ratios > 1.2) | (ratios < 0.8)).float().mean().item()
    assert metrics.clip_fraction <= outside


@pytest.mark.parametrize("groups", [[], [TrajectoryGroup("s")]])
def test_a_step_without_scored_conversations_is_counted_and_changes_nothing(kit, groups):
    learner = kit.learner()
    assert not kit.step(learner, groups).updated
    assert learner.steps == 1


def test_a_loss_that_is_not_finite_stops_before_anything_changes(kit):
    """The second micro-batch is the broken one. Mutation: the gradient of the first one stays for the next step."""
    learner = kit.learner(batch_size=4)
    groups = kit.two_groups()
    before = kit.masters(learner)
    for trajectory in groups[1].trajectories:
        trajectory.reward *= 1e300  # finite as a reward, infinite as a float32 advantage
    learner.config = learner.config.model_copy(update={"scale_rewards": "none"})
    with pytest.raises(TrainingStopped, match="the loss is not finite, so the update was not made"):
        kit.step(learner, groups)
    assert unchanged(kit.masters(learner), before)
    assert not learner.optimizer.state
    assert all(master.grad is None for master in learner.weights.masters)
    assert learner.steps == 0


def test_a_gradient_that_is_not_finite_stops_and_the_next_step_is_as_if_it_had_not_been(kit):
    """Mutation: clipping to an infinite norm turns the gradient into NaN or 0 and goes on."""
    learner, other = kit.learner(), kit.learner()
    before = kit.masters(learner)
    broken = learner._loaded.model.model.layers[0].mlp.down_proj.weight.register_hook(lambda g: g * math.inf)
    with pytest.raises(TrainingStopped, match="the gradient is not finite"):
        kit.step(learner)
    assert unchanged(kit.masters(learner), before)
    broken.remove()
    assert kit.step(learner) == kit.step(other)
    assert unchanged(kit.masters(learner), kit.masters(other))


@pytest.mark.parametrize(("lora", "compute"), [(False, torch.float32), (False, torch.bfloat16), (True, torch.bfloat16)])
def test_a_learner_that_is_loaded_goes_on_to_the_bit(kit, tmp_path, lora, compute):
    """Through a real file. Mutation: slots under the wrong parameter, or a step count that begins again."""

    def fresh():
        settings = {"compute": compute, "lr_schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.1}
        return kit.learner(attach_lora(kit.tiny(), r=4) if lora else kit.tiny(), **settings)

    first = fresh()
    for _ in range(3):
        kit.step(first)
    weights, slots, counters = first.state()
    save_file(weights, tmp_path / "weights.safetensors")
    save_file(slots, tmp_path / "slots.safetensors")
    precision = str(compute).removeprefix("torch.")
    assert counters == {"steps": 3, "compute": precision, "micro_batch": {"size": 8, "asked": 8}}
    assert len(slots) == 3 * len(weights)

    second = fresh()
    second.load(load_file(tmp_path / "weights.safetensors"), load_file(tmp_path / "slots.safetensors"), counters)
    for _ in range(2):
        assert kit.step(first) == kit.step(second)
    assert unchanged(kit.masters(first), kit.masters(second))


def test_a_state_of_another_model_is_an_error(kit):
    learner = kit.learner()
    with pytest.raises(KeyError):
        learner.load({}, {}, {"steps": 1})
    with pytest.raises(KeyError, match="other"):
        learner.load(kit.masters(learner), {"other|step": torch.tensor(1.0)}, {"steps": 1})


def test_all_weights_are_written_in_float32_and_a_tied_one_under_all_its_names(kit, tmp_path):
    """Mutation: names from the model's own state give the head of `tiny` in bf16 beside an embedding in float32."""
    learner = kit.learner(compute=torch.bfloat16)
    kit.step(learner)
    full = learner.full_weights()
    assert {tensor.dtype for tensor in full.values()} == {torch.float32}
    assert full["lm_head.weight"].data_ptr() == full["model.embed_tokens.weight"].data_ptr()
    save_model_folder(learner._loaded, tmp_path / "model", state_dict=full)
    assert unchanged(model_weights(tmp_path / "model"), kit.masters(learner))


def test_a_closed_learner_leaves_a_float32_model_behind(kit):
    learner = kit.learner(compute=torch.bfloat16)
    kit.step(learner)
    masters = kit.masters(learner)
    learner.close()
    assert unchanged({n: p.detach() for n, p in learner._loaded.model.named_parameters()}, masters)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466, 0.0]),  # (1 - cos(pi x left)) / 2
    ],
)
def test_the_learning_rate_rises_in_two_steps_and_follows_its_schedule_to_step_six(kit, schedule, shares):
    """Mutation: a warm-up that begins at 0 wastes a step, one that ends late is never at the peak."""
    learner = kit.learner(lr_schedule=schedule, warmup_steps=2, total_steps=6)
    assert [learner.learning_rate(step) / 1e-2 for step in range(7)] == pytest.approx(shares, abs=1e-7)
    assert learner.learning_rate(100) == pytest.approx(shares[-1] * 1e-2)


def test_the_step_s_learning_rate_is_the_one_that_is_used(kit):
    """AdamW's first step is as long as the rate. Mutation: the peak rate from the first step on."""
    learner = kit.learner(warmup_steps=4)
    before = kit.masters(learner)
    assert kit.step(learner).learning_rate == 2.5e-3
    moved = max((m - before[n]).abs().max().item() for n, m in learner.weights.state().items())
    assert moved == pytest.approx(2.5e-3, rel=1e-3)
    assert kit.step(learner).learning_rate == 5e-3


def test_gradients_are_scaled_down_to_their_largest_norm(kit):
    """SGD-like: with Adam's memory switched off the moments hold the gradient that was applied."""
    learner = kit.learner(max_grad_norm=0.01, adam_beta1=0.0)
    metrics = kit.step(learner)
    applied = torch.cat([slots["exp_avg"].flatten() for slots in learner.optimizer.state.values()])
    original = torch.cat([slope.flatten() for slope in learner.gradients[0].values()])
    assert metrics.grad_norm == pytest.approx(original.norm().item(), rel=1e-5)
    assert metrics.grad_norm > 0.01
    assert applied.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_pulls_matrices_and_leaves_norms(kit):
    learner = kit.learner(weight_decay=0.1)
    groups = {group["weight_decay"]: group["params"] for group in learner.optimizer.param_groups}
    assert {p.dim() for p in groups[0.1]} == {2}
    assert {p.dim() for p in groups[0.0]} == {1}
    assert len(groups[0.1]) + len(groups[0.0]) == 20
    assert len(kit.learner(attach_lora(kit.tiny(), r=4), weight_decay=0.1).optimizer.param_groups) == 1


def test_entropy_divergence_and_mismatch_by_the_model_s_own_forward_pass(kit):
    """Second step, so that the policy has left its reference. Mutation: means over conversations."""
    learner = kit.learner(beta=0.1, temperature=0.7, learning_rate=2e-3)
    kit.step(learner)
    policy, reference = kit.tiny(), kit.tiny()
    policy.model.load_state_dict(learner.full_weights())
    rows = [row for group in kit.two_groups() for t in group.trajectories for row in t.rows]
    with torch.no_grad():
        now = torch.cat([kit.stock_logprobs(policy, row, 0.7) for row in rows])
        then = torch.cat([kit.stock_logprobs(reference, row, 0.7) for row in rows])
        entropies = []
        for row in rows:
            logprobs = (policy.model(torch.tensor([row.ids])).logits[0, :-1] / 0.7).log_softmax(-1)
            entropies.append(-(logprobs.exp() * logprobs).sum(-1)[torch.tensor(row.mask[1:]).bool()])
    metrics = kit.step(learner)
    assert metrics.trained_tokens == len(now) == 67
    assert metrics.kl == pytest.approx(((then - now).exp() - 1 - (then - now)).mean().item(), rel=1e-3)
    assert metrics.kl > 1e-3
    assert metrics.entropy == pytest.approx(torch.cat(entropies).mean().item(), rel=1e-5)
    # the kit says that each token was sampled at a log-prob of -1
    assert metrics.mismatch_mean == pytest.approx((-1.0 - now).mean().item(), rel=1e-5)
    assert metrics.mismatch_max == pytest.approx((-1.0 - now).abs().max().item(), rel=1e-5)
    assert metrics.ratio_mean == 1.0
    assert metrics.clip_fraction == 0.0
    assert metrics.to_dict()["kl"] == metrics.kl


def test_the_loss_of_the_first_pass_is_minus_the_weighted_advantages(kit):
    """Token weights 1/67, advantages 0.5625, -0.4375, 0.0625, -0.1875 and three times -0.25, 0.75 by hand."""
    learner = kit.learner(scale_rewards="none", num_iterations=2)
    total = 4 * 0.5625 - 9 * 0.4375 + 6 * 0.0625 - 12 * 0.1875 - 8 * 0.25 - 5 * 0.25 + 11 * 0.75 - 12 * 0.25
    assert kit.step(learner).loss == pytest.approx(-total / 67, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_greedy_sampler_cannot_be_trained(kit, temperature):
    with pytest.raises(ConfigError, match="conversations of a group would be alike"):
        kit.learner(temperature=temperature)


def test_a_model_without_trainable_weights_is_refused(kit):
    loaded = attach_lora(kit.tiny(), r=4)
    loaded.model.requires_grad_(False)
    with pytest.raises(TrainingStopped, match="no trainable parameter"):
        kit.learner(loaded)


def test_a_model_whose_layers_cannot_be_recomputed_is_refused():
    with pytest.raises(ModelError, match=r"Linear has no layers .* set gradient_checkpointing: false"):
        recomputed_layers(torch.nn.Linear(1, 1)).__enter__()


def test_layers_get_their_own_forward_back(kit):
    """Some libraries put a forward of their own on a layer. Mutation: deleting it."""
    layer = kit.tiny().model.model.layers[0]
    layer.forward = own = layer.forward
    with recomputed_layers(layer):
        assert layer.forward is not own
    assert layer.forward is own
