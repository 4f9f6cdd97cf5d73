"""Losses of pairs and their gradients equal those of TRL on random inputs, whole and cut into micro-batches.

TRL's trainer is given log-probs in the place of a model; ours goes from the packed rows to the loss. TRL's method that
is compared with is private, so exactly one version is.
"""

import dataclasses
import importlib.metadata
import math
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stateset_agents.algorithms.preferences import scores
from stateset_agents.config.algorithms import DIVERGENT, SMOOTHED
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.trajectory import TokenRow
from stateset_agents.training.comparison import compares, observed, settled
from stateset_agents.training.forward import Forward
from stateset_agents.training.objective import contribution
from stateset_agents.training.packing import PackedBatch, Sample

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
    from trl import DPOConfig, DPOTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about TRL's own use of it

NEAR = 1e-9
IDENTITY = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
KINDS = [
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"),
]
THEIR_DIVERGENCES = {"js": "js_divergence", "alpha": "alpha_divergence"}
sizes = st.tuples(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 8))


@dataclasses.dataclass
class Answers:
    """Of (2 x pairs) answers, chosen ones first, each (answers, width)."""

    logprobs: torch.Tensor
    reference: torch.Tensor
    mask: torch.Tensor

    @property
    def pairs(self) -> int:
        return len(self.mask) // 2


def answers(seed: int, pairs: int, width: int) -> Answers:
    """Policy and reference differ by about 1 nat a token; masks have zeros inside."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * pairs, width)
    logprobs = -4.0 * torch.rand(shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(shape, generator=generator) < 0.7
    mask[:, torch.randint(0, width, (1,), generator=generator)] = True
    return Answers(logprobs, logprobs + torch.randn(shape, generator=generator, dtype=torch.float64), mask)


def theirs(data: Answers, kind: str, *, dtype: torch.dtype = torch.float64, **changes):
    """Loss and its gradient by each token's log-prob."""
    leaf = data.logprobs.to(dtype).clone().requires_grad_()
    model = torch.nn.Module()
    model.is_gradient_checkpointing = False
    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer.__dict__.update(
        {
            "args": DPOConfig(use_cpu=True, bf16=False, report_to=[]),
            "accelerator": IDENTITY,
            "model": model,
            "beta": 0.1,
            "loss_types": [kind],
            "loss_weights": [1.0],
            "label_smoothing": 0.0,
            "f_divergence_type": "reverse_kl",
            "f_alpha_divergence_coef": 0.5,
            "precompute_ref_logps": False,
            "ref_model": lambda **_: SimpleNamespace(log_probs=data.reference.to(dtype) * data.mask),
            "use_weighting": False,
            "ld_alpha": None,
            "aux_loss_enabled": False,
            "_tp_size": 1,
            "_total_train_tokens": 0,
            "_metrics": {"train": defaultdict(list)},
            **changes,
        }
    )
    none = torch.zeros_like(leaf)
    outputs = SimpleNamespace(
        log_probs=leaf * data.mask,
        entropy=none,
        is_top1=none.bool(),
        label_mask=data.mask,
        mean_logits=none,
        aux_loss=None,
    )
    ids = torch.zeros(len(leaf), leaf.shape[1] + 1, dtype=torch.long)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": torch.nn.functional.pad(data.mask.long(), (1, 0)),  # nothing predicts a first token
    }
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # TRL makes tensors of its settings
    try:
        loss = trainer._compute_loss(lambda **_: outputs, inputs, return_outputs=False)
    finally:
        torch.set_default_dtype(before)
    loss.backward()
    return loss.detach(), leaf.grad


def packed(data: Answers, pairs: list[int]) -> tuple[PackedBatch, torch.Tensor]:
    """Rows of some pairs, and the place of each of their trained tokens in the tables."""
    samples, places = [], []
    for pair in pairs:
        for sign, answer in ((1.0, pair), (-1.0, data.pairs + pair)):
            row = TokenRow()
            row.append_context([1])
            for place, trained in enumerate(data.mask[answer].tolist()):
                if trained:
                    row.append_sampled([2], [0.0], 0)
                    places.append((answer, place))
                else:
                    row.append_context([3])
            samples.append(Sample(row, sign, 0.0, answer, 0, bundle=pair))
    batch = PackedBatch.of(samples, torch.device("cpu"))
    order = batch.owners.argsort(stable=True).argsort()  # the pack may have rows in another order
    weights = torch.full((len(batch.targets),), 1.0 / data.pairs, dtype=torch.float64)
    return dataclasses.replace(batch, weights=weights), torch.tensor(places)[order]


