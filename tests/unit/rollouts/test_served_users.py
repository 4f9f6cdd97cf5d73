"""Real conversations of a tiny agent with a user behind a real server that misbehaves."""

from endpoint_server import BROKEN, BUSY, CUT, MALFORMED, says
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
