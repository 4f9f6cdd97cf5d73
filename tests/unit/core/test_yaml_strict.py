"""Scalars become what they look like to a person; what is dangerous or ambiguous is refused with its line."""

import math

import pytest
import yaml

from stateset_agents.core.yaml_strict import MAX_NODES, StrictDumper, YamlProblem, parse_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2024-01-15", "2024-01-15"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1.2.3", "1.2.3"),
        ("5e-6", 5e-6),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("+3", 3),
        ("0", 0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ('"5e-6"', "5e-6"),
        ("'true'", "true"),
        ("-.inf", -math.inf),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_scalar_becomes_what_it_looks_like(written, value):
    read = parse_yaml(f"key: {written}").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read_as_one_so_that_a_field_can_refuse_it():
    assert math.isnan(parse_yaml("key: .nan").data["key"])


def test_every_key_and_item_knows_its_line():
    parsed = parse_yaml("a:\n  b: 1\n\n  c:\n    - x\n    - d: 2\n")
    assert parsed.lines[("a", "b")] == 2
    assert parsed.lines[("a", "c")] == 4
    assert parsed.lines[("a", "c", 0)] == 5
    assert parsed.lines[("a", "c", 1, "d")] == 6


def test_an_unquoted_scalar_keeps_its_spelling():
    parsed = parse_yaml('a: 1.10\nb: "1.10"\nc: False\n')
    assert parsed.texts == {("a",): "1.10", ("c",): "False"}


def test_all_duplicate_keys_are_found_with_both_lines():
    parsed = parse_yaml("a:\n  b: 1\n  b: 2\nc: 3\na: 4\n")
    assert parsed.problems == [
        (3, "a.b is given twice (first in line 2): keep one of them"),
        (5, "a is given twice (first in line 1): keep one of them"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "python/object/apply:os.system"),
        ("a: !!str 5\n", 1, "tag"),
        ("a: !mine 5\n", 1, "tag"),
        ("a: ! 5\n", 1, "tag"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a:\n\tb: 1\n", 2, "spaces"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\nb: \x07\n", 2, "not allowed in a text file"),
        ("a: &x [*x]\n", 1, "contains it"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nested"),
    ],
)
def test_what_is_not_acceptable_is_refused_with_its_line(text, line, words):
    with pytest.raises(YamlProblem, match=r".") as caught:
        parse_yaml(text)
    assert caught.value.line == line
    assert words in str(caught.value)


def test_aliases_that_multiply_are_stopped():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 9):
        bomb += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    with pytest.raises(YamlProblem, match=f"{MAX_NODES:,} values"):
        parse_yaml(bomb)


def test_an_honest_alias_is_followed():
    assert parse_yaml("a: &x {k: 1}\nb: *x\n").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_a_merge_key_and_a_key_that_is_a_list_are_refused():
    problems = parse_yaml("a: &x {k: 1}\nb:\n  <<: *x\n[1, 2]: c\n").problems
    assert [line for line, _ in problems] == [3, 4]


@pytest.mark.parametrize(
    "value", ["5e-6", "no", "12:30", "1_000", "null", "", "2024-01-15", "${A}", "a: b", "line\nline"]
)
def test_what_is_dumped_is_read_back_the_same_by_this_loader_and_by_pyyaml(value):
    text = yaml.dump({"key": value, "rate": 5e-6}, Dumper=StrictDumper)
    assert parse_yaml(text).data == {"key": value, "rate": 5e-6}
    assert yaml.safe_load(text)["key"] == value
