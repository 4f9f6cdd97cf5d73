import asyncio

import pytest

from stateset_agents.agents import AgentConfig, AgentRuntime, EngineFailed, MultiTurnAgent
from stateset_agents.chat import ChatCodec
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import reward_function
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.engines.stub import StubEngine
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import RolloutCounts, collect_groups, with_baseline

tokenizer = load_tokenizer("tiny")
codec = ChatCodec(tokenizer)
SCENARIOS = [Scenario(name, ("A", "B")) for name in ("x", "y")]
TALK = ConversationEnvironment(SCENARIOS)


def stub(*replies, agent_class=MultiTurnAgent, **engine):
    agent = agent_class(AgentConfig("stub://"))
    agent.runtime = AgentRuntime(None, codec, StubEngine(tokenizer, codec, replies or ("one", "two"), **engine))
    return agent


@reward_function
def one_reward(turns, context=None):
    return 1.0


class Counting(MultiTurnAgent):
    """Counts its own turns: wrong as soon as two episodes share it."""

    def __init__(self, config):
        super().__init__(config)
        self.mine = []

    async def process_turn(self, history, user_input, context=None):
        self.mine.append(user_input)
        turn = await super().process_turn(history, user_input, context)
        turn.metadata["mine"] = (self.key, list(self.mine))
        return turn


async def test_groups_come_in_the_order_of_scenarios_with_samples_in_theirs():
    groups = await collect_groups(stub(), TALK, SCENARIOS, one_reward, group_size=3, key="step-1")
    assert [g.scenario_id for g in groups] == ["x", "y"]
    assert [[t.key for t in g.trajectories] for g in groups] == [[f"step-1/{s}/{n}" for n in range(3)] for s in "xy"]
    assert all(g.rewards == [1.0, 1.0, 1.0] for g in groups)


async def test_a_scenario_that_is_listed_twice_is_not_played_twice_the_same_way():
    groups = await collect_groups(stub(), TALK, [SCENARIOS[0]] * 2, one_reward, group_size=2, key="k")
    assert [t.key for g in groups for t in g.trajectories] == ["k/x/0", "k/x/1", "k/x/2", "k/x/3"]


async def test_sixteen_conversations_with_a_stateful_agent_never_mix():
    agent = stub(agent_class=Counting, latency=0.001)
    groups = await collect_groups(agent, TALK, SCENARIOS, one_reward, group_size=8, key="k")
    for trajectory in (t for g in groups for t in g.trajectories):
        seen = [turn.metadata["mine"] for turn in trajectory.assistant_turns]
        assert seen == [(trajectory.key, ["A"]), (trajectory.key, ["A", "B"])]
    assert agent.mine == []
    assert agent.runtime.engine.sessions == set()


async def test_all_episodes_are_in_flight_at_once_and_never_more_than_asked_for():
    class Watched(StubEngine):
        now = most = 0

        async def generate(self, request):
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await super().generate(request)
            finally:
                self.now -= 1

    for limit, most in ((64, 16), (5, 5)):
        engine = Watched(tokenizer, codec, latency=0.002)
        agent = MultiTurnAgent(AgentConfig("stub://"))
        agent.runtime = AgentRuntime(None, codec, engine)
        await collect_groups(agent, TALK, SCENARIOS, one_reward, group_size=8, key="k", max_concurrent=limit)
        assert engine.most == most


