"""Losses, gradients and advantages equal those of TRL on random inputs.

TRL's methods that are compared with are private, so exactly one version is.
"""

import importlib.metadata
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.algorithms import (
    group_relative,
    leave_one_out,
    normalize_then_sum,
    policy_loss,
    sampler_correction,
    token_weights,
)

WANTED = "1.16."


def installed() -> str:
    try:
        return importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        return "absent"


if not installed().startswith(WANTED):
    pytest.skip(f"TRL {WANTED}* is compared with; here it is {installed()}", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about TRL's own use of it

NEAR = 1e-9
MAX_LENGTH = 10
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
IDENTITY = SimpleNamespace(
    device="cpu",
    num_processes=1,
    sync_gradients=True,
    gather=lambda x: x,
    gather_for_metrics=lambda x: x,
    reduce=lambda x, **_: x,
)


def numbers(seed: int, rows: int, width: int) -> dict[str, torch.Tensor]:
    """Log-probs with ratios on both sides of every clip, both signs of advantage, and masks with zeros inside."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, width)
    old = -3.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.01
    mask = (torch.rand(shape, generator=generator) < 0.7).double()
    mask[:, 0] = 1.0

    def near(size: float) -> torch.Tensor:
        return old + size * torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "old": old,
        "logprobs": near(0.4),
        "reference": near(0.3),
        "sampled": near(0.5),
        "mask": mask,
        "advantages": torch.randn(rows, generator=generator, dtype=torch.float64),
        "entropies": torch.rand(shape, generator=generator, dtype=torch.float64),
    }


sizes = st.tuples(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9))


def trl_loss(data: dict[str, torch.Tensor], **changes):
    options = {
        "steps_per_generation": 1,
        "use_bias_correction_kl": changes.pop("use_bias_correction_kl", False),
        "delta": changes.pop("delta", None),
    }
    args = GRPOConfig(use_cpu=True, bf16=False, report_to=[], **options)
    leaf = data["logprobs"].clone().requires_grad_()
    entropies = data["entropies"].clone().requires_grad_()
    trainer = GRPOTrainer.__new__(GRPOTrainer)
    correction = changes.pop("importance_sampling_ratio", None)
    trainer.__dict__.update(
        {
            "args": args,
            "accelerator": IDENTITY,
            "model": SimpleNamespace(training=True),
            "beta": 0.0,
            "loss_type": "grpo",
            "epsilon_low": CLIP_LOW,
            "epsilon_high": CLIP_HIGH,
            "importance_sampling_level": "token",
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "use_vllm": correction is not None,
            "vllm_importance_sampling_correction": correction is not None,
            "max_completion_length": MAX_LENGTH,
            "aux_loss_enabled": False,
            "router_aux_loss_coef": 0.0,
            "entropy_coef": 0.0,
            "use_adaptive_entropy": False,
            "_entropy_bonus_enabled": bool(changes.get("entropy_coef")),
            "_last_world_entropy": None,
            "_entropy_window_stats": None,
            "current_gradient_accumulation_steps": 1,
            "_metrics": {"train": defaultdict(list)},
            **changes,
        }
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, entropies, None)
    ids = torch.ones(leaf.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": data["mask"],
        "advantages": data["advantages"],
        "old_per_token_logps": data["old"],
        "ref_per_token_logps": data["reference"],
        "num_items_in_batch": data["mask"].sum(),
    }
    if correction is not None:
        inputs["importance_sampling_ratio"] = correction
        inputs["sampling_per_token_logps"] = data["sampled"]
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    return loss.detach(), leaf.grad, entropies.grad


def our_loss(data: dict[str, torch.Tensor], normalization: str, *, entropy_coef: float = 0.0, **options):
    leaf = data["logprobs"].clone().requires_grad_()
    entropies = data["entropies"].clone().requires_grad_()
    kept = data["mask"].bool()
    weights = token_weights(kept.sum(1), normalization, constant=MAX_LENGTH)
    rows = torch.arange(len(leaf))[:, None].expand_as(leaf)[kept]
    result = policy_loss(
        leaf[kept],
        data["old"][kept],
        data["advantages"][rows],
        weights[rows],
        conversations=rows,
        **{"clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, **options},
    )
    loss = result.loss - entropy_coef * entropies[kept].mean()
    loss.backward()
    return loss.detach(), leaf.grad, entropies.grad


def assert_same(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            assert torch.allclose(one, other, rtol=NEAR, atol=NEAR)


LOSSES = {
    "grpo": ("sequence", {}, {}),
    "bnpo": ("token", {}, {}),
    "dr_grpo": ("constant", {}, {}),
    "dapo": ("token", {}, {}),
    "luspo": ("sum", {"importance_sampling_level": "sequence"}, {"level": "sequence"}),
    "cispo": ("token", {"epsilon_high": 1.2}, {"surrogate": "cispo", "ratio_cap": 1.2}),
    "sapo": ("sequence", {}, {"surrogate": "sapo"}),
    "vespo": ("token", {}, {"surrogate": "vespo"}),
}


@settings(deadline=None, max_examples=25)
@given(size=sizes, beta=st.sampled_from([0.0, 0.04]), corrected=st.booleans())
@pytest.mark.parametrize("loss_type", LOSSES)
def test_losses_and_divergence(loss_type, size, beta, corrected):
    """Mutations: KL of the other direction, clip_low for both clips, weights by padded length, the cap as 1 + cap."""
    data = numbers(*size)
    normalization, theirs, ours = LOSSES[loss_type]
    theirs = {"loss_type": loss_type, "beta": beta, "use_bias_correction_kl": corrected, **theirs}
    ours = {"beta": beta, "reference": "reference" if beta else None, "kl_correction": corrected, **ours}
    ours["reference"] = data["reference"][data["mask"].bool()] if beta else None
    assert_same(our_loss(data, normalization, **ours), trl_loss(data, **theirs))


@settings(deadline=None, max_examples=25)
@given(size=sizes)
@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_ratios_of_whole_conversations(loss_type, size):
    """GSPO. Mutations: the mean over the padded length, or a sum."""
    data = numbers(*size)
    theirs = trl_loss(data, loss_type=loss_type, importance_sampling_level="sequence")
    assert_same(our_loss(data, LOSSES[loss_type][0], level="sequence"), theirs)


@settings(deadline=None, max_examples=25)
@given(size=sizes, cap=st.sampled_from([1.3, 2.0]))
def test_a_cap_on_the_open_side_of_the_clip(size, cap):
    """Mutation: the cap applied to the clipped term as well."""
    data = numbers(*size)
    assert_same(our_loss(data, "sequence", ratio_cap=cap), trl_loss(data, delta=cap))


@settings(deadline=None, max_examples=25)
@given(size=sizes)
def test_an_entropy_bonus(size):
    data = numbers(*size)
    theirs = trl_loss(data, loss_type="dapo", entropy_coef=0.01)
    assert_same(our_loss(data, "token", entropy_coef=0.01), theirs)


@settings(deadline=None, max_examples=25)
@given(size=sizes)
@pytest.mark.parametrize("kind", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("loss_type", ["grpo", "vespo"])
def test_weights_against_the_sampler(loss_type, kind, size):
    """TRL computes the weights where it generates; here they are its documented formula, on padded tensors."""
    if loss_type == "vespo" and kind.endswith("mask"):
        return  # the logarithm of a weight of 0
    data = numbers(*size)
    difference = (data["old"] - data["sampled"]) * data["mask"]
    if kind.startswith("sequence"):
        difference = difference.sum(1, keepdim=True).expand_as(difference)
    ratio = difference.exp()
    ratio = ratio.clamp(0.0, 1.5) if kind.endswith("truncate") else torch.where(ratio <= 1.5, ratio, 0.0)
    if loss_type == "vespo":
        ratio = torch.where(data["mask"].bool(), ratio, 1.0)
    kept = data["mask"].bool()
    rows = torch.arange(len(ratio))[:, None].expand_as(ratio)[kept]
    ours = sampler_correction(data["old"][kept], data["sampled"][kept], kind, cap=1.5, conversations=rows)
    assert torch.allclose(ours, ratio[kept])
    normalization, _, options = LOSSES[loss_type]
    theirs = trl_loss(data, loss_type=loss_type, importance_sampling_ratio=ratio)
    assert_same(our_loss(data, normalization, correction=ours, **options), theirs)


@settings(deadline=None, max_examples=25)
@given(size=sizes)
def test_leave_one_out_with_the_ratio_of_the_conversation(size):
    """RLOO. Mutation: the mean ratio in the place of the product."""
    data = numbers(*size)
    leaf = data["logprobs"].clone().requires_grad_()
    trainer = RLOOTrainer.__new__(RLOOTrainer)
    trainer.__dict__.update(
        args=RLOOConfig(use_cpu=True, bf16=False, report_to=[]),
        accelerator=IDENTITY,
        model=SimpleNamespace(training=True),
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        aux_loss_enabled=False,
        router_aux_loss_coef=0.0,
        beta=0.0,
        _metrics={"train": defaultdict(list)},
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, data["entropies"], None)
    ids = torch.ones(leaf.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": data["mask"],
        "old_logps": (data["old"] * data["mask"]).sum(1),
        "advantages": data["advantages"],
    }
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    ours = our_loss(data, "sequence", level="product")
    assert_same(ours[:2], (loss.detach(), leaf.grad))


def trl_advantages(rewards: torch.Tensor, weights: torch.Tensor, group: int, scale: str, how: str) -> torch.Tensor:
    """TRL's formulas have no function of their own; these are they, on (samples, rewards)."""
    from trl.trainer.utils import nanstd

    if how == "normalize_then_sum":
        grouped = rewards.view(-1, group, rewards.shape[1])
        each = (grouped - grouped.nanmean(1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
        total = (each.view(len(rewards), -1) * weights).nansum(1)
        return (total - total.nanmean()) / (nanstd(total) + 1e-4)
    total = (rewards * weights).nansum(1)
    difference = total - total.view(-1, group).nanmean(1).repeat_interleave(group)
    if scale == "none":
        return difference
    spread = nanstd(total) if scale == "batch" else nanstd(total.view(-1, group), dim=1).repeat_interleave(group)
    return difference / (spread + 1e-4)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 4), group=st.integers(2, 6), kinds=st.integers(1, 3))
@pytest.mark.parametrize("scale", ["std", "batch", "none"])
def test_advantages(scale, seed, groups, group, kinds):
    """Mutations: the population's deviation, the batch's deviation around group means."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(groups * group, kinds, generator=generator, dtype=torch.float64)
    weights = torch.rand(kinds, generator=generator, dtype=torch.float64) + 0.1
    table = (rewards * weights).sum(1).view(groups, group)
    theirs = trl_advantages(rewards, weights, group, {"std": "group"}.get(scale, scale), "sum_then_normalize")
    assert torch.allclose(group_relative(table, scale=scale).flatten(), theirs, atol=NEAR)
    theirs = trl_advantages(rewards, weights, group, "group", "normalize_then_sum")
    ours = normalize_then_sum(rewards.view(groups, group, kinds), weights)
    assert torch.allclose(ours.flatten(), theirs, atol=NEAR)
    others = (table.sum(1, keepdim=True) - table) / (group - 1)
    assert torch.allclose(leave_one_out(table), table - others, atol=NEAR)
