import json

import pytest

from stateset_agents.agents import (
    AgentConfig,
    MultiTurnAgent,
    agent_from_record,
    agent_record,
    load_agent_from_checkpoint,
)
from stateset_agents.core.errors import CheckpointError, ConfigError

CONFIG = AgentConfig("stub://Hello there", system_prompt="Be kind.", temperature=0.3, memory_window=6)


class Custom(MultiTurnAgent):
    """As the documents write one: built from a model name."""

    def __init__(self, model_name):
        super().__init__(AgentConfig(model_name=model_name, system_prompt="Custom system prompt..."))
        self.custom_state = {}


class Specialized(MultiTurnAgent):
    def __init__(self, domain_knowledge, config):
        super().__init__(config)
        self.knowledge = domain_knowledge


def through_json(agent):
    return json.loads(json.dumps(agent_record(agent)))


def test_a_record_makes_the_same_agent_again():
    record = through_json(MultiTurnAgent(CONFIG))
    assert record["class"] == "MultiTurnAgent"
    assert agent_from_record(record).config == CONFIG


def test_an_agent_made_from_a_name_keeps_what_was_recorded():
    agent = agent_from_record(through_json(MultiTurnAgent(CONFIG)), Custom)
    assert isinstance(agent, Custom)
    assert agent.config == CONFIG
    assert agent.custom_state == {}


def test_an_agent_that_needs_more_is_made_by_a_function():
    record = through_json(MultiTurnAgent(CONFIG))
    agent = agent_from_record(record, lambda config: Specialized({"price": 4}, config))
    assert (agent.knowledge, agent.config) == ({"price": 4}, CONFIG)
    with pytest.raises(ConfigError, match=r"pass a function that does it: agent_class=lambda config: Specialized"):
        agent_from_record(record, Specialized)
    with pytest.raises(ConfigError, match="which is no MultiTurnAgent"):
        agent_from_record(record, lambda config: config)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "holds no config"),
        ({"config": 1}, "holds no config"),
        ({"config": {"model_name": "tiny", "warmth": 1}}, "config.warmth is unknown to this version; known: "),
        ({"config": {"model_name": "tiny", "top_p": 7}}, "top_p is 7"),
    ],
)
def test_a_malformed_record_is_a_checkpoint_error(record, message):
    with pytest.raises(CheckpointError, match=message):
        agent_from_record(record)


def checkpoint(folder, agent, parts=None):
    from stateset_agents.checkpoints import write_checkpoint

    return write_checkpoint(folder, records={"agent": agent_record(agent)}, parts=parts or {})


async def test_a_stub_is_loaded_from_its_record_alone(tmp_path):
    checkpoint(tmp_path / "final_model", MultiTurnAgent(CONFIG))
    agent = await load_agent_from_checkpoint(tmp_path, agent_class=Custom)
    assert agent.initialized
    assert agent.config == CONFIG
    assert await agent.generate_response([{"role": "user", "content": "Hi"}]) == "Hello there"


@pytest.mark.parametrize("place", [".", "model"])
async def test_trained_weights_come_from_the_checkpoint_and_not_from_the_recorded_name(tmp_path, place):
    from stateset_agents.models import load_model, save_model_folder

    loaded = load_model("tiny")
    loaded.model.get_input_embeddings().weight.data[5] = 0.25
    trained = MultiTurnAgent.from_model("tiny", temperature=0.0)
    checkpoint(tmp_path / "save_path", trained, {place: lambda path: save_model_folder(loaded, path)})
    agent = await load_agent_from_checkpoint(str(tmp_path / "save_path"), agent_class=MultiTurnAgent)
    assert agent.config == trained.config
    assert agent.runtime.model.model.get_input_embeddings().weight[5].eq(0.25).all()
    assert agent.fork("k").runtime is agent.runtime
    await agent.aclose()


async def test_a_checkpoint_without_a_model_never_falls_back_to_the_recorded_name(tmp_path):
    checkpoint(tmp_path / "c", MultiTurnAgent.from_model("tiny"))
    with pytest.raises(CheckpointError, match=r"holds no model: neither config.json nor model/config.json"):
        await load_agent_from_checkpoint(tmp_path / "c")


async def test_a_checkpoint_without_a_record_is_named(tmp_path):
    from stateset_agents.checkpoints import write_checkpoint

    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        await load_agent_from_checkpoint(tmp_path / "nowhere")
    write_checkpoint(tmp_path / "c", records={"other": 1})
    with pytest.raises(CheckpointError, match=r"agent.json cannot be read \(No such file"):
        await load_agent_from_checkpoint(tmp_path / "c")
    write_checkpoint(tmp_path / "d", parts={".": lambda path: (path / "agent.json").write_text("{")})
    with pytest.raises(CheckpointError, match=r"agent.json is no valid JSON"):
        await load_agent_from_checkpoint(tmp_path / "d")


def test_the_machine_that_trained_decides_nothing_about_the_one_that_loads():
    config = AgentConfig("stub://", device="cuda:3", trust_remote_code=True)
    record = through_json(MultiTurnAgent(config))
    assert not {"device", "trust_remote_code"} & set(record["config"])
    record["config"] |= {"device": "cuda:3", "trust_remote_code": True}
    assert agent_from_record(record).config == AgentConfig("stub://")
    assert agent_from_record(record, device="cpu").config.device == "cpu"


async def test_the_caller_chooses_the_device(tmp_path):
    checkpoint(tmp_path / "final_model", MultiTurnAgent(CONFIG))
    assert (await load_agent_from_checkpoint(tmp_path, device="cpu")).config.device == "cpu"
