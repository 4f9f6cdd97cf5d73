"""Row 22. Groups of equal rewards: a step on noise, a division by nothing, or a batch that shrinks in silence."""

import logging

import pytest
import torch

from stateset_agents.core.errors import TrainingStopped
from stateset_agents.core.reward import as_reward, reward_function


def unchanged(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def flat_group(kit, seed):
    """Four conversations whose rewards are equal but for rounding."""
    prompt = kit.ids(10, seed)
    rewards = (0.3, 0.3, 0.1 + 0.2, 0.3)
    return kit.group(
        *((reward, [kit.row((prompt, False), (kit.ids(2 + i, seed + i), True))]) for i, reward in enumerate(rewards))
    )


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_groups_of_equal_rewards_change_no_bit(kit, beta):
    """An Adam step on noise is as long as any; weight decay and the KL term would move weights too.

    Mutation: no comparison of rewards in algorithms/advantages.py: fails at `updated`. All samples returned by
    policy_samples in training/samples.py: fails with beta 0.04.
    """
    learner = kit.learner(beta=beta, weight_decay=0.1)
    before = kit.masters(learner)
    metrics = learner.step([flat_group(kit, 50), flat_group(kit, 60)], max_tokens=20)
    assert not metrics.updated
    assert metrics.trained_tokens == 0
    assert unchanged(kit.masters(learner), before)
    assert not learner.optimizer.state
    assert learner.steps == 1


def test_a_flat_group_beside_others_counts_in_the_weights_and_is_not_computed(kit):
    """One with as many tokens halves the gradient.

    Mutation: flat groups left out before the weights in training/samples.py: fails with twice the gradient; computed
    all the same: fails with 62 tokens for 31.
    """
    group, twin = kit.two_groups()[:1], kit.two_groups()[0]
    for trajectory in twin.trajectories:
        trajectory.reward = 0.5
    alone, diluted = kit.learner(), kit.learner()
    before, after = alone.step(group, max_tokens=20), diluted.step([*group, twin], max_tokens=20)
    assert kit.gap(diluted.gradients[0], {name: slope / 2 for name, slope in alone.gradients[0].items()}) < 1e-6
    assert (after.trained_tokens, after.forwarded_tokens) == (before.trained_tokens, before.forwarded_tokens)


@reward_function
def always(turns, context=None):
    return 0.5


async def test_a_run_in_which_all_rewards_are_equal_says_so_and_stops(kit, caplog):
    """A warning after three steps, the end after ten, and not a bit of the weights has moved.

    Mutation: FLAT_STEPS_STOP = 100, or should_warn never, in training/stopping.py: fails with nothing raised, or
    nothing said.
    """
    agent = await kit.agent(max_new_tokens=3)
    trainer = await kit.trainer(agent, as_reward(always), steps=20, beta=0.04, weight_decay=0.1)
    before = kit.masters(trainer.learner)
    caplog.set_level(logging.WARNING)
    with pytest.raises(TrainingStopped, match="10 steps in a row had nothing to learn"):
        await trainer.run()
    await agent.aclose()
    assert [row["updated"] for row in trainer.rows] == [False] * 10
    assert [row["zero_variance_share"] for row in trainer.rows] == [1.0] * 10
    assert [record.getMessage() for record in caplog.records if "in a row" in record.getMessage()] == [
        "3 steps in a row had no group with different rewards: nothing was learned from them"
    ]
    assert unchanged(kit.masters(trainer.learner), before)
