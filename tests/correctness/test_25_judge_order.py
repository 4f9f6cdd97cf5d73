"""Row 25. A judge of several conversations at once: it likes what it reads first, and its failure is passed over.

The rule: the order that it reads them in is drawn from the group's key, so that no place in a group is worth anything;
a score goes to the conversation that earned it; a judgement that fails takes the whole group out, and is counted.
"""

import math

import pytest

from stateset_agents.agents import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import GroupReward
from stateset_agents.core.scenario import Scenario
from stateset_agents.rollouts import RolloutCounts, collect_groups

GROUP = 4


class Numbered(MultiTurnAgent):
    """Says the number of its sample."""

    async def process_turn(self, history, user_input, context=None):
        turn = await super().process_turn(history, user_input, context)
        turn.metadata["sample"] = int(self.key.rsplit("/", 1)[1])
        return turn


class Judge(GroupReward):
    """Scores with a function of the sample numbers, in the order in which it sees them."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.seen = scores, []

    async def compare(self, conversations, context=None):
        self.context = context
        self.seen.append([turns[-1].metadata["sample"] for turns in conversations])
        return self.scores(self.seen[-1])


async def collect(kit, judge, groups=1, lost=()):
    class Unlucky(Numbered):
        async def process_turn(self, history, user_input, context=None):
            if self.key in lost:
                raise RuntimeError("unlucky")
            return await super().process_turn(history, user_input, context)

    agent = kit.scripted(kit.Scripted(kit.tokens("H i <|im_end|>")), Unlucky)
    environment = ConversationEnvironment([Scenario(f"s{number}", ("A",)) for number in range(groups)])
    return await collect_groups(agent, environment, environment.episode_scenarios(), judge, group_size=GROUP, key="k")


async def test_a_judge_that_prefers_the_first_prefers_nobody(kit):
    """Mutation: the order that they were played in: sample 0 wins 200 of 200 groups.

    By chance each wins 50 of 200 with a deviation of sqrt(200 x 1/4 x 3/4) = 6.1.
    """
    judge = Judge(lambda seen: [1.0] + [0.0] * (len(seen) - 1))
    groups = await collect(kit, judge, groups=200)
    wins = [sum(group.trajectories[sample].reward for group in groups) for sample in range(GROUP)]
    assert sum(wins) == 200
    assert all(abs(won - 50) < 3 * 6.1 for won in wins)


async def test_each_gets_the_score_that_it_earned_in_whatever_place(kit):
    """Mutation: scores handed out in the order of the list."""
    judge = Judge(lambda seen: [sample / 10 for sample in seen])
    groups = await collect(kit, judge, groups=20)
    assert len({tuple(order) for order in judge.seen}) > 10
    for group in groups:
        assert [episode.reward for episode in group.trajectories] == [0.0, 0.1, 0.2, 0.3]


async def test_the_order_is_that_of_the_key_in_every_process(kit):
    """By blake2b of the key of the group and the place. Mutation: Python's `hash`, which differs in each process."""
    judge = Judge(lambda seen: [0.0] * len(seen))
    await collect(kit, judge)
    assert judge.seen == [[3, 1, 0, 2]]


def _raise(seen):
    raise ConnectionError("the judge is away")


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (_raise, "ConnectionError: the judge is away"),
        (lambda seen: [1.0], "compare returned 1 scores for 4 conversations"),
        (lambda seen: [math.nan] * len(seen), "score"),
        (lambda seen: "1234", "it must return a list of numbers"),
        (lambda seen: None, "it must return a list of numbers"),
        (lambda seen: dict.fromkeys(range(len(seen)), 1.0), "it must return a list of numbers"),
        (lambda seen: {0.1, 0.2, 0.3, 0.4}, "it must return a list of numbers"),
        (lambda seen: b"1234", "it must return a list of numbers"),
        (lambda seen: ["0"] * len(seen), "it must return a list of numbers"),
    ],
)
async def test_a_judgement_that_fails_takes_the_group_out_and_is_counted(kit, scores, words):
    """Mutations: such a group kept with rewards of 0; the failure counted as one."""
    (group,) = await collect(kit, Judge(scores))
    assert group.trajectories == []
    assert [episode.reward for episode in group.failures] == [None] * GROUP
    assert all(words in episode.error for episode in group.failures)
    counts = RolloutCounts.of([group])
    assert (counts.failures, counts.dropped_groups) == ({Outcome.REWARD: GROUP}, 1)


async def test_those_that_failed_are_not_shown_to_the_judge(kit):
    judge = Judge(lambda seen: [sample / 10 for sample in seen])
    (group,) = await collect(kit, judge, lost=("k/s0/1",))
    assert sorted(judge.seen[0]) == [0, 2, 3]
    assert [episode.reward for episode in group.trajectories] == [0.0, 0.2, 0.3]
    assert [episode.outcome for episode in group.failures] == [Outcome.AGENT]


async def test_a_conversation_alone_is_a_group_of_one():
    judge = Judge(lambda seen: [0.25])

    class Turn:
        role, metadata = "assistant", {"sample": 0}

    assert (await judge.evaluate([Turn()])).score == 0.25


async def test_the_judge_is_told_of_the_scenario_and_of_no_single_conversation(kit):
    """Mutation: the context of the first conversation as it is, by which all would be judged."""
    judge = Judge(lambda seen: [0.0] * len(seen))
    await collect(kit, judge)
    assert judge.context["scenario_id"] == "s0"
    assert not {"state", "outcome", "completed_actions"} & judge.context.keys()
