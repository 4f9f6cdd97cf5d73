"""The order of scenarios is a function of seed and position."""

import pytest

from stateset_agents.core.scenario import Scenario
from stateset_agents.training.order import SeededOrder

NAMES = ["a", "b", "c", "d", "e", "f"]
SCENARIOS = [Scenario(id=name) for name in NAMES]


def names(order: SeededOrder, start: int, count: int) -> list[str]:
    return [scenario.id for scenario in order.at(start, count)]


def test_each_round_plays_every_scenario_once_in_an_order_of_its_own():
    """Mutations: drawing with replacement; one order for all rounds."""
    rounds = [tuple(names(SeededOrder(SCENARIOS, 7), 6 * index, 6)) for index in range(20)]
    assert all(sorted(played) == NAMES for played in rounds)
    assert len(set(rounds)) > 15
    assert tuple(NAMES) not in rounds[:3]


def test_any_part_can_be_asked_for_without_what_came_before_it():
    """Mutation: an iterator that a resumed run would begin again."""
    order = SeededOrder(SCENARIOS, 3)
    whole = names(order, 0, 40)
    for start, count in [(0, 1), (5, 4), (17, 23), (39, 1)]:
        assert names(SeededOrder(SCENARIOS, 3), start, count) == whole[start : start + count]
    assert names(order, 12, 0) == []


def test_seeds_give_other_orders():
    assert names(SeededOrder(SCENARIOS, 0), 0, 12) != names(SeededOrder(SCENARIOS, 1), 0, 12)
    # seed 1 round 11 is not seed 11 round 1
    assert names(SeededOrder(SCENARIOS, 1), 66, 6) != names(SeededOrder(SCENARIOS, 11), 6, 6)


def test_the_order_is_the_same_on_every_machine():
    """Mutation: seeding with hash(), which differs from process to process."""
    assert "".join(names(SeededOrder(SCENARIOS, 0), 0, 12)) == "afbedccabfde"


def test_a_step_may_play_a_scenario_twice_when_there_are_few():
    assert names(SeededOrder(SCENARIOS[:1], 0), 0, 3) == ["a", "a", "a"]
    assert sorted(names(SeededOrder(SCENARIOS[:2], 0), 0, 4)) == ["a", "a", "b", "b"]


def test_without_scenarios_there_is_no_order():
    with pytest.raises(ValueError, match="no scenarios to train on"):
        SeededOrder([], 0)
