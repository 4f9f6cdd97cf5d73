"""The table of rewards against the classes that it names."""

import inspect
import math
from pathlib import Path
from typing import Any, Literal

import pytest

from stateset_agents.core.dotted import import_dotted
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import KINDS, Option, RewardFunction, SafetyReward, build_rewards
from stateset_agents.core.rewards.kinds import PACKAGE, kind_of

BUILT_IN = {name: kind for name, kind in KINDS.items() if kind.address}


def class_of(name):
    return import_dotted(f"{PACKAGE}.{KINDS[name].address}")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_rewards_options_are_the_arguments_of_its_class(name):
    """Mutation: an option that the class does not take, or an argument that no config can give."""
    found = class_of(name)
    assert issubclass(found, RewardFunction)
    arguments = inspect.signature(getattr(found, KINDS[name].maker) if KINDS[name].maker else found).parameters
    assert set(KINDS[name].options) == arguments.keys() - {"weight", "name", "base_dir"}
    assert KINDS[name].imports == ("base_dir" in arguments)
    needed = {key for key, option in KINDS[name].options.items() if option.needed}
    without_default = {a for a, p in arguments.items() if p.default is inspect.Parameter.empty}
    assert needed == without_default


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_class_knows_its_name_in_a_config(name):
    found = class_of(name)
    assert kind_of(found) == name
    assert found.label.fget(object.__new__(found)) == name


def test_a_class_of_ones_own_has_no_name_in_a_config():
    class Calm(SafetyReward):
        pass

    assert kind_of(Calm) is None


def test_a_type_that_is_no_text_is_refused():
    """Mutation: an unhashable type raises TypeError."""
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.type is \['safety'\], which does not exist"):
        build_rewards([{"type": ["safety"]}])


LONG = {"rubric": {"checks": [{"contains": "x"}]}, "learned": {"folder": "none"}}
LONG |= {judge: {"base_url": "http://127.0.0.1:9/v1", "model": "m"} for judge in ("llm_judge", "group_judge")}
OPTIONS = [(name, key) for name, kind in BUILT_IN.items() for key, option in kind.options.items()]


@pytest.mark.parametrize(("name", "key"), [one for one in OPTIONS if one[1] not in ("ground_truth", "checks")])
def test_a_value_of_another_kind_is_refused_with_its_place(name, key):
    """Mutation: an entry whose options reach the class unchecked. What holds code or answers checks itself."""
    option = BUILT_IN[name].options[key]
    wrong = [[], {}, 7] if option.kind is str else ["no", ""] if option.kind is not dict[str, Any] else ["no", 5, [1]]
    wrong += [math.nan, math.inf, -math.inf, [5], True if option.kind is not bool else 1]
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            build_rewards([{"type": "safety"}, {"type": name, **LONG.get(name, {}), key: value}])
        (problem,) = caught.value.problems
        assert problem.startswith(f"rewards[1].{key} ")
        assert "must be " in problem


@pytest.mark.parametrize(
    ("option", "value", "objection"),
    [
        (Option(int, "", at_least=1), 0, "is 0; it must be a whole number of at least 1"),
        (Option(int, "", at_least=1), 1, ""),
        (
            Option(float, "", at_least=0, at_most=1),
            1.5,
            "is 1.5; it must be a finite number of at least 0 and of at most 1",
        ),
        (Option(float, "", above=0), 0, "is 0; it must be a finite number above 0"),
        (Option(float, "", above=0), 1, ""),
        (Option(bool, ""), "no", "is 'no'; it must be true or false"),
        (Option(Literal["last", "every"], ""), "first", "is 'first'; it must be one of last, every"),
        (Option(Literal["last", "every"], ""), ["last"], "is ['last']; it must be one of last, every"),
        (Option(str, "", file=True), 3, "is 3; it must be the path of a file"),
        (Option(str, "", file=True), Path("a"), ""),
        (Option(str, ""), Path("a"), f"is {Path('a')!r}; it must be a text that is not blank"),
        (Option(list[str], ""), ("a", "b"), ""),
        (Option(str, "", check=str.isupper, wanted="in capitals"), "sk-secret", "must be in capitals"),
    ],
)
def test_an_option_says_what_it_must_be(option, value, objection):
    assert option.objection(value) == objection


@pytest.mark.parametrize("name", [5, [], {"a": 1}, True])
def test_a_name_that_is_no_text_is_refused(name):
    for entry in ({"type": "safety", "name": name}, {"functions": [{"type": "safety"}], "name": name}):
        with pytest.raises(ConfigError, match=r"rewards\[0\]: name of reward .* must be a text"):
            build_rewards([entry])


@pytest.mark.parametrize("given", [None, 5, "safety", [], {"functions": None}, {"functions": 5}, {"functions": {}}])
def test_what_is_no_list_of_entries_is_refused_with_its_place(given):
    place = "rewards.functions" if isinstance(given, dict) else "rewards"
    with pytest.raises(ConfigError, match=rf"^{place} is .*; it must be a list with at least one entry"):
        build_rewards(given)


def test_a_judge_of_groups_is_no_part_of_another_even_alone_in_it():
    with pytest.raises(ConfigError, match=r"rewards\[0\]: group_judge judges groups as a whole"):
        build_rewards([{"functions": [{"type": "group_judge", **LONG["group_judge"]}]}])
