"""`environment.user` of a config, up to the environment that talks with it."""

import json

import pytest

from stateset_agents.agents import LocalChat
from stateset_agents.config import load_config
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ConfigError, DataError, ModelError
from stateset_agents.core.users import ScriptedUser
from stateset_agents.environments import MixedUser, ModelUser
from stateset_agents.training.from_config import build_environment, build_eval_environment

MODULE = """
from stateset_agents.core.environment import ConversationEnvironment, Environment


class Talk(ConversationEnvironment):
    pass


class World(Environment):
    async def step(self, state, action):
        return state, None, 0.0, True
"""


@pytest.fixture
def build(tmp_path):
    """The config and environment of an `environment` section over scenarios without lines."""
    (tmp_path / "silent.json").write_text(json.dumps([{"id": "a", "topic": "returns"}, {"id": "b"}]))
    module = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(MODULE)

    def load(environment, **training):
        agent = {"model_name": "tiny", "dtype": "float32", "device": "cpu"}
        section = {"scenarios_file": "silent.json", **environment}
        if "class" in section:
            section["class"] = section["class"].replace("mine.", f"{module}.")
        (tmp_path / "run.json").write_text(
            json.dumps({"agent": agent, "environment": section, "training": {"num_generations": 2, **training}})
        )
        return load_config(tmp_path / "run.json", environ={})

    return load


PLAYED = {"type": "model", "temperature": 0.2, "max_tokens": 9, "seed": 4, "max_turns": 2, "done_marker": "BYE"}
DESCRIBED = {"kind": "local", "model": "tiny", "repeatable": True, **PLAYED}


def test_a_model_user_has_every_setting_and_is_by_default_a_frozen_copy_of_the_agent(build):
    environment = build_environment(build({"user": PLAYED, "persona": "Ada", "max_turns": 3}))
    assert isinstance(environment.user, ModelUser)
    assert (environment.persona, environment.max_turns) == ("Ada", 3)
    assert environment.describe_user() == DESCRIBED
    assert environment.unused() == []
    named = build_environment(build({"user": {**PLAYED, "model_name": "stub://Hi"}}))
    assert named.describe_user()["model"] == "stub://Hi"


def test_the_users_of_training_and_evaluation_share_one_model(build):
    config = build({"user": PLAYED}, eval_scenarios_file="silent.json")
    users = [build_environment(config).user, build_eval_environment(config).user]
    assert len({id(user.model._runtime) for user in users}) == 1
    assert all(isinstance(user.model, LocalChat) for user in users)


def test_a_mixture_checks_the_scenarios_of_its_scripted_member(build):
    members = [{"share": 1, "type": "scripted"}, {"share": 1, **PLAYED}]
    environment = {"user": {"type": "mixture", "users": members}}
    with pytest.raises(DataError, match=r"of the scripted user.* has no user turns"):
        build_environment(build(environment))
    members = [{"share": 1, **PLAYED}, {"share": 3, **PLAYED, "seed": 5}]
    mixed = build_environment(build({"user": {"type": "mixture", "seed": 2, "users": members}}))
    assert isinstance(mixed.user, MixedUser)
    assert mixed.describe_user() == {
        "type": "mixture",
        "seed": 2,
        "users": [{**DESCRIBED, "share": 0.25}, {**DESCRIBED, "seed": 5, "share": 0.75}],
    }


def test_without_a_model_every_scenario_needs_lines(build):
    for user in (None, {"type": "scripted"}, {"type": "mixture", "users": [{"share": 1, "type": "scripted"}]}):
        with pytest.raises(DataError, match=r"silent\.json: scenarios\[0\] \(id 'a'\) has no user turns"):
            build_environment(build({} if user is None else {"user": user}))
    scenarios = [{"user_responses": ["Hi"]}]
    environment = build_environment(build({"scenarios": scenarios, "scenarios_file": None}))
    assert isinstance(environment.user, ScriptedUser)


def test_what_cannot_be_asked_is_told_before_the_run(build, monkeypatch):
    with pytest.raises(ModelError, match=r"environment\.user: .*no-such-model"):
        build_environment(build({"user": {"type": "model", "model_name": "./no-such-model"}}))
    endpoint = {"type": "endpoint", "base_url": "http://127.0.0.1:1/v1", "model_name": "m"}
    with pytest.raises(ConfigError, match=r"run\.json, line 1: environment\.user: base_url names"):
        build_environment(build({"user": {**endpoint, "base_url": "http://169.254.169.254/v1"}}))
    monkeypatch.delenv("USER_KEY", raising=False)
    with pytest.raises(ConfigError, match="USER_KEY"):
        build_environment(build({"user": {**endpoint, "api_key_env": "USER_KEY"}}))
    monkeypatch.setenv("USER_KEY", "very-secret")
    config = build({"user": {**endpoint, "api_key_env": "USER_KEY"}})
    user = build_environment(config).describe_user()
    assert (user["kind"], user["model"], user["temperature"], user["repeatable"]) == ("endpoint", "m", 0.7, False)
    assert "very-secret" not in repr(user) + config.to_yaml()


def test_a_class_of_ones_own_gets_the_user_if_it_takes_one(build):
    own = build_environment(
        build({"type": "custom", "class": "mine.Talk", "user": {**PLAYED, "model_name": "stub://Hi"}})
    )
    assert type(own).__name__ == "Talk"
    assert own.describe_user()["model"] == "stub://Hi"
    with pytest.raises(ConfigError, match=r"environment\.user is set, but World takes no user"):
        build_environment(build({"type": "custom", "class": "mine.World", "user": PLAYED}))


async def test_a_server_plays_the_user_and_its_errors_are_the_users(endpoint_server, build):
    from endpoint_server import MALFORMED, says

    server = endpoint_server(lambda number, body: says("Where is it?") if number == 0 else MALFORMED)
    user = {"type": "endpoint", "base_url": server.base_url, "model_name": "m"}
    environment = build_environment(build({"user": user}))
    assert isinstance(environment, ConversationEnvironment)
    assert await environment.get_initial_prompt() == "Where is it?"
    asked = server.bodies[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m", 0.7, 128)
    assert "What it is about: returns" in asked["messages"][0]["content"]
