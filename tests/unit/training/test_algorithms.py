"""Every algorithm through the one learner."""

import pytest
import torch

from stateset_agents.algorithms import generalized_advantages
from stateset_agents.config.algorithms import RECIPES
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.training.conversations import conversations_of
from stateset_agents.training.natural_update import NaturalUpdate
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.samples import Measured, likelihood_samples, policy_samples, preference_samples

WITH_REFERENCE = [name for name, recipe in RECIPES.items() if "beta" in recipe.uses]


@pytest.mark.parametrize("algorithm", RECIPES)
def test_each_moves_every_weight_and_measures_finite_numbers(kit, algorithm):
    learner = kit.learner(algorithm=algorithm)
    before = kit.masters(learner)
    for _ in range(2):
        measured = kit.step(learner)
        assert measured.updated
    after = kit.masters(learner)
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert all(tensor.isfinite().all() for tensor in after.values())


@pytest.mark.parametrize("algorithm", [name for name in RECIPES if name != "trpo"])
@pytest.mark.parametrize("batch_size", [4, 2, 1])
def test_the_gradient_of_each_does_not_depend_on_the_cut(kit, algorithm, batch_size):
    """Mutation: averages of micro-batches averaged. Two steps, so that ratios and values are not those of a start.

    The epsilon is large, so that rounding where a gradient is 0 moves no weight.
    """
    gradients = []
    for size in (8, batch_size):
        learner = kit.learner(kit.tiny(), algorithm=algorithm, batch_size=size, adam_epsilon=1e-2)
        kit.step(learner)
        kit.step(learner)
        gradients.append(learner.gradients)
    for whole, cut in zip(*gradients, strict=True):
        assert kit.relative_gap(cut, whole) < 1e-4


@pytest.mark.parametrize("algorithm", WITH_REFERENCE)
def test_a_reference_pulls_the_policy_back(kit, algorithm):
    """Mutation: the KL forgotten where it is taken from the reward.

    At the first step policy and reference are one; at the second they differ, and so do the two learners.
    """
    ends = []
    for beta in (0.1, 5.0):
        learner = kit.learner(kit.tiny(), algorithm=algorithm, beta=beta)
        kit.step(learner)
        kit.step(learner)
        ends.append(kit.masters(learner))
    assert kit.relative_gap(*ends) > 1e-4


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_a_value_head_learns_and_its_state_is_that_of_the_run(kit, algorithm):
    """Mutation: the head left out of the state."""
    first = kit.learner(kit.tiny(), algorithm=algorithm, value_learning_rate=0.02)
    errors = [kit.step(first).value_loss for _ in range(6)]
    assert errors[-1] < 0.7 * errors[0]
    weights, slots, counters = first.state()
    second = kit.learner(kit.tiny(), algorithm=algorithm, value_learning_rate=0.02)
    second.load(
        {name: tensor.clone() for name, tensor in weights.items()},
        {name: tensor.clone() for name, tensor in slots.items()},
        counters,
    )
    assert kit.step(first) == kit.step(second)
    assert all(torch.equal(a, b) for a, b in zip(first.state()[1].values(), second.state()[1].values(), strict=True))


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_where_a_value_head_knows_nothing_its_first_gradient_is_that_of_reinforce(kit, algorithm):
    """Mutations: the value loss reaches the model at once, the reward is at the first token, lambda is 0.95 after all.

    All 8 conversations have 8 tokens. With d the sum of squares of the 8 differences from the mean, advantages are
    divided by sqrt(d / 7) over conversations and by sqrt(8 d / 63) over tokens.
    """
    groups = [
        kit.group(kit.ids(12, 1), [1.0, 0.0, 0.5, 0.25], [5] * 4, 1),
        kit.group(kit.ids(9, 2), [0.0, 0.0, 1.0, 0.0], [5] * 4, 2),
    ]
    gradients = []
    settings = {"gae_lambda": 1.0, "entropy_coef": 0.0}
    for name, own in (("reinforce", {"scale_rewards": "batch"}), (algorithm, settings)):
        learner = kit.learner(kit.tiny(), algorithm=name, **own)
        kit.step(learner, groups)
        gradients.append(learner.gradients[0])
    scaled = {name: gradient * (63 / 56) ** 0.5 for name, gradient in gradients[0].items()}
    assert kit.relative_gap(gradients[1], scaled) < 1e-4


