"""The objective on a handful of tokens: values, clips and gradients by hand and by finite differences."""

import math

import pytest
import torch

from stateset_agents.algorithms import policy_loss, token_weights

RATIOS = [1.05, 1.5, 1.5, 0.5, 0.5]
ADVANTAGES = [2.0, 1.0, -1.0, 1.0, -1.0]
WEIGHTS = [0.1, 0.2, 0.3, 0.15, 0.25]


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs now and then, advantages, weights of five tokens: inside, and outside on both sides for both signs."""
    old = double([-0.5, -1.0, -1.5, -2.0, -2.5])
    return old + double(RATIOS).log(), old, double(ADVANTAGES), double(WEIGHTS)


@pytest.mark.parametrize(
    ("normalization", "expected"), [("token", [0.1, 0, 0.1]), ("sequence", [1 / 6, 0, 1 / 24]), ("constant", None)]
)
def test_a_conversation_without_trained_tokens_weighs_nothing_and_is_counted(normalization, expected):
    """Mutation: dropping it from the count gives 0.25 and 0.0625 under "sequence"."""
    weights = token_weights(torch.tensor([2, 0, 8]), normalization, constant=4).tolist()
    assert weights == pytest.approx(expected or [1 / 12, 0, 1 / 12], rel=1e-15)


def test_a_step_without_tokens_and_a_constant_without_a_length_are_errors():
    with pytest.raises(ValueError, match="no trained token"):
        token_weights(torch.tensor([0, 0]), "token")
    with pytest.raises(ValueError, match="length >= 1, not 0"):
        token_weights(torch.tensor([2, 8]), "constant")


def test_the_terms_and_clips_of_five_tokens():
    """Mutation: max for min of the two terms, or a clip on the wrong sign, changes tokens 2 to 5."""
    logprobs, old, advantages, _ = tokens()
    # -min(ratio A, clip(ratio, 0.8, 1.28) A)
    terms = [-1.05 * 2.0, -1.28, 1.5, -0.5, 0.8]
    for place, term in enumerate(terms):
        alone = double([float(place == other) for other in range(5)])
        loss = policy_loss(logprobs, old, advantages, alone, clip_low=0.2, clip_high=0.28).loss
        assert loss.item() == pytest.approx(term, rel=1e-14)
    result = policy_loss(logprobs, old, advantages, double(WEIGHTS), clip_low=0.2, clip_high=0.28)
    assert result.loss.item() == pytest.approx(sum(w * t for w, t in zip(WEIGHTS, terms, strict=True)), rel=1e-14)
    assert result.clipped.tolist() == [False, True, False, False, True]
    assert result.ratio.tolist() == pytest.approx(RATIOS, rel=1e-14)
    assert result.kl is None


def test_the_two_clips_have_widths_of_their_own():
    """Mutation: clip_low for both bounds clips the first token; clip_high for both lets the fourth through."""
    ratios = double([1.25, 1.31, 0.81, 0.75])
    advantages = double([1.0, 1.0, -1.0, -1.0])
    old = double([-1.0] * 4)
    result = policy_loss(old + ratios.log(), old, advantages, double([1.0] * 4), clip_low=0.2, clip_high=0.3)
    assert result.clipped.tolist() == [False, True, False, True]


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_the_gradient_is_that_of_finite_differences(beta, estimator):
    """Mutation: a detached ratio has no gradient at all; min without its sign has one on clipped tokens."""
    logprobs, old, advantages, weights = tokens()
    reference = old - 0.3

    def loss(values: torch.Tensor) -> torch.Tensor:
        return policy_loss(
            values,
            old,
            advantages,
            weights,
            clip_low=0.2,
            clip_high=0.28,
            beta=beta,
            reference=reference if beta else None,
            kl_estimator=estimator,
        ).loss

    leaf = logprobs.clone().requires_grad_()
    loss(leaf).backward()
    step = 1e-6
    for place in range(5):
        shift = torch.zeros(5, dtype=torch.float64)
        shift[place] = step
        slope = (loss(logprobs + shift) - loss(logprobs - shift)).item() / (2 * step)
        assert leaf.grad[place].item() == pytest.approx(slope, abs=1e-9)
    if not beta:
        # -weight x ratio x advantage where the clip does not decide, else nothing
        expected = [-0.1 * 1.05 * 2.0, 0.0, 0.3 * 1.5, -0.15 * 0.5, 0.0]
        assert leaf.grad.tolist() == pytest.approx(expected, rel=1e-14)


def test_on_the_first_pass_the_gradient_is_minus_weight_times_advantage():
    """The ratio is 1, but its gradient is not 0. Mutation: strict bounds on the clip halve it."""
    logprobs = double([-1.0, -2.0]).requires_grad_()
    result = policy_loss(logprobs, logprobs.detach(), double([2.0, -1.0]), double([0.5, 0.25]))
    result.loss.backward()
    assert logprobs.grad.tolist() == [-1.0, 0.25]
    assert result.ratio.tolist() == [1.0, 1.0]
    assert result.clipped.tolist() == [False, False]


def test_the_divergence_is_added_with_its_weight():
    """Mutation: subtracting it, or leaving out the token's weight."""
    logprobs = double([0.25]).log().requires_grad_()
    reference = double([0.5]).log()
    result = policy_loss(logprobs, logprobs.detach(), double([1.0]), double([0.5]), beta=0.1, reference=reference)
    assert result.loss.item() == pytest.approx(0.5 * (-1.0 + 0.1 * (1 - math.log(2))), rel=1e-14)
    assert result.kl is not None
    assert result.kl.tolist() == pytest.approx([1 - math.log(2)], rel=1e-14)
    assert not result.kl.requires_grad
    result.loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([0.5 * (-1.0 + 0.1 * -1.0)], rel=1e-14)


def test_a_divergence_without_a_reference_is_an_error():
    with pytest.raises(ValueError, match=r"beta is 0.04, but there are no reference log-probs"):
        policy_loss(*tokens(), beta=0.04)


def test_no_split_into_micro_batches_changes_the_sum():
    logprobs, old, advantages, weights = tokens()
    whole = policy_loss(logprobs, old, advantages, weights).loss
    parts = [policy_loss(logprobs[s], old[s], advantages[s], weights[s]).loss for s in (slice(0, 2), slice(2, 5))]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-14)
