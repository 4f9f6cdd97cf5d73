"""What `AutoTrainer` makes of a baseline, by hand."""

import pytest

from stateset_agents.training.baseline import Baseline
from stateset_agents.training.choosing import choose, remarks

AGENT = {"temperature": 0.7, "max_new_tokens": 100}


def seen(**changes) -> Baseline:
    values = {
        "conversations": 32, "failed": 0, "reward": 0.4, "attainable": 1.0, "diversity": 0.2, "equal": 0.0,
        "alike": 0.0, "turns": 2.0, "tokens": 100.0, "cut": 0.0, "truncated": 0.0, "scenarios": 4,
        "parameters": 135 * 10**6,
    }  # fmt: skip
    return Baseline(**{**values, **changes})


def chosen(given=(), **changes):
    return {one.name: one.value for one in choose(seen(**changes), AGENT, given)}


USUAL = {"profile": "balanced", "learning_rate": 2e-5, "batch_size": 8, "gradient_accumulation_steps": 4}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, {}),
        ({"diversity": 0.04}, {"profile": "conservative"}),
        ({"diversity": 0.0}, {}),
        ({"diversity": 0.04, "attainable": 0.5}, {}),
        ({"parameters": 10**5}, {"learning_rate": 1e-3}),
        ({"parameters": 7 * 10**9}, {"learning_rate": 1e-5}),
        ({"parameters": 70 * 10**9}, {"learning_rate": 5e-6}),
        ({"alike": 0.6}, {"temperature": 1.0}),
        ({"equal": 0.6}, {"num_generations": 16}),
        ({"equal": 0.6, "reward": 0.95}, {}),
        ({"cut": 0.4}, {"max_new_tokens": 200}),
        ({"tokens": 2000.0}, {"batch_size": 2, "gradient_accumulation_steps": 16}),
        ({"scenarios": 100}, {"eval_every": 800}),
    ],
)
def test_what_was_seen_decides_what_is_chosen(changes, differs):
    assert chosen(**changes) == {**USUAL, **differs}


def test_what_the_caller_named_is_not_chosen_and_a_reason_holds_what_was_seen():
    assert "learning_rate" not in chosen(given={"learning_rate"})
    (choice,) = [one for one in choose(seen(alike=0.75), AGENT) if one.name == "temperature"]
    assert str(choice) == "temperature 1.0: at 0.7 all conversations of 75% of the groups are the same"


def test_a_stub_has_no_rate_and_where_nothing_was_scored_nothing_is_chosen():
    assert "learning_rate" not in chosen(parameters=None)
    nothing = seen(reward=None, failed=32)
    assert choose(nothing, AGENT) == []
    assert str(nothing) == "of 32 conversations none could be scored"
    assert remarks(nothing)[0] == "the settings of the profile are kept, as nothing could be measured"


def test_what_no_setting_mends_is_said():
    assert remarks(seen()) == []
    assert remarks(seen(reward=0.96)) == [
        "the agent has nearly all of the attainable reward already: there is little left to learn"
    ]
    assert remarks(seen(failed=4)) == ["4 of 32 conversations failed or had no score: mend that first"]
    assert remarks(seen(truncated=0.5)) == [
        "50% of the conversations were cut by a limit: raise max_turns or the context"
    ]
