"""The table of rewards against the classes that it names."""

import inspect

import pytest

from stateset_agents.core.dotted import import_dotted
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import KINDS, RewardFunction, SafetyReward, build_rewards
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