def test_values_along_a_conversation_become_advantages_of_its_tokens(kit):
    """Mutations: the reward at the first token, rows of a conversation taken apart."""
    config = kit.learner(algorithm="ppo", scale_rewards="none", discount=0.9, gae_lambda=0.5).config
    group = kit.two_groups()[1]
    talks = conversations_of([group], config)
    measured = {
        id(row): Measured([0.1 * n for n in range(row.trained_tokens)], [0.0] * row.trained_tokens)
        for talk in talks
        for row in talk.rows
    }
    samples = [sample for sample in policy_samples(talks, config, 20, measured) if sample.conversation == 3]
    rewards = [0.0] * 12
    values = [0.1 * n for n in [*range(7), *range(5)]]  # rows of 3 + 4 and of 5 trained tokens
    advantages, returns = generalized_advantages(rewards, values, discount=0.9, decay=0.5)
    assert [a for sample in samples for a in sample.advantage] == pytest.approx(advantages)
    assert [r for sample in samples for r in sample.returns] == pytest.approx(returns)


def test_a_trained_token_that_no_turn_points_to_belongs_to_the_last_move(kit):
    """Mutation: the number of replies less one, which is -1 for a conversation that was cut while it called a tool."""
    row = TokenRow()
    span = row.append_sampled([1, 2], [0.0, 0.0], 0)
    row.append_context([3])
    row.append_sampled([4], [0.0], 0)
    turns = [
        ConversationTurn("user", "a"),
        ConversationTurn("assistant", "b", span=span),
        ConversationTurn("tool", "c"),
    ]
    group = TrajectoryGroup("s", [MultiTurnTrajectory("s", turns=turns, rows=[row], reward=1.0)] * 2)
    talks = conversations_of([group], kit.learner().config)
    assert [talk.turns for talk in talks] == [[[0, 0, 0]]] * 2


def test_a_divergence_in_the_reward_is_taken_from_it(kit):
    """Leave-one-out of (1 - 0.5 x 2, 0): mutation: its sign."""
    config = kit.learner(algorithm="rloo", beta=0.5).config
    group = kit.group(kit.ids(5, 1), [1.0, 0.0], [1, 1], 1)
    talks = conversations_of([group], config)
    measured = {id(t.rows[0]): Measured([0.0] * 4, kl) for t, kl in zip(talks, [[0.5] * 4, [0.0] * 4], strict=True)}
    assert policy_samples(talks, config, 20, measured) == []  # both earned 0
    measured[id(talks[0].rows[0])] = Measured([0.0] * 4, [0.25] * 4)
    samples = policy_samples(talks, config, 20, measured)
    assert [sample.advantage for sample in samples] == pytest.approx([0.5, -0.5])


def test_pairs_are_the_best_and_the_worst_of_each_group_and_stay_together(kit):
    learner = kit.learner(algorithm="dpo", batch_size=2)
    talks = conversations_of([*kit.two_groups(), kit.flat_group()], learner.config)
    samples = preference_samples(talks)
    assert [(s.bundle, s.conversation, s.advantage) for s in samples] == [
        (0, 0, 1.0),
        (0, 1, -1.0),
        (1, 6, 1.0),
        (1, 4, -1.0),
    ]
    assert [[s.bundle for s in part] for part in learner.micro_batch.cut(samples)] == [[0, 0], [1, 1]]


