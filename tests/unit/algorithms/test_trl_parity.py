"""Losses of tokens and their gradients equal those of TRL on random inputs.

TRL's methods that are compared with are private, so exactly one version is.
"""

import importlib.metadata
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stateset_agents.algorithms import (
    entropy_threshold,
    high_entropy_mask,
    on_policy_mask,
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
    pad_across_processes=lambda x, **_: x,
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
        "sampling_per_token_logps": data["sampled"],
    }
    if correction is not None:
        inputs["importance_sampling_ratio"] = correction
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    return loss.detach(), leaf.grad, entropies.grad


def our_loss(
    data: dict[str, torch.Tensor], normalization: str, *, entropy_coef: float = 0.0, uncertain=None, **options
):
    leaf = data["logprobs"].clone().requires_grad_()
    entropies = data["entropies"].clone().requires_grad_()
    kept = data["mask"].bool()
    weights = token_weights(kept.sum(1), normalization, constant=MAX_LENGTH)
    rows = torch.arange(len(leaf))[:, None].expand_as(leaf)[kept]
    result = policy_loss(
        leaf[kept],
        data["old"][kept],
        data["advantages"][rows] if data["advantages"].dim() == 1 else data["advantages"][kept],
        weights[rows],
        conversations=rows,
        **{"clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, **options},
    )
    acted_on = entropies[kept] if uncertain is None else entropies[kept][uncertain]
    loss = result.loss - entropy_coef * acted_on.mean()
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
    """The weights themselves are compared in test_trl_advantages; here the losses that take them. TRL's vespo refuses
    those of conversations, and so does ours."""
    if loss_type == "vespo" and kind.startswith("sequence"):
        return
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


def masks(data: dict[str, torch.Tensor], threshold: float | None, share: float):
    """Ours, on the trained tokens: what is kept, and which of that by its entropy."""
    kept = data["mask"].bool()
    rows = torch.arange(len(kept))[:, None].expand_as(kept)[kept]
    advantages = data["advantages"][rows] if data["advantages"].dim() == 1 else data["advantages"][kept]
    known = torch.ones_like(rows, dtype=torch.bool)
    if threshold is not None:
        known = on_policy_mask(data["logprobs"][kept], data["sampled"][kept], advantages, rows, threshold)
    entropies = data["entropies"][kept]
    uncertain = high_entropy_mask(entropies, entropy_threshold(entropies, share))
    return known & uncertain, uncertain


@settings(deadline=None, max_examples=25)
@given(size=sizes, threshold=st.sampled_from([None, 0.01, 0.2]), share=st.sampled_from([1.0, 0.75, 0.2]))
@pytest.mark.parametrize("loss_type", LOSSES)
def test_what_is_left_out(loss_type, size, threshold, share):
    """Mutations: the sampler's side of the difference, positive advantages masked too, the share turned over, a KL or a
    weight that the masks change, a bonus over all tokens."""
    data = numbers(*size)
    data["entropies"] = data["entropies"].float().double()  # TRL's quantile is one of float32
    ordered = data["entropies"][data["mask"].bool()].sort().values
    edge = float(torch.quantile(ordered.float(), 1.0 - share))
    near = (ordered - edge).abs()
    assume(not ((near > 0) & (near < 1e-4)).any())  # where rounding decides
    kept, uncertain = masks(data, threshold, share)
    normalization, theirs, ours = LOSSES[loss_type]
    trl = trl_loss(
        data,
        loss_type=loss_type,
        beta=0.04,
        off_policy_mask_threshold=threshold,
        top_entropy_quantile=share,
        entropy_coef=0.01,
        **theirs,
    )
    reference = data["reference"][data["mask"].bool()]
    found = our_loss(
        data,
        normalization,
        beta=0.04,
        reference=reference,
        kept=kept,
        entropy_coef=0.01,
        uncertain=uncertain,
        **ours,
    )
    assert_same(found, trl)


@settings(deadline=None, max_examples=25)
@given(size=sizes, threshold=st.sampled_from([0.01, 0.2]))
def test_a_mask_by_the_advantages_of_turns(size, threshold):
    """Advantages of each token: where they are negative, the token is left out, not its conversation."""
    data = numbers(*size)
    generator = torch.Generator().manual_seed(size[0])
    data["advantages"] = torch.randn(data["mask"].shape, generator=generator, dtype=torch.float64)
    kept, _ = masks(data, threshold, 1.0)
    assert_same(our_loss(data, "sequence", kept=kept), trl_loss(data, off_policy_mask_threshold=threshold))


def test_masks_by_hand():
    """Two conversations: the sampler is 0.5 nats a token surer of the first, 0.1 of the second."""
    rows = torch.tensor([0, 0, 1, 1])
    logprobs, sampled = torch.tensor([-2.0, -1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, -0.9, -0.9])
    bad, good = torch.full((4,), -1.0), torch.ones(4)
    assert on_policy_mask(logprobs, sampled, bad, rows, 0.3).tolist() == [False, False, True, True]
    assert on_policy_mask(logprobs, sampled, good, rows, 0.3).all()
    assert on_policy_mask(sampled, logprobs, bad, rows, 0.3).all()  # the policy is surer than the sampler was
    entropies = torch.tensor([0.1, 0.4, 0.2, 0.3, 0.3 + 1e-6])
    assert entropy_threshold(entropies, 0.75) == pytest.approx(0.2)
    assert entropy_threshold(entropies, 0.25) == pytest.approx(0.300001)
    # 0.3 and 0.3 + 1e-6 are the same token in two packs
    assert high_entropy_mask(entropies, entropy_threshold(entropies, 0.25)).tolist() == [False, True, False, True, True]
