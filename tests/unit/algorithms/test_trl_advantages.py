"""Advantages, and weights against the sampler, equal what TRL's trainers compute after they have generated.

TRL has no function of its own for either, so the trainers' method is called with what it would have generated and
earned. It is private, so exactly one version is compared with.
"""

import contextlib
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
    sampler_correction,
    standardized,
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
NAN = float("nan")


@contextlib.contextmanager
def double():
    """TRL makes tensors of lists."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def generated(trainer_class, rewards: torch.Tensor, weights: torch.Tensor, group: int, **changes):
    """What TRL makes of (samples, rewards) and, if they are given, of padded log-probs and a mask."""
    config = {GRPOTrainer: GRPOConfig, RLOOTrainer: RLOOConfig}[trainer_class]
    logprobs = changes.pop("logprobs", torch.zeros(len(rewards), 1))
    reference = changes.pop("reference", None)
    sampled = changes.pop("sampled", None)
    mask = changes.pop("mask", torch.ones_like(logprobs, dtype=torch.long))
    model, compared = torch.nn.Module(), torch.nn.Module()
    model.is_gradient_checkpointing = False
    trainer = trainer_class.__new__(trainer_class)
    trainer.__dict__.update(
        {
            "args": config(use_cpu=True, bf16=False, report_to=[]),
            "accelerator": SimpleNamespace(
                device="cpu",
                process_index=0,
                num_processes=1,
                is_main_process=True,
                gather=lambda x: x,
                reduce=lambda x, **_: x,
            ),
            "model": model,
            "ref_model": compared,
            "environment_factories": None,
            "environments": None,
            "tools": [],
            "_tokenizer": SimpleNamespace(pad_token_id=0),
            "pad_to_multiple_of": None,
            "mask_truncated_completions": False,
            "num_iterations": 1,
            "use_vllm": sampled is not None,
            "vllm_importance_sampling_correction": sampled is not None,
            "beta": 0.0,
            "num_generations": group,
            "reward_weights": weights,
            "reward_funcs": [None] * rewards.shape[1],
            "reward_func_names": [str(n) for n in range(rewards.shape[1])],
            "reward_clip_range": None,
            "scale_rewards": "group",
            "multi_objective_aggregation": "sum_then_normalize",
            "normalize_advantages": False,
            "_metrics": {"train": defaultdict(list)},
            "_logs": {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": [], "extra": {}},
            "_pending_extra_logs": {},
            "_pending_metrics": {},
            "log_multimodal": False,
            **changes,
        }
    )
    rows, width = logprobs.shape
    ids = [[1] * width] * rows
    made = [[[1]] * rows, ids, mask.tolist(), ids, None if sampled is None else sampled.tolist(), {}, None, None]
    if trainer_class is RLOOTrainer:
        trainer._generate = lambda *_: ([[1]] * rows, ids, ids)
    else:
        trainer._generate = lambda *_: made
    trainer._calculate_rewards = lambda *_: rewards
    trainer._get_per_token_logps_and_entropies = lambda asked, *_, **__: (
        reference if asked is compared else logprobs,
        None,
        None,
    )
    with double():
        return trainer._generate_and_score_completions([{"prompt": "x"}] * rows)


def table_of(seed: int, groups: int, group: int, kinds: int, lost: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(samples, rewards) with some samples that could not be scored, at least two of each group that could."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(groups * group, kinds, generator=generator, dtype=torch.float64)
    unscored = torch.rand(groups, group, generator=generator) < lost
    unscored[:, :2] = False
    rewards[unscored.flatten()] = NAN
    return rewards, torch.rand(kinds, generator=generator, dtype=torch.float64) + 0.1


tables = st.tuples(
    st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 6), st.integers(1, 3), st.sampled_from([0.0, 0.4])
)


@settings(deadline=None, max_examples=30)
@given(sizes=tables)
@pytest.mark.parametrize("scale", ["std", "batch", "none"])
def test_relative_to_the_group(scale, sizes):
    """Mutations: the population's deviation, the batch's deviation around group means, unscored samples as 0."""
    rewards, weights = table_of(*sizes)
    table = (rewards * weights).sum(1).view(-1, sizes[2])
    theirs = generated(GRPOTrainer, rewards, weights, sizes[2], scale_rewards={"std": "group"}.get(scale, scale))
    assert torch.allclose(group_relative(table, scale=scale).flatten(), theirs["advantages"], rtol=NEAR, atol=NEAR)


@settings(deadline=None, max_examples=30)
@given(sizes=tables)
def test_each_reward_by_itself(sizes):
    """Mutation: the weights before the division."""
    rewards, weights = table_of(*sizes)
    theirs = generated(GRPOTrainer, rewards, weights, sizes[2], multi_objective_aggregation="normalize_then_sum")
    ours = normalize_then_sum(rewards.view(-1, sizes[2], sizes[3]), weights)
    assert torch.allclose(ours.flatten(), theirs["advantages"], rtol=NEAR, atol=NEAR)


@settings(deadline=None, max_examples=30)
@given(sizes=tables, scaled=st.booleans(), beta=st.sampled_from([0.0, 0.3]))
def test_leave_one_out_with_a_divergence_in_the_reward(sizes, scaled, beta):
    """Mutations: the mean with the sample itself, the divergence's sign, its mean over tokens."""
    rewards, weights = table_of(*sizes)
    generator = torch.Generator().manual_seed(sizes[0])
    logprobs, reference = torch.randn(2, len(rewards), 3, generator=generator, dtype=torch.float64)
    theirs = generated(
        RLOOTrainer,
        rewards,
        weights,
        sizes[2],
        normalize_advantages=scaled,
        beta=beta,
        logprobs=logprobs,
        reference=reference,
    )
    table = ((rewards * weights).sum(1) - beta * (logprobs - reference).sum(1)).view(-1, sizes[2])
    ours = leave_one_out(table).flatten()
    scored = ~table.flatten().isnan()
    if scaled:
        ours[scored] = standardized(ours[scored])
    assert torch.allclose(ours, theirs["advantages"], rtol=NEAR, atol=NEAR)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 8), floor=st.sampled_from([0.0, 0.4]))
@pytest.mark.parametrize("kind", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_weights_against_the_sampler(kind, seed, width, floor):
    """Mutations: the ratio turned over, the mean over a conversation, a border that moves what should be left out."""
    generator = torch.Generator().manual_seed(seed)
    logprobs = -3.0 * torch.rand(4, width, generator=generator, dtype=torch.float64)
    sampled = logprobs + 0.5 * torch.randn(4, width, generator=generator, dtype=torch.float64)
    mask = (torch.rand(4, width, generator=generator) < 0.7).long()
    mask[:, 0] = 1
    theirs = generated(
        GRPOTrainer,
        torch.arange(4.0, dtype=torch.float64)[:, None],
        torch.ones(1, dtype=torch.float64),
        4,
        logprobs=logprobs,
        sampled=sampled,
        mask=mask,
        vllm_importance_sampling_mode=kind,
        vllm_importance_sampling_clip_max=1.5,
        vllm_importance_sampling_clip_min=floor or None,
    )["importance_sampling_ratio"]
    kept = mask.bool()
    rows = torch.arange(4)[:, None].expand_as(mask)[kept]
    ours = sampler_correction(logprobs[kept], sampled[kept], kind, cap=1.5, floor=floor, conversations=rows)
    wanted = theirs.expand_as(logprobs)[kept]
    assert torch.allclose(ours, wanted, rtol=NEAR, atol=NEAR)