def test_a_policy_comes_to_agree_with_its_pairs(kit):
    learner = kit.learner(algorithm="dpo")
    assert [kit.step(learner).preference_accuracy for _ in range(3)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("max_kl", [1e-3, 1e-2, 0.1])
def test_a_natural_step_stays_inside_the_bound_and_comes_near_it(kit, max_kl):
    """Mutations: no line search, the Fisher product without the second derivative."""
    learner = kit.learner(algorithm="trpo", max_kl=max_kl, cg_damping=1e-4)
    for _ in range(3):
        measured = kit.step(learner)
        assert 0 < measured.step_kl <= max_kl
        assert measured.step_kl > 0.1 * max_kl


def test_a_fisher_product_is_that_of_all_log_probs(kit):
    """F v = mean over tokens of J' (diag(p) - p p') J v, with J v by finite differences in float64."""
    learner = kit.learner(algorithm="trpo")
    learner._loaded.model.double()
    config = learner.config
    talks = conversations_of(kit.two_groups()[:1], config)
    batch = PackedBatch.of(policy_samples(talks, config, 20), torch.device("cpu"))
    parameters = [p for p in learner._loaded.model.parameters() if p.requires_grad]
    update = NaturalUpdate(
        learner.policy.packed, parameters, [batch], temperature=1.0, max_kl=1.0, iterations=1, damping=0.0, backtracks=0
    )
    update._log_softmax = lambda one: (  # type: ignore[method-assign]
        learner.policy.packed._causal_lm.lm_head(learner.policy._states(one)).log_softmax(-1)
    )
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(sum(p.numel() for p in parameters), generator=generator, dtype=torch.float64)
    small, parts = 1e-5, update._split(vector)

    def logs(share):
        with torch.no_grad():
            for parameter, part in zip(parameters, parts, strict=True):
                parameter += share * part
            found = update._log_softmax(batch)
            for parameter, part in zip(parameters, parts, strict=True):
                parameter -= share * part
        return found

    slope = (logs(small) - logs(-small)) / (2 * small)
    expected = (logs(0.0).exp() * slope.square()).sum() / len(batch.targets)  # v F v
    assert float(vector @ update.fisher_product(vector)) == pytest.approx(float(expected), rel=1e-4)


def _mask(group, place):
    for row in group.trajectories[place].rows:
        row.mask[:] = [0] * len(row.mask)


@pytest.mark.parametrize("algorithm", RECIPES)
def test_a_conversation_that_code_wrote_counts_in_the_baseline_and_breaks_nothing(kit, algorithm):
    """Mutations: the turns of no token asked for their last, such a conversation left out of its group."""
    groups = kit.two_groups()
    _mask(groups[0], 0)
    assert kit.step(kit.learner(algorithm=algorithm), groups).updated
    if "credit" in RECIPES[algorithm].uses:
        assert kit.step(kit.learner(algorithm=algorithm, credit="turn"), groups).updated
    talks = conversations_of(groups, kit.learner(algorithm=algorithm).config)
    assert len(talks) == 8
    assert (talks[0].earned(), talks[0].returns(0.9), talks[0].turn_lengths) == ({}, [], [])


def test_what_is_imitated_has_tokens_and_is_better_than_something(kit):
    """Mutations: the best conversation whether or not it has tokens; the worst one for want of another."""
    config = kit.learner(algorithm="rft").config
    groups = kit.two_groups()
    _mask(groups[0], 0)  # 1.0: the next best earned 0.5
    assert {s.conversation for s in likelihood_samples(conversations_of(groups, config), config, 20)} == {2, 6}
    for place in (0, 2, 3):
        _mask(groups[0], place)  # 0.0 is left, the worst of its group
    assert {s.conversation for s in likelihood_samples(conversations_of(groups, config), config, 20)} == {6}


def test_rewards_are_compared_each_by_itself_only_where_there_are_several(kit):
    """Worked out: the first reward ranks (1, 0), the second (0, 10); weights 2 and 1, so the first decides."""
    learner = kit.learner(algorithm="grpo", reward_aggregation="normalize_then_sum")
    group = kit.group(kit.ids(5, 1), [0.0, 10.0], [1, 1], 1)
    with pytest.raises(ConfigError, match="no sum of several rewards"):
        kit.step(learner, [group])
    for trajectory, (one, two) in zip(group.trajectories, [(1.0, 0.0), (0.0, 10.0)], strict=True):
        trajectory.components = {"one": (one, 2.0), "two": (two, 1.0)}
    samples = policy_samples(conversations_of([group], learner.config), learner.config, 20)
    # each alone: +-0.7071; 2 x 0.7071 - 0.7071 = 0.7071; over its own deviation of 1.0 again +-0.7071
    assert [sample.advantage for sample in samples] == pytest.approx([0.7071, -0.7071], abs=3e-4)
