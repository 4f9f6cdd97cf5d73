"""Whatever a file holds, the user gets its contents or one message with the place and the fix."""

from pathlib import Path

import pytest

from stateset_agents.config.document import MAX_BYTES, read_document
from stateset_agents.core.errors import ConfigError


def message_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    return str(caught.value)


def test_a_missing_file_is_named_in_full_with_its_neighbours(write):
    path = write("a: 1", "other.yaml")
    message = message_of(path.parent / "run.yaml")
    assert f"there is no file {path.parent / 'run.yaml'}" in message
    assert "other.yaml" in message
    assert "scenarios.json" in message


def test_a_missing_file_in_an_empty_folder_says_that_it_is_empty(tmp_path):
    assert "holds no *.yaml" in message_of(tmp_path / "run.yaml")


def test_a_missing_folder_is_named(tmp_path):
    assert f"the folder {tmp_path / 'nowhere'} does not exist" in message_of(tmp_path / "nowhere" / "run.yaml")


def test_a_folder_is_no_config_file(write):
    path = write("a: 1")
    message = message_of(path.parent)
    assert "is a folder" in message
    assert "run.yaml" in message


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_says_what_a_config_needs(write, text):
    message = message_of(write(text))
    assert "run.yaml" in message
    assert "empty" in message
    assert "agent" in message


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_json_file_is_empty_too(write, text):
    assert "empty" in message_of(write(text, "run.json"))


@pytest.mark.parametrize(
    ("text", "found"), [("- a\n- b\n", "a list"), ("hello\n", "a single value"), ("7", "a single value")]
)
def test_a_file_without_sections_at_the_top_is_refused(write, text, found):
    message = message_of(write(text))
    assert f"holds {found} at the top" in message
    assert "agent, environment" in message


def test_a_binary_file_is_refused_with_the_byte(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    assert "not a text file (byte 0x89" in message_of(path)


def test_a_file_with_zero_bytes_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"a: 1\nb: \x00\n")
    assert "run.yaml, line 2: not a text file" in message_of(path)


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("﻿agent: {}\n".encode())
    assert read_document(path).data == {"agent": {}}


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    message = message_of(path)
    assert "1,000,001 bytes" in message
    assert "scenarios_file" in message


def test_yaml_that_does_not_parse_names_the_line(write):
    message = message_of(write("agent:\n  type: multi_turn\n model_name: x\n"))
    assert message.startswith("config error in run.yaml, line 3: not valid YAML")


def test_all_duplicate_keys_are_told_at_once(write):
    with pytest.raises(ConfigError) as caught:
        read_document(write("agent: {}\nagent: {}\ntraining:\n  seed: 1\n  seed: 2\n"))
    assert len(caught.value.problems) == 2
    assert "line 2" in caught.value.problems[0]
    assert "training.seed is given twice" in caught.value.problems[1]


def test_json_is_read_with_lines_tabs_and_surrogate_pairs(write):
    document = read_document(write('{\n\t"agent": {\n\t\t"system_prompt": "\\ud83d\\ude00\\/"\n\t}\n}', "run.json"))
    assert document.data == {"agent": {"system_prompt": "\U0001f600/"}}
    assert document.line(("agent", "system_prompt")) == 3


def test_json_that_does_not_parse_names_the_line(write):
    message = message_of(write('{\n"agent": {},\n}', "run.json"))
    assert message.startswith("config error in run.json, line ")
    assert "not valid JSON" in message


def test_a_duplicate_key_in_json_is_refused(write):
    assert "agent.type is given twice" in message_of(write('{"agent": {"type": 1, "type": 2}}', "run.json"))


def test_json_nested_too_deep_is_refused(write):
    assert "nested" in message_of(write("[" * 100_000, "run.json"))


def test_a_key_between_the_dashes_of_rewards_is_read_as_if_beside_the_list(write):
    text = "rewards:\n  - type: helpfulness\n  # a remark\n  - type: safety\n\n"
    text += "  combination_method: average\ntraining: {}\n"
    document = read_document(write(text))
    assert document.data == {
        "rewards": [{"type": "helpfulness"}, {"type": "safety"}],
        "training": {},
        "combination_method": "average",
    }
    assert document.line(("combination_method",)) == 6
    assert document.line(("training",)) == 7
    assert "line 6" in document.notes[0]


def test_a_key_written_as_an_item_of_rewards_is_read_as_if_beside_the_list(write):
    document = read_document(write("rewards:\n  - type: safety\n  - combination_method: min\n"))
    assert document.data == {"rewards": [{"type": "safety"}], "combination_method": "min"}
    assert document.line(("combination_method",)) == 3


def test_another_key_between_the_dashes_stays_an_error(write):
    assert "line 3" in message_of(write("rewards:\n  - type: safety\n  weight: 3\n"))


def test_a_second_mistake_is_still_found_after_the_key_was_moved(write):
    text = "rewards:\n  - type: safety\n  combination_method: average\ntraining: [\n"
    assert "run.yaml, line 4: not valid YAML" in message_of(write(text))


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("run.yaml", 'a: 1\nagent:\n  stop: ["x", "\\ud800"]\n', "run.yaml, line 3: agent.stop[1]"),
        ("run.json", '{"a": 1,\n "b": "\\udc00"}', "run.json, line 2: b"),
        ("run.json", '{"a": 1,\n "\\ud800": 2}', "run.json, line 1: it"),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(write, name, text, place):
    assert f"{place} holds half of a surrogate pair" in message_of(write(text, name))


def test_a_whole_surrogate_pair_is_a_character(write):
    assert read_document(write('{"a": "\\ud83d\\ude00"}', "run.json")).data == {"a": "\U0001f600"}
