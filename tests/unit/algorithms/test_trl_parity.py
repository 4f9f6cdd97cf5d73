"""Loss and gradient equal those of TRL's GRPOTrainer on the same numbers.

TRL's `_compute_loss` is a private method, so exactly one version is compared with.
"""

import importlib.metadata
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from stateset_agents.algorithms import policy_loss, token_weights

WANTED = "1.16."


def installed() -> str:
    try:
        return importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        return "absent"


if not installed().startswith(WANTED):
    pytest.skip(f"TRL {WANTED}* is compared with; here it is {installed()}", allow_module_level=True)

LENGTHS = [2, 8, 5, 7]
"""Trained tokens of four completions that are 8 places wide."""
MAX_LENGTH = 10
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


def numbers() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -3.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.01
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    reference_noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.zeros(shape, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1.0
    return {
        "old": old,
        "logprobs": old + 0.4 * noise,  # ratios from about 0.4 to 2.5: both clips act on both signs
        "reference": old + 0.3 * reference_noise,
        "mask": mask,
        "advantages": torch.tensor([1.5, -0.5, -1.2, 0.2], dtype=torch.float64),
    }


def trl_loss(loss_type: str, beta: float, data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import GRPOConfig, GRPOTrainer

        args = GRPOConfig(use_cpu=True, bf16=False, report_to=[], steps_per_generation=1, use_bias_correction_kl=False)
    leaf = data["logprobs"].clone().requires_grad_()
    trainer = GRPOTrainer.__new__(GRPOTrainer)
    identity = SimpleNamespace(
        num_processes=1,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, **_: x,
    )
    trainer.__dict__.update(
        args=args,
        accelerator=identity,
        model=SimpleNamespace(training=True),
        beta=beta,
        loss_type=loss_type,
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        max_completion_length=MAX_LENGTH,
        aux_loss_enabled=False,
        router_aux_loss_coef=0.0,
        entropy_coef=0.0,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=False,
        _last_world_entropy=None,
        _entropy_window_stats=None,
        current_gradient_accumulation_steps=1,
        _metrics={"train": defaultdict(list)},
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, torch.zeros_like(leaf), None)
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
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    return loss.detach(), leaf.grad


def our_loss(normalization: str, beta: float, data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = data["logprobs"].clone().requires_grad_()
    kept = data["mask"].bool()
    weights = token_weights(torch.tensor(LENGTHS), normalization, constant=MAX_LENGTH)
    result = policy_loss(
        leaf[kept],
        data["old"][kept],
        data["advantages"][:, None].expand_as(leaf)[kept],
        weights[:, None].expand_as(leaf)[kept],
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        beta=beta,
        reference=data["reference"][kept] if beta else None,
    )
    result.loss.backward()
    assert 0.1 < result.clipped.double().mean() < 0.9
    return result.loss.detach(), leaf.grad


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "normalization"),
    [("grpo", "sequence"), ("bnpo", "token"), ("dr_grpo", "constant"), ("dapo", "token")],
)
def test_loss_and_gradient_are_those_of_trl(loss_type, normalization, beta):
    """Mutation: KL of the other direction, clip_low for both clips, or weights by padded length."""
    data = numbers()
    theirs, their_slope = trl_loss(loss_type, beta, data)
    ours, our_slope = our_loss(normalization, beta, data)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert torch.allclose(our_slope, their_slope, rtol=0, atol=1e-12)
    assert their_slope.abs().max() > 0.01
