"""Real conversations of a tiny agent with a user behind a real server that misbehaves."""

import time

import pytest

from endpoint_server import BROKEN, BUSY, CUT, HANG, MALFORMED, says
from stateset_agents.agents import AgentConfig, MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.scenario import Scenario
from stateset_agents.engines.breaker import Breaker
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.environments import ModelUser
from stateset_agents.rollouts import RolloutCounts, collect_groups

SCENARIOS = [Scenario(name, ("Hi",)) for name in ("a", "b")]
FAULTS = (BROKEN, MALFORMED, CUT, says(""))


async def test_errors_of_a_server_that_plays_the_user_leave_the_right_number_of_valid_samples(endpoint_server):
    """Every fourth question, told by its seed, is never answered well; every seventh request is told to come again.

    Mutation: in core/environment.py an answer that failed taken as None, a user that leaves: fails at the counts.
    """
    hopeless = {}

    def behaviour(number, body):
        seed = body["seed"]
        if seed % 4 == 0:
            return hopeless.setdefault(seed, FAULTS[len(hopeless) % len(FAULTS)])
        return BUSY if number % 7 == 3 else "Tell me more."

    server = endpoint_server(behaviour)
    endpoint = Endpoint(server.base_url, "m", retries=6, first_wait=0.001, breaker=Breaker(window=1000, min_calls=1000))
    environment = ConversationEnvironment(SCENARIOS, max_turns=3, user=ModelUser(endpoint))
    agent = MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu", temperature=1.0, max_new_tokens=6))
    groups = await collect_groups(agent, environment, SCENARIOS, None, group_size=12, key="k")
    counts = RolloutCounts.of(groups)
    assert len(hopeless) > len(FAULTS)
    assert counts.failures == {Outcome.USER: len(hopeless)}
    assert counts.scored == 24 - len(hopeless)
    assert all(episode.length == 3 for group in groups for episode in group.trajectories)
    assert all(episode.error.startswith("step: ChatFailed: m at ") for g in groups for episode in g.failures)


async def test_a_dead_server_fails_every_conversation_soon(endpoint_server):
    server = endpoint_server(lambda number, body: BROKEN)
    endpoint = Endpoint(server.base_url, "m", retries=0, breaker=Breaker(window=3, min_calls=3))
    environment = ConversationEnvironment(SCENARIOS, max_turns=3, user=ModelUser(endpoint))
    agent = MultiTurnAgent(AgentConfig("stub://Hello"))
    groups = await collect_groups(agent, environment, SCENARIOS, None, group_size=8, key="k", max_concurrent=1)
    assert RolloutCounts.of(groups).failures == {Outcome.USER: 16}
    assert server.count == 3  # then the circuit breaker answers


@pytest.mark.parametrize("hang", [HANG, says("never read", pause=0.2)])
async def test_a_server_that_hangs_costs_a_conversation_and_no_more_than_the_limit_of_a_request(endpoint_server, hang):
    """Every third question, told by its seed, is answered never or byte by byte. The others are scored.

    Mutation: a request without a limit: the run never ends.
    """
    hanging = set()

    def behaviour(number, body):
        if body["seed"] % 3 == 0:
            hanging.add(body["seed"])
            return hang
        return "Tell me more."

    server = endpoint_server(behaviour)
    breaker = Breaker(window=1000, min_calls=1000)
    endpoint = Endpoint(server.base_url, "m", seconds=0.5, retries=1, first_wait=0.001, concurrency=32, breaker=breaker)
    environment = ConversationEnvironment(SCENARIOS, max_turns=2, user=ModelUser(endpoint))
    agent = MultiTurnAgent(AgentConfig("tiny", dtype="float32", device="cpu", temperature=1.0, max_new_tokens=6))
    await agent.initialize()
    begun = time.monotonic()
    groups = await collect_groups(agent, environment, SCENARIOS, None, group_size=8, key="k", max_concurrent=16)
    spent = time.monotonic() - begun
    counts = RolloutCounts.of(groups)
    assert 0 < len(hanging) < 16
    assert counts.failures == {Outcome.USER: len(hanging)}
    assert counts.scored == 16 - len(hanging)
    assert all(episode.length == 2 for group in groups for episode in group.trajectories)
    assert all("0.5 s" in episode.error for group in groups for episode in group.failures)
    assert spent < 10  # two tries of 0.5 s, all conversations at once; the rest is a busy machine
