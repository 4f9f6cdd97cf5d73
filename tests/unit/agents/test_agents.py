import asyncio
import re
import subprocess
import sys
import threading

import pytest

from stateset_agents.agents import Agent, AgentConfig, MultiTurnAgent
from stateset_agents.agents import runtime as runtime_module
from stateset_agents.core.agent import AgentConfig as DocumentedConfig
from stateset_agents.core.errors import ConfigError, ModelError
from stateset_agents.core.trajectory import ConversationTurn

STUB = "stub://Hello there|Second reply"


def test_the_documented_address_holds_the_same_classes():
    assert DocumentedConfig is AgentConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_name", " ", "model_name is ' '"),
        ("system_prompt", 5, "system_prompt is 5; it must be text"),
        ("temperature", -0.1, "temperature is -0.1; it must be a number >= 0"),
        ("temperature", float("nan"), "temperature is nan"),
        ("temperature", "0.7", "temperature is '0.7'"),
        ("max_new_tokens", 0, "max_new_tokens is 0"),
        ("max_new_tokens", 1.5, "max_new_tokens is 1.5"),
        ("top_p", 0.0, r"top_p is 0.0; it must be in \(0, 1\]"),
        ("top_k", -1, "top_k is -1"),
        ("repetition_penalty", 0, "repetition_penalty is 0"),
        ("memory_window", 0, "memory_window is 0"),
        ("memory_window", True, "memory_window is True"),
        ("context_compression", 1, "context_compression is 1; it must be True or False"),
    ],
)
def test_a_setting_that_is_wrong_or_does_nothing_is_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        AgentConfig(**{field: value})


def test_all_wrong_settings_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        AgentConfig(temperature=-1, top_p=2)
    assert len(caught.value.problems) == 2


def test_memory_window_is_also_an_argument_of_the_agent():
    config = AgentConfig(STUB, memory_window=10)
    assert MultiTurnAgent(config).config is config
    assert MultiTurnAgent(config, memory_window=4).config.memory_window == 4
    assert config.memory_window == 10
    assert MultiTurnAgent(config, context_compression=True).config.context_compression
    with pytest.raises(ConfigError, match="memory_window"):
        MultiTurnAgent(config, memory_window=0)


def test_what_is_no_config_is_refused_with_the_way_to_do_it():
    with pytest.raises(ConfigError, match=r"MultiTurnAgent\(config\) got 'tiny'; pass AgentConfig"):
        MultiTurnAgent("tiny")
    known = "AgentConfig has no field 'temprature'; did you mean \"temperature\"? Known: model_name, system_prompt, "
    for make in (MultiTurnAgent.from_model, AgentConfig):
        with pytest.raises(ConfigError, match=re.escape(known)):
            make("tiny", temprature=1)

    class Mine(AgentConfig):
        def __init__(self, mood):
            super().__init__("tiny", system_prompt=mood)

    assert Mine(mood="good").system_prompt == "good"


async def test_initialize_is_optional_and_twice_is_once():
    agent = MultiTurnAgent.from_model(STUB)
    assert not agent.initialized
    with pytest.raises(ModelError, match=r"MultiTurnAgent is not initialized; `await agent.initialize\(\)`"):
        _ = agent.runtime
    assert await agent.generate_response([{"role": "user", "content": "Hello!"}]) == "Hello there"
    first = agent.runtime
    await agent.initialize()
    assert agent.initialized
    assert agent.runtime is first


async def test_agents_and_forks_that_initialize_at_once_load_one_model(monkeypatch):
    loads = []
    real = runtime_module.load_runtime

    def slow(config, weights=None):
        loads.append(threading.get_ident())
        return real(config, weights)

    monkeypatch.setattr(runtime_module, "load_runtime", slow)
    agent = MultiTurnAgent.from_model(STUB)
    fork = agent.fork("k")
    await asyncio.gather(*(each.initialize() for each in (agent, fork, agent.fork("l"), agent)))
    assert len(loads) == 1
    assert loads[0] != threading.get_ident()
    assert fork.runtime is agent.runtime


async def test_two_agents_on_one_name_share_nothing():
    one, two = MultiTurnAgent.from_model("tiny"), MultiTurnAgent.from_model("tiny")
    await asyncio.gather(one.initialize(), two.initialize())
    assert one.runtime.model.model is not two.runtime.model.model
    pointers = [{p.data_ptr() for p in agent.runtime.model.model.parameters()} for agent in (one, two)]
    assert pointers[0].isdisjoint(pointers[1])
    await one.aclose()
    await two.aclose()


async def test_a_closed_agent_loads_again():
    agent = MultiTurnAgent.from_model(STUB)
    await agent.aclose()
    await agent.initialize()
    before = agent.runtime
    await agent.aclose()
    await agent.initialize()
    assert agent.runtime is not before


async def test_an_agent_that_is_closed_while_it_loads_says_so(monkeypatch):
    agent = MultiTurnAgent.from_model(STUB)
    monkeypatch.setattr(agent._runtime, "_load", lambda config: None)
    with pytest.raises(ModelError, match="closed while its model was being loaded"):
        await agent.initialize()


async def test_messages_must_be_messages():
    agent = MultiTurnAgent.from_model(STUB)
    with pytest.raises(ConfigError, match="there are no messages to answer"):
        await agent.generate_response([])
    with pytest.raises(ConfigError, match="a message is 'Hello'; it must be"):
        await agent.generate_response(["Hello"])


class Stateful(MultiTurnAgent):
    shared = ("client",)

    def __init__(self, model_name):
        super().__init__(AgentConfig(model_name=model_name))
        self.custom_state = {"seen": []}
        self.same_state = self.custom_state
        self.myself = self
        self.lock = threading.Lock()
        self.half = [self.custom_state, self.lock]
        self.client = {"connections": []}


def test_a_fork_has_its_own_state_and_shares_what_cannot_or_should_not_be_copied(caplog):
    agent = Stateful(STUB)
    fork = agent.fork("k")
    fork.custom_state["seen"].append(1)
    assert agent.custom_state == {"seen": []}
    assert fork.same_state is fork.custom_state
    assert fork.myself is fork
    assert fork.lock is agent.lock
    agent.fork("another")
    (told,) = [record.getMessage() for record in caplog.records if ".lock cannot be copied" in record.getMessage()]
    assert "so all conversations share it. If that is meant, say so: shared = ('lock',)" in told
    assert fork.half is agent.half
    assert fork.client is agent.client
    assert (fork.key, agent.key) == ("k", "")
    assert type(fork) is Stateful


def test_a_fork_of_a_fork_begins_its_own_episode():
    agent = MultiTurnAgent.from_model(STUB)
    one = agent.fork("a")
    two = one.fork("b")
    assert one._session is not two._session
    assert two._session.key == "b"


class Rule(Agent):
    """An agent without a model that skips `super().__init__()`."""

    async def process_turn(self, history, user_input, context=None):
        return ConversationTurn("assistant", user_input.upper())


async def test_an_agent_may_be_code_alone():
    fork = Rule().fork("k")
    await fork.initialize()
    turn = await fork.process_turn([], "hi")
    assert (turn.content, fork.rows, fork.settle([ConversationTurn("user", "hi"), turn])) == ("HI", [], 1)
    fork.release()


def test_agents_and_rollouts_are_imported_without_torch():
    code = (
        "import sys, stateset_agents.core.agent, stateset_agents.rollouts, stateset_agents.engines.stub\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
