"""Row 26. A group that lost members: a baseline over what is not there, or the same sample twice to fill it up.

The rule: the baseline is the mean over those that were scored; one that has fewer than two of them is dropped.
"""

import math

import pytest

from stateset_agents.agents import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.core.scenario import Scenario
from stateset_agents.rollouts import RolloutCounts, collect_groups
from stateset_agents.training.samples import samples_of


class Unlucky(MultiTurnAgent):
    """Breaks in the conversations with these keys."""

    lost = ()

    async def process_turn(self, history, user_input, context=None):
        if self.key in self.lost:
            raise RuntimeError("unlucky")
        turn = await super().process_turn(history, user_input, context)
        turn.metadata["key"] = self.key
        return turn


class FirstAndFourth(RewardFunction):
    """1 for samples 0 and 3, 0 for the others."""

    async def compute_reward(self, turns, context=None):
        return RewardResult(float(turns[-1].metadata["key"][-1] in "03"))


async def collect(kit, *lost):
    agent = kit.scripted(kit.Scripted(kit.tokens("H i <|im_end|>")), Unlucky)
    agent.lost = tuple(f"k/s/{number}" for number in lost)
    environment = ConversationEnvironment([Scenario("s", ("A",))])
    scenarios = environment.episode_scenarios()
    return await collect_groups(agent, environment, scenarios, FirstAndFourth(), group_size=8, key="k")


@pytest.mark.parametrize(
    ("scale", "up", "down"),
    [
        ("none", 2 / 3, -1 / 3),
        # squares 2 x 4/9 + 4 x 1/9 = 4/3, over 6 - 1
        ("std", 2 / 3 / (math.sqrt(4 / 15) + 1e-4), -1 / 3 / (math.sqrt(4 / 15) + 1e-4)),
    ],
)
async def test_of_eight_that_were_asked_for_two_fail_and_six_make_the_baseline(kit, scale, up, down):
    """Rewards 1, 0, 0, 1, 0, 0. Over eight the mean would be 1/4.

    Mutation: in training/learner.py failures as 0 in the baseline: fails with 0.75; survivors repeated to fill the
    group: fails with 0.625.
    """
    groups = await collect(kit, 2, 5)
    (group,) = groups
    assert [talk.key[-1] for talk in group.trajectories] == list("013467")
    assert group.rewards == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    settings = {"num_generations": 8, "loss_normalization": "sequence"}
    samples = samples_of(groups, kit.config(scale_rewards=scale, **settings), 10)
    assert [sample.advantage for sample in samples] == pytest.approx([up, down, up, down, down, down], rel=1e-12)
    # 3 tokens each; the six are the whole step
    assert [sample.weight for sample in samples] == pytest.approx([1 / 18] * 6)
    assert len({id(sample.row) for sample in samples}) == 6


async def test_one_that_is_left_has_no_baseline_and_the_group_is_dropped_and_counted(kit):
    """Mutation: MIN_SCORED = 1 in rollouts/groups.py: fails with no group dropped."""
    groups = await collect(kit, 1, 2, 3, 4, 5, 6, 7)
    assert groups[0].rewards == [1.0]
    assert samples_of(groups, kit.config(num_generations=8), 10) == []
    counts = RolloutCounts.of(groups)
    assert (counts.episodes, counts.scored, counts.failed, counts.dropped_groups) == (8, 1, 7, 1)