def ours(data: Answers, kind: str, *, cut: bool = False, **changes):
    """The same, through the config and the packed rows; cut: each pair a micro-batch of its own."""
    config = TrainingConfig.from_profile("balanced", algorithm="dpo", preference_loss=kind, **changes)
    leaf = data.logprobs.clone().requires_grad_()
    numbers = list(range(data.pairs))
    parts = []
    for pairs in [[pair] for pair in reversed(numbers)] if cut else [numbers]:
        batch, places = packed(data, pairs)
        chosen = leaf[places[:, 0], places[:, 1]]
        reference = data.reference[places[:, 0], places[:, 1]]
        parts.append((batch, Forward(chosen, torch.zeros_like(chosen), chosen.detach(), None, reference)))
    tokens = int(data.mask[: data.pairs].sum())
    whole = settled(config, observed(config, parts)) if cut and compares(config) else None
    loss = sum(contribution(config, batch, forward, tokens, whole).loss for batch, forward in parts)
    loss.backward()
    return loss.detach(), leaf.grad


def assert_same(one, other, near: float = NEAR) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.allclose(left, right.double(), rtol=near, atol=near)


def smoothing_of(kind: str) -> float:
    return 0.1 if kind in SMOOTHED else 0.0


@settings(deadline=None, max_examples=25)
@given(size=sizes, beta=st.sampled_from([0.05, 0.5]), cut=st.booleans(), tail=st.sampled_from([1.0, 0.3, 0.0]))
@pytest.mark.parametrize("kind", KINDS)
def test_losses(kind, size, beta, cut, tail):
    """Mutations: the reference's sign, no mean over tokens, ranks within a micro-batch, tails by place in the row."""
    data, smoothing = answers(*size), smoothing_of(kind)
    wanted = theirs(data, kind, beta=beta, label_smoothing=smoothing, ld_alpha=None if tail == 1.0 else tail)
    found = ours(data, kind, cut=cut, beta=beta, label_smoothing=smoothing, preference_tail=tail)
    assert_same(found, wanted)


@settings(deadline=None, max_examples=25)
@given(size=sizes, beta=st.sampled_from([0.05, 0.5]))
@pytest.mark.parametrize("divergence", ["forward_kl", "js"])
@pytest.mark.parametrize("kind", sorted(DIVERGENT))
def test_other_divergences(kind, divergence, size, beta):
    data, smoothing = answers(*size), smoothing_of(kind)
    name = THEIR_DIVERGENCES.get(divergence, divergence)
    wanted = theirs(data, kind, beta=beta, label_smoothing=smoothing, f_divergence_type=name)
    found = ours(data, kind, beta=beta, label_smoothing=smoothing, preference_divergence=divergence)
    assert_same(found, wanted)


@settings(deadline=None, max_examples=25)
@given(size=sizes, alpha=st.sampled_from([0.3, 0.5, 1.0, 1.5]))
@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_the_alpha_divergence(kind, size, alpha):
    """TRL computes it in float32 whatever it is given, and refuses float64."""
    data = answers(*size)
    changes = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": alpha}
    wanted = theirs(data, kind, dtype=torch.float32, beta=0.05, **changes)
    found = ours(data, kind, beta=0.05, preference_divergence="alpha", preference_alpha=alpha)
    largest = max(1.0, float(wanted[0].abs()), float(wanted[1].abs().max()))
    for left, right in zip(found, wanted, strict=True):
        assert torch.allclose(left, right.double(), rtol=1e-4, atol=1e-6 * largest)


def test_the_alpha_divergence_lies_between_the_two_kl():
    ratios = torch.linspace(-5.0, 5.0, 11, dtype=torch.float64)
    assert torch.allclose(scores(ratios, "alpha", 0.0), scores(ratios, "forward_kl"))
    assert torch.allclose(scores(ratios, "alpha", 1.0), scores(ratios, "reverse_kl"))
    # t = e, alpha = 0.5: (e^-0.5 - 1) / -0.5
    assert float(scores(torch.ones((), dtype=torch.float64), "alpha", 0.5)) == pytest.approx(2 * (1 - math.exp(-0.5)))


@settings(deadline=None, max_examples=25)
@given(size=sizes, cut=st.booleans(), weight=st.sampled_from([0.2, 1.0]))
@pytest.mark.parametrize("kind", ["sigmoid", "bco_pair"])
def test_the_likelihood_of_the_chosen_beside_a_loss(kind, size, cut, weight):
    """TRL's loss "sft" in a list of losses. Mutation: a mean over each micro-batch, or over both answers."""
    data = answers(*size)
    wanted = theirs(data, kind, loss_types=[kind, "sft"], loss_weights=[1.0, weight])
    assert_same(ours(data, kind, cut=cut, preference_sft_weight=weight), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_label_smoothing_and_divergences_change_the_losses_that_are_said_to_know_them(kind):
    """What `config.algorithms` refuses elsewhere."""
    data = answers(1, 3, 6)
    least = 0.1 if kind == "exo_pair" else 0.0
    one, other = (ours(data, kind, label_smoothing=least + more)[0] if kind in SMOOTHED else 0.0 for more in (0.0, 0.2))
    assert (one != other) == (kind in SMOOTHED)
    if kind in DIVERGENT:
        plain, changed = (
            ours(data, kind, label_smoothing=least, preference_divergence=name)[0] for name in ("reverse_kl", "js")
        )
        assert plain != changed
