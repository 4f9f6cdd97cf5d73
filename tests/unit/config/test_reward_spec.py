"""An entry of `rewards` is checked by the section of its type."""

import textwrap

import pytest
from pydantic import ValidationError, create_model

from stateset_agents.config import load_config
from stateset_agents.config.reward_spec import REWARD_SPECS, RewardSpec, option_fields
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import KINDS, Option, RewardKind


def load(folder, rewards):
    (folder / "scenarios.json").write_text('[{"id": "a", "user_responses": ["Hi"]}]', encoding="utf-8")
    (folder / "truth.json").write_text('{"ground_truth": {"a": "Paris"}}', encoding="utf-8")
    text = "agent: {model_name: tiny}\nenvironment: {scenarios_file: scenarios.json}\nrewards:\n"
    (folder / "run.yaml").write_text(text + textwrap.indent(rewards, "  "), encoding="utf-8")
    return load_config(folder / "run.yaml")


def test_every_reward_has_a_section_with_its_keys():
    assert list(REWARD_SPECS) == list(KINDS)
    for name, section in REWARD_SPECS.items():
        assert section.model_fields.keys() == {"type", "weight", "name", *KINDS[name].options}


def test_an_entry_keeps_its_options_and_survives_being_written_and_read(tmp_path):
    config = load(tmp_path, "- {type: conciseness, weight: 0.5, optimal_length: 30}\n- {type: custom, module: a.b}\n")
    assert [type(entry) for entry in config.rewards] == [REWARD_SPECS["conciseness"], REWARD_SPECS["custom"]]
    assert config.to_dict()["rewards"] == [
        {"type": "conciseness", "weight": 0.5, "optimal_length": 30},
        {"type": "custom", "module": "a.b"},
    ]
    (tmp_path / "again.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml").rewards == config.rewards


def test_a_file_that_an_entry_names_is_found_beside_the_config(tmp_path):
    (entry,) = load(tmp_path, "- {type: correctness, ground_truth_file: truth.json}\n").rewards
    assert entry.files == {"ground_truth_file": str(tmp_path / "truth.json")}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "{type: conciseness, optimal_lenght: 5}",
            'rewards[0].optimal_lenght is not a known key.\n  did you mean "opt',
        ),
        ("{type: conciseness, optimal_length: 0}", "rewards[0].optimal_length is 0; it must be at least 1"),
        ("{type: conciseness, optimal_length: true}", "rewards[0].optimal_length is true: want a number"),
        ("{type: safety, reward_type: imediate}", 'did you mean "immediate"?  allowed: immediate, dense, cumulative'),
        (
            "{type: safety, optimal_length: 5}",
            'optimal_length is for the reward "conciseness"; known keys: type',
        ),
        ("{type: safty, anything: 5}", 'rewards[0].type is "safty", which does not exist.\n  did you mean "safety"?'),
        ("{type: [safety]}", "rewards[0].type is "),
        ("{weight: 1, optimal_length: 3}", "rewards[0].type is missing"),
        ("{type: custom}", 'a reward of type "custom" needs "module: my_rewards.my_reward"'),
        ("safety", "rewards[0] is "),
    ],
)
def test_an_entry_that_does_not_fit_its_type_is_one_problem_with_the_fix(tmp_path, entry, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"- {entry}\n")
    (problem,) = caught.value.problems
    assert problem.startswith("config error in run.yaml, line 4: ")
    assert message in problem


def test_a_weight_that_is_left_out_is_one_but_a_custom_rewards_own():
    assert RewardSpec.model_validate({"type": "safety"}).weight == 1.0
    assert RewardSpec.model_validate({"type": "safety", "weight": 0.5}).weight == 0.5
    assert RewardSpec.model_validate({"type": "custom", "module": "a.b"}).weight is None


def test_an_option_may_have_limits_and_a_check_of_its_own(monkeypatch):
    """Mutation: the check is never asked, or its message repeats the value."""
    options = {
        "seconds": Option(float, "of one request", above=0),
        "api_key_env": Option(str, "name of a variable", check=str.isupper, wanted="a name in capitals"),
    }
    monkeypatch.setitem(KINDS, "probe", RewardKind("core.rewards.safety.SafetyReward", options))
    section = create_model("Probe", __base__=RewardSpec, type=(str, ...), **option_fields(options))
    assert section(type="probe", seconds=0.5, api_key_env="KEY").api_key_env == "KEY"
    assert section(type="probe").seconds is None
    with pytest.raises(ValidationError, match="greater than 0"):
        section(type="probe", seconds=0)
    with pytest.raises(ValidationError, match="api_key_env must be a name in capitals") as caught:
        section(type="probe", api_key_env="canary")
    assert "canary" not in str(caught.value)
