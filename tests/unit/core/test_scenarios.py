import json

import pytest

from stateset_agents.core.errors import DataError
from stateset_agents.core.scenario import Scenario, as_scenarios, load_scenarios, require_user_turns

DOCUMENTED = {
    "id": "customer_inquiry_1",
    "type": "product_question",
    "context": "Customer interested in product features",
    "metadata": {"difficulty": "easy", "category": "sales", "expected_turns": 5},
    "initial_state": {"user_goal": "Learn about product X", "user_knowledge": "beginner"},
    "user_responses": ["Hi, I'm interested in your new product.", "What's the price?"],
    "success_criteria": {"information_provided": ["features", "pricing"], "user_satisfaction": "high"},
}


def problems(data, **options):
    with pytest.raises(DataError) as caught:
        Scenario.from_dict(data, "scenarios[3]", "scenario-3", **options)
    return str(caught.value).splitlines()


def test_the_documented_scenario_is_read_whole_and_written_back_as_it_was():
    scenario = Scenario.from_dict(DOCUMENTED)
    assert scenario.topics == ["features", "pricing"]
    assert scenario.expected_turns == 5
    assert scenario.to_dict() == DOCUMENTED
    assert Scenario.from_dict(json.loads(json.dumps(scenario.to_dict()))) == scenario


def test_a_scenario_reads_like_the_mapping_it_came_from():
    scenario = Scenario.from_dict({"topic": "refunds", "user_responses": ["Hi"]}, default_id="scenario-0")
    assert scenario["topic"] == "refunds"
    assert scenario.get("context", "none given") == "none given"
    assert scenario["id"] == "scenario-0"
    assert scenario.topics == []
    assert scenario.expected_turns is None


def test_a_typo_in_a_key_is_refused_with_the_key_that_was_meant():
    (line,) = problems({"user_response": ["Hi"]})
    assert line.startswith(
        "scenarios[3] has the unknown key 'user_response'; did you mean 'user_responses'? Known: id,"
    )
    (line,) = problems({"success_criteria": {"information_provide": ["a"]}})
    assert "scenarios[3].success_criteria has the unknown key 'information_provide'; did you mean" in line


def test_a_custom_environment_may_have_keys_of_its_own():
    scenario = Scenario.from_dict({"seed": 7, "user_responses": ["Hi"]}, strict=False)
    assert scenario.extra == {"seed": 7}
    assert scenario["seed"] == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["Hi"], "scenarios[3] is a list; a scenario is a mapping"),
        ({"id": ""}, "scenarios[3].id is ''"),
        ({"id": True}, "scenarios[3].id is True"),
        ({"topic": 5}, "scenarios[3].topic is a number (5); it must be text"),
        ({"metadata": [1]}, "scenarios[3].metadata is a list; it must be a mapping"),
        ({"user_responses": "Hi"}, "scenarios[3].user_responses is text ('Hi'); it must be a list of texts"),
        ({"user_responses": ["Hi", 5]}, "scenarios[3].user_responses[1] is a number (5)"),
        ({"user_responses": ["  "]}, "scenarios[3].user_responses[0] is empty"),
        ({"ground_truth": [None]}, "scenarios[3].ground_truth[0] is nothing"),
        (
            {"facts": {"price": 49}},
            "scenarios[3].facts.price holds a number (49); it must be text, so put it in quotes",
        ),
        ({"facts": {"price": []}}, "scenarios[3].facts.price is an empty list"),
        ({"facts": {"price": ["$49", "?!"]}}, "scenarios[3].facts.price is '?!', which no text can state"),
        ({"success_criteria": {"information_provided": "price"}}, "it must be a list of topics"),
        (
            {"facts": {"pricing": "$49"}, "success_criteria": {"information_provided": ["prices"]}},
            "asks for 'prices', for which facts has no entry; did you mean 'pricing'?",
        ),
        ({"metadata": {"expected_turns": 0}}, "scenarios[3].metadata.expected_turns is 0"),
        ({"metadata": {"expected_turns": "5"}}, "scenarios[3].metadata.expected_turns is '5'"),
    ],
)
def test_a_malformed_scenario_is_named_with_place_value_and_fix(data, message):
    assert message in "\n".join(problems(data))


def test_all_problems_of_a_scenario_are_reported_at_once():
    assert len(problems({"topic": 1, "facts": 2, "user_responses": 3, "no_such": 4})) == 4


def test_a_number_is_a_fine_id_and_several_wordings_are_a_fine_fact():
    scenario = Scenario.from_dict({"id": 12, "facts": {"trial": ["14 days", "two weeks"]}, "ground_truth": ["a", "b"]})
    assert scenario.id == "12"
    assert scenario.ground_truth == ("a", "b")
    assert scenario.to_dict()["ground_truth"] == ["a", "b"]


