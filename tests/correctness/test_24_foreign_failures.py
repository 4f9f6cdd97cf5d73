"""Row 24. A simulator, a tool or a judge fails and the agent gets reward 0 for it."""

import asyncio

import pytest

from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.core.scenario import Scenario
from stateset_agents.evaluation import SuccessCriterion, group_metrics
from stateset_agents.rollouts import RolloutCounts, collect_groups
from stateset_agents.training.samples import samples_of


class MoodyUser:
    """Answers at once, but for its second call, which hangs, and its fourth, which raises."""

    def __init__(self):
        self.calls = 0

    async def opening(self, scenario, persona=None):
        return "A"

    async def reply(self, scenario, turns, persona=None):
        self.calls += 1
        if self.calls == 2:
            await asyncio.sleep(60)
        if self.calls == 4:
            raise OSError("the line is dead")


class MoodyJudge(RewardFunction):
    """Gives 1, 0, then breaks, then has no number, then gives 1."""

    attainable = 1.0

    def __init__(self):
        super().__init__()
        self.verdicts = iter([1.0, 0.0, ConnectionError("no judge"), float("nan"), 1.0])

    async def compute_reward(self, turns, context=None):
        verdict = next(self.verdicts)
        if isinstance(verdict, Exception):
            raise verdict
        return RewardResult(verdict)


async def test_whoever_else_fails_the_agent_is_not_charged_for_it(kit):
    """Seven conversations one after the other: 1, a user that hangs, 0, a user that breaks, two failed verdicts, 1.

    Mutation: in rollouts/episode.py reward 0.0 for a failure: fails at None; without its outcome too: fails with 0
    among the rewards; blamed on the agent: fails at the outcomes.
    """
    agent = kit.scripted(kit.Scripted(kit.tokens("H i <|im_end|>")))
    environment = ConversationEnvironment([Scenario("s", ("A",))], user=MoodyUser())
    groups = await collect_groups(
        agent,
        environment,
        environment.episode_scenarios(),
        MoodyJudge(),
        group_size=7,
        key="k",
        max_concurrent=1,
        environment_timeout=0.1,
    )
    (group,) = groups
    assert group.rewards == [1.0, 0.0, 1.0]
    assert [(episode.key, episode.outcome, episode.reward) for episode in group.failures] == [
        ("k/s/1", Outcome.ENVIRONMENT, None),
        ("k/s/3", Outcome.USER, None),
        ("k/s/4", Outcome.REWARD, None),
        ("k/s/5", Outcome.REWARD, None),
    ]
    assert "took longer than 0.1 s" in group.failures[0].error
    advantages = [sample.advantage for sample in samples_of(groups, kit.config(scale_rewards="none"), 10)]
    assert advantages == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    row = group_metrics(groups, SuccessCriterion(1.0))
    assert (row["reward_mean"], row["success_rate"], row["reward_min"]) == (pytest.approx(2 / 3), 2 / 3, 0.0)
    assert (row["step_episodes"], row["failed"]) == (7, 4)
    assert RolloutCounts.of(groups).failures == {Outcome.ENVIRONMENT: 1, Outcome.USER: 1, Outcome.REWARD: 2}
