"""Recorded conversations become scenarios, and what cannot be read so is refused with its place."""

import json

import pytest

from stateset_agents.core.errors import DataError
from stateset_agents.training.trl.data import scenarios_of


def said(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]}


def test_the_users_messages_become_the_script_and_the_last_answer_the_ground_truth():
    (scenario,) = scenarios_of([said("s:Be brief.", "u:Hi", "a:Hello", "u:Price?", "a:$5")])
    assert scenario.id == "conversation-0"
    assert scenario.user_responses == ("Hi", "Price?")
    assert scenario.agent_context == "Be brief."
    assert scenario.ground_truth == "$5"


def test_a_conversation_that_ends_with_a_question_has_no_ground_truth():
    (scenario,) = scenarios_of([said("u:Hi", "a:Hello", "u:Price?")])
    assert scenario.ground_truth is None


def test_a_file_and_a_list_of_the_same_records_are_the_same(tmp_path):
    records = [said("u:Hello", "a:Hi there!"), said("u:Help me", "a:I'd be happy to help!")]
    file = tmp_path / "train.jsonl"
    file.write_text("\ufeff" + "\r\n".join(json.dumps(record) for record in records) + "\n\n", encoding="utf-8")
    assert scenarios_of(file) == scenarios_of(str(file)) == scenarios_of(records)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ("[]", "line 2 is []; it must be"),
        ('{"text": "Hi"}', "line 2 has the unknown key 'text'"),
        ('{"messages": []}', "line 2: messages is []"),
        ('{"messages": "Hi"}', "line 2: messages is 'Hi'"),
        ('{"messages": ["Hi"]}', "line 2: messages[0] is 'Hi'"),
        ('{"messages": [{"role": "user"}]}', "messages[0] is {'role': 'user'}"),
        ('{"messages": [{"role": "user", "content": "Hi", "name": "x"}]}', "and nothing else"),
        ('{"messages": [{"role": "tool", "content": "Hi"}]}', "messages[0].role is 'tool'"),
        ('{"messages": [{"role": "user", "content": " "}]}', "messages[0].content is ' '"),
        ('{"messages": [{"role": "user", "content": 5}]}', "messages[0].content is 5"),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', "half of a surrogate pair"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "nobody says anything"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}]}',
            "messages[0].role is 'assistant', where 'user' is due",
        ),
        (
            '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "a"}, '
            '{"role": "user", "content": "b"}]}',
            "messages[2].role is 'user', where 'assistant' is due",
        ),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path, line, words):
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(said("u:Hello")) + "\n" + line + "\n")
    with pytest.raises(DataError) as caught:
        scenarios_of(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_every_malformed_record_is_told_at_once_and_a_wrong_file_does_not_flood_the_terminal():
    with pytest.raises(DataError) as caught:
        scenarios_of([{"messages": []}, said("u:Hi"), 7])
    assert str(caught.value).splitlines()[0].startswith("train_data[0]: messages is []")
    assert str(caught.value).splitlines()[1].startswith("train_data[2] is 7")
    with pytest.raises(DataError) as caught:
        scenarios_of([7] * 1000)
    assert str(caught.value).splitlines()[-1] == "... and 980 more"


@pytest.mark.parametrize("data", [[], {"messages": []}, 5])
def test_no_data_and_data_of_another_kind_are_refused(data):
    with pytest.raises(DataError, match="train_data"):
        scenarios_of(data)


def test_a_missing_file_is_named_with_the_place_that_was_looked_at(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        scenarios_of(tmp_path / "nowhere.jsonl")