async def test_a_failed_episode_leaves_its_group_and_disturbs_nobody():
    class Unlucky(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            if self.key in ("k/x/2", "k/x/5"):
                raise RuntimeError("unlucky")
            return await super().process_turn(history, user_input, context)

    @reward_function
    def by_scenario(turns, context=None):
        if context["scenario_id"] == "y":
            raise OSError("judge is down")
        return 1.0

    agent = stub(agent_class=Unlucky)
    groups = await collect_groups(agent, TALK, SCENARIOS, by_scenario, group_size=8, key="k")
    x, y = groups
    assert [t.key for t in x.trajectories] == [f"k/x/{n}" for n in (0, 1, 3, 4, 6, 7)]
    assert x.rewards == [1.0] * 6
    assert [(t.outcome, t.reward) for t in x.failures] == [(Outcome.AGENT, None)] * 2
    assert (y.trajectories, [t.outcome for t in y.failures]) == ([], [Outcome.REWARD] * 8)
    counts = RolloutCounts.of(groups)
    assert counts == RolloutCounts(
        episodes=16, scored=6, failures={Outcome.AGENT: 2, Outcome.REWARD: 8}, dropped_groups=1
    )
    assert counts.failed == 10
    assert with_baseline(groups) == [x]


def episode(reward=1.0, outcome=Outcome.OK, edited=0):
    return MultiTurnTrajectory("s", reward=reward, outcome=outcome, edited_turns=edited)


def test_two_scored_episodes_make_a_baseline_and_one_does_not():
    lost = episode(None, Outcome.USER)
    two, one = TrajectoryGroup.of("s", [episode(), episode(0.0), lost]), TrajectoryGroup.of("s", [episode(), lost])
    assert with_baseline([one, two]) == [two]
    assert RolloutCounts.of([one, two]).dropped_groups == 1


def test_truncated_and_unscored_episodes_are_counted_apart_from_failures():
    group = TrajectoryGroup.of(
        "s",
        [episode(outcome=Outcome.TRUNCATED), episode(None), episode(edited=2), episode(None, Outcome.USER, edited=1)],
    )
    assert RolloutCounts.of([group]) == RolloutCounts(
        episodes=4, scored=2, truncated=1, unscored=1, failures={Outcome.USER: 1}, edited_turns=3
    )
    assert RolloutCounts.of([]) == RolloutCounts()


async def test_each_episode_is_told_as_it_ends():
    told = []

    async def later(episode):
        await asyncio.sleep(0)
        told.append(episode.key)

    await collect_groups(stub(), TALK, SCENARIOS, one_reward, group_size=2, key="k", on_episode=later)
    now = []
    await collect_groups(
        stub(), TALK, SCENARIOS, one_reward, group_size=2, key="k", on_episode=lambda e: now.append(e.key)
    )
    assert sorted(told) == sorted(now) == ["k/x/0", "k/x/1", "k/y/0", "k/y/1"]


async def test_an_engine_that_breaks_stops_everything_and_leaves_no_session():
    agent = stub(faults={5: "raise", 0: "hang"})
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(collect_groups(agent, TALK, SCENARIOS, one_reward, group_size=4, key="k"), 5)
    assert agent.runtime.engine.sessions == set()
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_cancelling_a_collection_cancels_all_and_leaves_no_session():
    agent = stub(faults=dict.fromkeys(range(4), "hang"))
    collection = asyncio.create_task(collect_groups(agent, TALK, SCENARIOS, one_reward, group_size=2, key="k"))
    await asyncio.sleep(0.05)
    assert len(agent.runtime.engine.sessions) == 4
    collection.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collection
    assert agent.runtime.engine.sessions == set()
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


@pytest.mark.parametrize("sizes", [{"group_size": 0}, {"group_size": 2, "max_concurrent": 0}])
async def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="must be >= 1"):
        await collect_groups(stub(), TALK, SCENARIOS, one_reward, key="k", **sizes)


async def test_an_episode_has_the_same_tokens_alone_and_among_others():
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=6, temperature=1.0)
    agent.training_sampling = True
    together = await collect_groups(agent, TALK, SCENARIOS, one_reward, group_size=4, key="k")
    alone = await collect_groups(agent, TALK, SCENARIOS[1:], one_reward, group_size=1, key="k")
    await agent.aclose()
    one, same = together[1].trajectories[0], alone[0].trajectories[0]
    assert one.key == same.key == "k/y/0"
    assert [row.to_dict() for row in one.rows] == [row.to_dict() for row in same.rows]
    assert len({tuple(t.rows[0].ids) for t in together[1].trajectories}) == 4
