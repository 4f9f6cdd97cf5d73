import pytest

from stateset_agents.config import load_config
from stateset_agents.core.errors import ConfigError

SCENARIOS = "  scenarios: [{user_responses: [Hi]}]\n"


def written(tmp_path, user):
    file = tmp_path / "run.yaml"
    lines = "".join(f"    {line}\n" for line in user.splitlines())
    file.write_text(f"agent: {{model_name: tiny}}\nenvironment:\n{SCENARIOS}  user:\n{lines}")
    return file


def load(tmp_path, user):
    return load_config(written(tmp_path, user))


def test_what_a_played_user_has_by_default_is_in_the_resolved_config(tmp_path):
    config = load(tmp_path, "type: model\ntemperature: 0")
    expected = {"type": "model", "temperature": 0.0, "max_tokens": 128, "seed": 0, "done_marker": "[DONE]"}
    assert config.to_dict()["environment"]["user"] == expected
    assert config.origin("environment.user.temperature") == "run.yaml:6"
    assert config.origin("environment.user.seed") == "default"
    again = tmp_path / "resolved.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again).environment == config.environment
    assert load(tmp_path, "type: scripted").to_dict()["environment"]["user"] == {"type": "scripted"}


def test_a_mixture_has_users_with_shares(tmp_path):
    config = load(
        tmp_path,
        "type: mixture\n"
        "users:\n"
        "  - {share: 0.7, type: scripted}\n"
        "  - {share: 0.3, type: endpoint, base_url: 'http://127.0.0.1:8000/v1', model_name: m, api_key_env: USER_KEY}",
    )
    user = config.environment.user
    assert (user.seed, user.scripted) == (0, False)
    assert [(member.share, member.type, member.temperature) for member in user.users] == [
        (0.7, "scripted", None),
        (0.3, "endpoint", 0.7),
    ]
    assert load(tmp_path, "type: mixture\nusers: [{share: 1, type: scripted}]").environment.user.scripted


WRONG = [
    ("model_name: tiny", "environment.user.type is missing"),
    ("type: robot", 'environment.user.type is "robot", which does not exist.'),
    ("type: model\ntemprature: 1", 'did you mean "temperature"?'),
    ("type: model\ntemperature: -1", "it must be at least 0"),
    ("type: model\ndone_marker: ' '", "environment.user.done_marker"),
    ("type: scripted\ntemperature: 1", 'temperature is for a user of type "model" or "endpoint", but this one is'),
    ("type: model\nbase_url: http://x/v1", 'base_url is for a user of type "endpoint"'),
    ("type: endpoint\nmodel_name: m", 'a user of type "endpoint" needs base_url'),
    ("type: endpoint\nbase_url: http://x/v1", 'a user of type "endpoint" needs model_name'),
    ("type: mixture", 'a user of type "mixture" needs users'),
    ("type: mixture\nusers: []", "want a list that is not empty"),
    ("type: mixture\nusers: [{type: scripted}]", "environment.user.users[0].share is missing"),
    ("type: mixture\nusers: [{share: 1, type: mixture}]", "environment.user.users[0].type"),
    ("type: mixture\nusers: [{share: 1, type: scripted, seed: 1}]", "environment.user.users[0]: seed is for a user"),
    ("type: model\nusers: [{share: 1, type: scripted}]", 'users is for a user of type "mixture"'),
]


@pytest.mark.parametrize(("user", "message"), WRONG)
def test_what_is_wrong_with_a_user_is_told_with_its_place(tmp_path, user, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, user)
    assert message in str(caught.value)
    assert "run.yaml, line " in str(caught.value)


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "type: endpoint\nbase_url: http://x/v1\nmodel_name: m\napi_key_env: sk-abc123")
    assert "in capitals, such as USER_API_KEY, not the key" in str(caught.value)
    assert "sk-abc" not in str(caught.value)