def test_repeated_ids_are_named_with_both_places():
    with pytest.raises(DataError, match=r"scenarios\[1\].id is 'a', which scenarios\[0\] has already"):
        as_scenarios([{"id": "a"}, {"id": "a"}])


def test_default_ids_follow_the_place_in_the_list():
    assert [s.id for s in as_scenarios([{"topic": "x"}, Scenario("b"), {}])] == ["scenario-0", "b", "scenario-2"]


@pytest.mark.parametrize("entries", ["Hi", {"a": 1}, 5])
def test_what_is_no_list_of_scenarios_is_refused(entries):
    with pytest.raises(DataError, match="it must be a list of scenarios"):
        as_scenarios(entries)


def test_problems_of_several_entries_are_reported_together():
    with pytest.raises(DataError) as caught:
        as_scenarios([{"topic": 1}, {"id": "fine"}, {"topik": "x"}])
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["scenarios[0].topic", "scenarios[2]"]


def test_a_scripted_user_needs_a_script():
    with pytest.raises(DataError, match=r"scenarios\[1\] \(id 'silent'\) has no user turns; add user_responses"):
        require_user_turns([Scenario("a", ("Hi",)), Scenario("silent")])
    with pytest.raises(DataError, match="scenarios is empty"):
        require_user_turns([])


@pytest.mark.parametrize("name", ["s.json", "s.yaml", "s.yml"])
def test_a_file_may_be_json_or_yaml_and_wrapped_or_bare(tmp_path, name):
    file = tmp_path / name
    file.write_text(json.dumps({"scenarios": [DOCUMENTED]}))
    wrapped = load_scenarios(file)
    file.write_text(json.dumps([DOCUMENTED]))
    assert load_scenarios(str(file)) == wrapped == [Scenario.from_dict(DOCUMENTED)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", '[\n{"id": "a",\n}]', "s.json, line 3: not valid JSON: "),
        ("s.json", '[{"id": "a", "id": "b"}]', "s.json: the key 'id' appears twice"),
        ("s.yaml", "- id: a\n  id: b\n", "s.yaml, line 2: 0.id is given twice"),
        ("s.yaml", "- id: [a\n- b: 1\n", "s.yaml, line 2: not valid YAML: "),
        (
            "s.yaml",
            "- !!python/object/apply:os.system ['true']\n",
            "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("s.yaml", "- id: a\x00b\n", "s.yaml, line 1: not valid YAML: "),
        ("s.json", "  \n", "s.json is empty"),
        ("s.json", "5", "s.json holds a number; it must be"),
        ("s.json", '{"scenarios": {}}', "s.json holds a mapping; it must be"),
        ("s.json", '{"scenario": []}', "has the unknown key 'scenario'; did you mean 'scenarios'?"),
        ("s.json", "[]", "s.json: scenarios is empty"),
        ("s.json", '[{"id": "a"}]', "s.json: scenarios[0] (id 'a') has no user turns"),
        ("s.json", '[{"user_responses": [1]}]', "s.json: scenarios[0].user_responses[0] is a number"),
    ],
)
def test_a_bad_file_is_named_with_entry_or_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        load_scenarios(tmp_path / name)
    assert message in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none.json does not exist \(looked in "):
        load_scenarios(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_scenarios(tmp_path)
    (tmp_path / "b.json").write_bytes(b"[\xff]")
    with pytest.raises(DataError, match=r"is not UTF-8 text \(byte 1\)"):
        load_scenarios(tmp_path / "b.json")
    (tmp_path / "c.json").write_text(r'[{"id": "a", "user_responses": ["Hi", "x \ud83d"]}]')
    with pytest.raises(DataError, match=r"c.json: \[0\].user_responses\[1\] holds half of a surrogate pair"):
        load_scenarios(tmp_path / "c.json")


def test_yaml_values_are_what_they_look_like(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("- {id: 012, topic: no, context: 12:30, user_responses: [yes, 2024-01-15, 'Bye']}\n")
    (scenario,) = load_scenarios(path)
    assert (scenario.id, scenario.topic, scenario.context) == ("012", "no", "12:30")
    assert scenario.user_responses == ("yes", "2024-01-15", "Bye")


def test_a_large_yaml_file_is_read_whole(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("".join(f"- {{id: s{i}, user_responses: [a, b, c, d]}}\n" for i in range(4000)))
    assert len(load_scenarios(path)) == 4000


def test_a_file_for_users_that_a_model_plays_needs_no_lines(tmp_path):
    file = tmp_path / "scenarios.json"
    file.write_text('[{"id": "a", "topic": "returns"}]')
    assert [scenario.id for scenario in load_scenarios(file, user_turns=False)] == ["a"]
    with pytest.raises(DataError, match="has no user turns"):
        load_scenarios(file)
