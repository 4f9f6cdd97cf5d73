"""Before and after: paired numbers, and the typical conversation rather than the best."""

import json

import pytest
from rich.cells import cell_len

from stateset_agents.core.outcome import Outcome
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.evaluation import EvaluationResult, SuccessCriterion, compare, side_by_side


def episode(scenario_id, reward, reply="Yes.", **more):
    turns = [ConversationTurn("user", "Where is my order?"), ConversationTurn("assistant", reply)]
    return MultiTurnTrajectory(scenario_id, turns=turns, reward=reward, **more)


def evaluation(rewards):
    """An evaluation with these rewards by scenario; None is a failed episode."""
    groups = tuple(
        TrajectoryGroup.of(
            key, [episode(key, r, outcome=Outcome.OK if r is not None else Outcome.USER) for r in values]
        )
        for key, values in rewards.items()
    )
    scenarios = tuple(Scenario(key, ("Where is my order?",)) for key in rewards)
    return EvaluationResult(scenarios, groups, SuccessCriterion(1.0), 2, "k", 1.0)


BEFORE = {"a": [0.0, 0.2], "b": [0.4, 0.4], "c": [0.1, 0.3], "d": [0.5, 0.5], "e": [0.2, 0.2], "f": [0.0, 0.0]}
# Improvements: a +0.5, b +0.1, c +0.3, d +0.2, e +0.6, f +0.4.
AFTER = {"a": [0.6, 0.6], "b": [0.5, 0.5], "c": [0.3, 0.7], "d": [0.7, 0.7], "e": [0.8, 0.8], "f": [0.4, 0.4]}


def test_the_difference_is_paired_by_scenario():
    comparison = compare(evaluation(BEFORE), evaluation(AFTER))
    assert comparison.reward.mean == pytest.approx(0.35)
    assert comparison.reward.verdict == "better"
    # Success is a reward of at least 0.5: before only d, after all but f and one half of c.
    assert comparison.success.mean == pytest.approx((1 + 1 + 0.5 + 0 + 1 + 0) / 6)
    assert compare(evaluation(AFTER), evaluation(BEFORE)).reward.verdict == "worse"
    assert compare(evaluation(BEFORE), evaluation(BEFORE)).reward.verdict == "no difference seen"


def test_the_conversation_shown_is_that_of_the_median_scenario_not_of_the_best():
    comparison = compare(evaluation(BEFORE), evaluation(AFTER))
    assert comparison.scenario_id == "c"  # sorted: b .1, d .2, c .3, f .4, a .5, e .6
    assert compare(evaluation(AFTER), evaluation(BEFORE)).scenario_id == "f"


def test_its_samples_are_those_nearest_to_the_scenarios_mean():
    before = evaluation({"a": [0.0, 0.35, 1.0]})  # mean 0.45
    after = evaluation({"a": [1.0, 0.9, 0.2]})  # mean 0.7
    first, second = compare(before, after).episodes
    assert (first.reward, second.reward) == (0.35, 0.9)


def test_scenarios_that_failed_on_one_side_are_left_out():
    comparison = compare(evaluation({"a": [None], "b": [0.1]}), evaluation({"a": [1.0], "b": [0.3]}))
    assert (comparison.reward.scenarios, comparison.scenario_id) == (1, "b")
    assert comparison.summary().startswith("1 scenario, before and after\n")
    with pytest.raises(ValueError, match="share no scored scenario"):
        compare(evaluation({"a": [None]}), evaluation({"a": [1.0]}))


def test_before_and_after_are_told_over_the_scenarios_that_both_have():
    before = evaluation({"a": [0.9], "b": [0.1], "c": [0.6]})
    comparison = compare(before, evaluation({"a": [None], "b": [0.3], "c": [0.7], "d": [1.0]}))
    (name, first, second, change, _), (_, succeeded, succeed, _, _) = comparison.changes()
    assert (name, first.mean, second.mean) == ("reward", pytest.approx(0.35), pytest.approx(0.5))
    assert change.mean == pytest.approx(0.15)
    assert (succeeded.mean, succeed.mean) == (0.5, 0.5)
    assert "reward   before  0.350" in comparison.summary()


def test_the_summary_and_the_json_form_hold_verdict_and_both_sides():
    comparison = compare(evaluation(BEFORE), evaluation(AFTER))
    lines = comparison.summary().splitlines()
    assert lines[0] == "6 scenarios, before and after"
    assert lines[1].startswith("reward   before  0.233 (95 % interval ")
    assert lines[2].startswith("reward   after   0.583 (95 % interval ")
    assert lines[3].startswith("reward   change  +0.350 (95 % interval +")
    assert lines[3].endswith(": better")
    assert lines[6].startswith("success  change  +58.3%")
    data = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert (data["reward"]["verdict"], data["median_scenario"]) == ("better", "c")
    assert data["before"]["reward"]["mean"] == pytest.approx(1.4 / 6)


def test_two_columns_hold_both_conversations_whole_within_the_width():
    words = " ".join(f"word{i}" for i in range(40))
    left = episode("order", 0.25, words, success=False)
    right = episode("order", 1.0, "It ships today. 日本語 テスト " * 3, success=True, outcome=Outcome.TRUNCATED)
    right.turns += [ConversationTurn("user", "Thanks!"), ConversationTurn("assistant", "Bye.")]
    text = side_by_side(left, right, width=80)
    lines = text.splitlines()
    assert lines[0] == "scenario order"
    assert all(cell_len(line) <= 80 for line in lines)
    assert "before: reward 0.250, no success" in text
    assert "after: reward 1.000, success, cut" in text
    column = "\n".join(line[:40] for line in lines if "word" in line)
    assert [word for word in column.split() if word.startswith("word")] == words.split()
    assert text.index("user: Where is my order?") < text.index("assistant: word0") < text.index("user: Thanks!")


def test_markup_and_control_codes_of_a_model_are_shown_as_text_or_not_at_all():
    text = side_by_side(episode("a", 0.0, "[bold]hi[/bold] \x1b[2J\x07\x9b2Jthere\rX"), episode("a", None, "ok"))
    assert "[bold]hi[/bold] [2J2JthereX" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\r"}
    assert "after: not scored" in text


def test_a_comparison_shows_its_typical_conversation():
    comparison = compare(evaluation(BEFORE), evaluation(AFTER))
    assert comparison.side_by_side(80).splitlines()[0] == "scenario c"
