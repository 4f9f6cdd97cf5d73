"""What an evaluation says as text, JSON and page, with numbers worked out by hand."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from attacks import BROKEN, HARMED, TEXTS
from browser import Browser
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import (
    CompositeReward,
    ConcisenessReward,
    GroupReward,
    HelpfulnessReward,
    RewardFunction,
    RewardResult,
)
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.tool_calls import ToolCall, ToolError, ToolResult
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.evaluation import EvaluationResult, SuccessCriterion, compare
from stateset_agents.evaluation.beside import with_built_ins
from stateset_agents.evaluation.charts import Row, bar_chart, histogram, strip_chart
from stateset_agents.evaluation.compare import episode_lines
from stateset_agents.evaluation.evaluate import evaluated_so_far
from stateset_agents.evaluation.page import page
from stateset_agents.evaluation.plan import plan_of
from stateset_agents.evaluation.report import Floor, Report
from stateset_agents.evaluation.text_report import length_shares, text_report

DOCUMENTED = """\
Agent Evaluation Results
========================
Checkpoint: ./checkpoints/customer_service_agent
Episodes: 100
Evaluation Time: 15.3 minutes

Performance Metrics:
- Average Reward: 0.847 ± 0.123
- Success Rate: 89.2%
- Average Episode Length: 8.3 ± 2.1 turns
- Engagement Score: 0.762 ± 0.089

Detailed Breakdown:
- Helpfulness: 0.891 ± 0.076
- Safety: 0.967 ± 0.043
- Conciseness: 0.734 ± 0.156
- Task Completion: 0.892 ± 0.089

Episode Length Distribution:
- 1-5 turns: 23%
- 6-10 turns: 58%
- 11-15 turns: 19%

Top Performing Scenarios:
1. Product Inquiry: 0.934 avg reward
2. Technical Support: 0.876 avg reward
3. Billing Questions: 0.823 avg reward

Improvement Opportunities:
- Return Requests: 0.721 avg reward (below average)
- Complex Technical Issues: 0.698 avg reward
"""
PARTS = ("engagement", "helpfulness", "safety", "conciseness", "task_completion")


def episode(scenario: str, sample: int, reward: float | None, *, replies: int = 1, success: bool | None = None):
    turns = [ConversationTurn("user", "Hello?"), ConversationTurn("assistant", "Hi.")] * replies
    made = MultiTurnTrajectory(scenario, f"evaluation/{scenario}/{sample}", turns, reward=reward, success=success)
    made.breakdown = dict.fromkeys(PARTS, 0.5)
    return made


def result_of(rewards: dict[str, list[float]], *, seconds: float = 918.0, **more) -> EvaluationResult:
    """Success is a reward of 0.5 and more."""
    groups = [
        TrajectoryGroup.of(
            name, [episode(name, place, one, success=one >= 0.5, **more) for place, one in enumerate(got)]
        )
        for name, got in rewards.items()
    ]
    scenarios = tuple(Scenario(id=name) for name in rewards)
    samples = max(map(len, rewards.values()))
    return EvaluationResult(scenarios, tuple(groups), SuccessCriterion(1.0), samples, "evaluation", seconds)


FIVE = {"a": [1.0, 0.8], "b": [0.9, 0.5], "c": [0.6, 0.6], "d": [0.4, 0.4], "e": [0.1, 0.3]}


def report_of(result: EvaluationResult | None = None, **more) -> Report:
    result = result or result_of(FIVE)
    return Report("./checkpoints/mine", 40, result, result.counts.episodes, **more)


def shape(text: str) -> list[str]:
    """The lines with every number as N and every name of a scenario as X; repeated lines of a list once."""
    lines = [re.sub(r"(\d\. |- )[^:]*(: \S+ avg reward)", r"\1X\2", line) for line in text.splitlines()]
    lines = [re.sub(r"[\d.]+", "N", line) for line in lines]
    lines = [re.sub(r"^Checkpoint: .*", "Checkpoint:", line).removesuffix(" (below average)") for line in lines]
    return [line for place, line in enumerate(lines) if place == 0 or line != lines[place - 1]]


def test_the_report_begins_as_the_documents_print_it():
    expected = shape(DOCUMENTED)
    assert shape(text_report(report_of()))[: len(expected)] == expected


def test_its_numbers_are_those_of_the_episodes():
    text = text_report(report_of(result_of(FIVE, replies=6)))
    # scenario means 0.9, 0.7, 0.6, 0.4, 0.2: mean 0.56; 6 of 10 episodes have 0.5 or more
    for line in (
        "Checkpoint: ./checkpoints/mine",
        "Episodes: 10",
        "Evaluation Time: 15.3 minutes",
        "- Average Reward: 0.560 ± 0.265",
        "- Success Rate: 60.0%",
        "- Average Episode Length: 6.0 ± 0.0 turns",
        "- Task Completion: 0.500 ± 0.000",
        "- 1-5 turns: 0%",
        "- 6-10 turns: 100%",
        "1. a: 0.900 avg reward",
        "2. b: 0.700 avg reward",
        "3. c: 0.600 avg reward",
        "- d: 0.400 avg reward (below average)",
        "- e: 0.200 avg reward (below average)",
        # pass^2: a, b and c have both of two right: 3 of 5; pass@2 the same three
        "- All of k samples succeed (pass^k): k=1 60.0%, k=2 60.0%",
        "- One of k samples succeeds (pass@k): k=1 60.0%, k=2 60.0%",
    ):
        assert line in text.splitlines()


def test_lengths_beyond_fifteen_turns_get_spans_of_their_own():
    groups = [TrajectoryGroup.of("a", [episode("a", place, 1.0, replies=n) for place, n in enumerate((1, 5, 6, 16))])]
    result = EvaluationResult((Scenario(id="a"),), tuple(groups), SuccessCriterion(), 4, "evaluation", 1.0)
    assert length_shares(result) == [("1-5", 0.5), ("6-10", 0.25), ("11-15", 0.0), ("16-20", 0.25)]


def test_floors_stand_beside_every_number():
    nothing = result_of({name: [0.0] for name in FIVE})
    floors = (Floor("do nothing", "says nothing", nothing), Floor("untrained", "big", why_not="big is not here"))
    lines = text_report(report_of(floors=floors)).splitlines()
    assert "- Average Reward: 0.560 ± 0.265 (do nothing 0.000)" in lines
    assert "- Success Rate: 60.0% (do nothing 0.0%)" in lines
    assert "- Average Episode Length: 1.0 ± 0.0 turns (do nothing 1.0)" in lines
    assert "- do nothing: says nothing" in lines
    # five scenarios are too few for a verdict, however far apart they lie
    (above,) = [
        line for line in lines if line.startswith('- Average Reward beside "do nothing": +0.560 (95 % interval +0.')
    ]
    assert above.endswith("from 5 scenarios only): too few scenarios to tell")
    assert "- untrained was not measured: big is not here" in lines


def test_what_could_not_be_measured_is_left_out_with_the_reason():
    result = result_of({"a": [0.5]})
    result.groups[0].trajectories[0].breakdown.clear()
    bare = replace(result, criterion=SuccessCriterion())
    bare.groups[0].trajectories[0].success = None
    text = text_report(report_of(bare))
    assert "Success Rate:" not in text
    assert "Detailed Breakdown" not in text
    assert "- Success Rate is left out: neither the scenarios nor the reward say what success is" in text
    assert "- Task Completion is left out: nothing says what there was to do, or whether it was done" in text


def test_asked_for_metrics_are_all_that_is_printed():
    text = text_report(report_of(metrics=("success_rate", "safety")))
    assert "- Success Rate: 60.0%" in text
    assert "- Safety: 0.500" in text
    for other in ("Average", "Engagement", "Helpfulness", "turns", "avg reward"):
        assert other not in text


def test_an_interrupted_evaluation_counts_honestly():
    report = replace(report_of(result_of({"a": [0.5]})), planned=20, interrupted=True)
    assert "Episodes: 1 of 20 (interrupted)" in text_report(report)
    empty = EvaluationResult((), (), SuccessCriterion(1.0), 4, "evaluation", 1.0)
    text = text_report(replace(report, result=empty))
    assert "Episodes: 0 of 20 (interrupted)" in text
    assert "- no episode could be scored: there is nothing to measure" in text
    assert "<!doctype html>" in page(replace(report, result=empty))


def test_what_was_over_when_somebody_stopped_it_is_in_order():
    scenarios = [Scenario(id=name, user_responses=("Hi.",)) for name in "abc"]
    ended = [episode("c", 0, 0.5), episode("a", 10, 0.25), episode("a", 2, 1.0), episode("a", 1, None)]
    result = evaluated_so_far(
        ended,
        ConversationEnvironment(scenarios),
        scenarios,
        HelpfulnessReward(),
        samples=12,
        key="evaluation",
        seconds=3.0,
    )
    assert [scenario.id for scenario in result.scenarios] == ["a", "c"]
    assert result.rewards == {"a": [1.0, 0.25], "c": [0.5]}
    assert (result.counts.episodes, result.samples, result.seconds) == (4, 12, 3.0)
    assert result.criterion.attainable == 1.0


def test_failed_episodes_are_counted_with_the_first_error():
    broken = episode("a", 1, None)
    broken.outcome, broken.error = Outcome.REWARD, "compute_reward: KeyError: 'price'"
    group = TrajectoryGroup.of("a", [episode("a", 0, 0.5), broken])
    result = EvaluationResult((Scenario(id="a"),), (group,), SuccessCriterion(1.0), 2, "evaluation", 1.0)
    text = text_report(report_of(result))
    assert "Episodes: 2" in text
    assert "- 1 of 2 episodes are in no mean (1 reward); the first error: compute_reward: KeyError: 'price'" in text


@pytest.mark.parametrize(("shift", "verdict"), [(0.3, "better"), (-0.3, "worse"), (0.0, "no difference seen")])
def test_a_comparison_ends_in_a_plain_verdict(shift, verdict):
    # differences of 0.3 ± 0.02 in eight scenarios leave out 0 whatever is resampled
    before = result_of({str(n): [0.4] for n in range(8)})
    after = result_of({str(n): [0.4 + shift + (0.02 if n % 2 else -0.02)] for n in range(8)})
    report = report_of(after, comparison=compare(before, after), compared_with="runs/first")
    text = text_report(report)
    assert f"- Verdict: {verdict}, by the reward of 8 scenarios" in text
    assert f"- Average Reward: 0.400 to {0.4 + shift:.3f}, {shift:+.3f} (95 % interval" in text
    assert verdict in page(report)
    assert report.to_dict()["comparison"]["reward"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("scenarios", "episodes", "samples", "chosen", "each", "note"),
    [
        (5, None, None, "01234", 20, ""),
        (3, None, None, "012", 34, "34 samples of each of 3 scenarios make 102, not 100"),
        (3, 9, None, "012", 3, ""),
        (3, 7, None, "012", 3, "3 samples of each of 3 scenarios make 9, not 7"),
        (8, 4, None, "0246", 1, "1 sample of each of 4 scenarios, taken evenly from all 8"),
        (8, 1, None, "0", 1, "1 sample of 1 scenario, taken evenly from all 8"),
        (3, None, 2, "012", 2, ""),
        (8, 8, 4, "04", 4, "4 samples of each of 2 scenarios, taken evenly from all 8"),
        (2, 100, 3, "01", 3, "3 samples of each of 2 scenarios make 6, not 100"),
    ],
)
def test_episodes_are_spread_evenly_and_rounding_is_said(scenarios, episodes, samples, chosen, each, note):
    plan = plan_of([Scenario(id=str(place)) for place in range(scenarios)], episodes, samples)
    assert ("".join(one.id for one in plan.scenarios), plan.samples) == (chosen, each)
    assert (note in plan.note) if note else plan.note == ""


@pytest.mark.parametrize(("episodes", "samples"), [(0, None), (-3, None), (None, 0)])
def test_numbers_below_one_are_refused(episodes, samples):
    with pytest.raises(ConfigError, match="it must be at least 1"):
        plan_of([Scenario(id="a")], episodes, samples)


class Half(RewardFunction):
    async def compute_reward(self, turns, context=None):
        return RewardResult(0.5, {"own": 0.5})


class Ranks(GroupReward):
    async def compare(self, conversations, context=None):
        return [1.0] * len(conversations)


TURNS = [ConversationTurn("user", "What does it cost?"), ConversationTurn("assistant", "It costs five dollars.")]


async def test_built_in_rewards_are_measured_beside_and_change_no_score():
    result = await with_built_ins(Half(), ("safety", "task_completion")).evaluate(TURNS, {"success": True})
    assert (result.score, result.breakdown) == (0.5, {"own": 0.5, "safety": 1.0, "task_completion": 1.0})
    result = await with_built_ins(Half(), ("task_completion",)).evaluate(TURNS, {})
    assert result.breakdown == {"own": 0.5}


async def test_a_part_that_the_reward_names_itself_is_kept():
    class Named(RewardFunction):
        async def compute_reward(self, turns, context=None):
            return RewardResult(0.5, {"safety": 0.125})

    result = await with_built_ins(Named(), ("safety",)).evaluate(TURNS, {})
    assert result.breakdown == {"safety": 0.125}


async def test_a_part_of_the_runs_own_reward_is_asked_with_its_settings():
    own = CompositeReward([CompositeReward([ConcisenessReward(optimal_length=1)]), HelpfulnessReward()])
    result = await with_built_ins(own, ("conciseness",)).evaluate(TURNS, {})
    alone = await ConcisenessReward(optimal_length=1).evaluate(TURNS, {})
    assert result.breakdown["conciseness"] == alone.score < (await ConcisenessReward().evaluate(TURNS, {})).score


async def test_a_reward_that_compares_is_asked_about_the_group():
    reward = with_built_ins(Ranks(), ("safety", "task_completion"))
    assert isinstance(reward, GroupReward)
    results = await reward.evaluate_group([TURNS, TURNS], {"required_actions": ["pay"]}, "key")
    assert [(one.score, one.breakdown) for one in results] == [(1.0, {"safety": 1.0})] * 2


NASTY = (*TEXTS, *BROKEN[1:])


class Reader(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def nasty_report() -> Report:
    groups, scenarios = [], []
    for name in NASTY:
        made = episode(name, 0, 0.5, success=False)
        made.turns = [
            ConversationTurn("user", name),
            ConversationTurn("assistant", name, tool_calls=(ToolCall(name, {name: name}),)),
            ConversationTurn("tool", name, tool_result=ToolResult(name)),
            ConversationTurn(name, name),
            ConversationTurn("assistant", name),
        ]
        made.breakdown = {name: 0.5}
        broken = episode(name, 1, None)
        broken.outcome, broken.error = Outcome.USER, name
        groups.append(TrajectoryGroup.of(name, [made, broken]))
        scenarios.append(Scenario(id=name, type=name))
    result = EvaluationResult(tuple(scenarios), tuple(groups), SuccessCriterion(1.0), 2, "evaluation", 1.0)
    floor = Floor(NASTY[0], NASTY[0], result)
    return Report(
        NASTY[1],
        1,
        result,
        14,
        floors=(floor,),
        comparison=compare(result, result),
        compared_with=NASTY[2],
        notes=NASTY,
    )


def test_nothing_that_was_said_becomes_part_of_the_page():
    html = page(nasty_report())
    reader = Reader()
    reader.feed(html)
    tags = {tag for tag, _ in reader.tags}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "link", "base", "form", "input", "a:href"})
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], tag
        assert attributes.get("href", "#").startswith("#")
    assert reader.text.count("<script>alert(1)</script>") > 3
    assert "\x1b" not in html
    assert "\x00" not in html


def test_the_page_loads_nothing_and_says_so():
    html = page(report_of())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src &#x27;none&#x27;; style-src &#x27;sha256-")
    assert not re.search(r"https?://|url\(|@import", html)


@pytest.mark.skipif(Browser.found() is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_it_runs_nothing_and_finds_nothing_to_complain_about(tmp_path):
    (tmp_path / "page.html").write_text(page(nasty_report()))
    with Browser(str(Browser.found())) as browser:
        browser.go((tmp_path / "page.html").as_uri() + "#s0", dark=True)
        browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert browser.run(HARMED) is None
        assert {asked for asked in browser.requests if not asked.startswith("file://")} == set()
        assert browser.problems == []
        assert browser.run("document.querySelectorAll('article').length") == 4 * len(NASTY)
        assert browser.run("document.scripts.length") == 0
        # the style sheet is the one that the policy names, or it would not be there
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
        assert browser.run("document.querySelector('svg').getBoundingClientRect().width") > 500
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(Browser.found() is None, reason="there is no Chromium on this machine")
def test_people_without_a_mouse_or_much_sight_can_read_it(tmp_path):
    accessibility = pytest.importorskip("accessibility", reason="no axe-core")
    axe = accessibility.axe_core()
    if axe is None:
        pytest.skip("axe-core cannot be had here")
    floors = (Floor("do nothing", "says nothing", result_of({name: [0.0] for name in FIVE})),)
    result = result_of(FIVE)
    (tmp_path / "page.html").write_text(
        page(report_of(result, floors=floors, comparison=compare(result, result), compared_with="runs/first"))
    )
    with Browser(str(Browser.found())) as browser:
        for dark in (False, True):
            browser.go((tmp_path / "page.html").as_uri(), dark=dark)
            browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert accessibility.found_wrong(browser, axe) == []


def test_a_conversation_has_its_tool_calls_folded_and_its_samples_side_by_side():
    group = TrajectoryGroup.of("a", [episode("a", 0, 1.0), episode("a", 1, 0.5)])
    group.trajectories[0].turns = [
        ConversationTurn("user", "Where is it?"),
        ConversationTurn("assistant", "raw", tool_calls=(ToolCall("find_order", {"order": "7"}),)),
        ConversationTurn("tool", "on its way", tool_result=ToolResult("find_order")),
        ConversationTurn("assistant", "On its way."),
    ]
    result = EvaluationResult((Scenario(id="a"),), (group,), SuccessCriterion(1.0), 2, "evaluation", 1.0)
    html = page(report_of(result))
    assert html.count("<article>") == 2
    assert html.index("sample 0: reward 1.000") < html.index("sample 1: reward 0.500")
    assert (
        "<details><summary>called find_order</summary><pre>{\n &quot;order&quot;: &quot;7&quot;\n}</pre></details>"
        in html
    )
    assert "<details><summary>find_order answered</summary><pre>on its way</pre></details>" in html
    group.trajectories[1].turns.insert(1, ConversationTurn("tool", "", tool_result=ToolResult("x", ToolError.TIMEOUT)))
    again = replace(result)  # what was computed of a result is kept
    assert again.tool_calls == again.to_dict()["tool_calls"] == {"ok": 1, "timeout": 1}
    assert "- 2 calls of tools in 2 episodes: 1 ok, 1 timeout" in text_report(report_of(again))
    assert "of tools" not in text_report(report_of())


def test_a_strip_chart_puts_values_where_they_belong():
    # 0 to 1 with 4 % to spare lies over 200 to 680: (0.5 + 0.04) / 1.08 is the middle, 440
    svg = strip_chart("t", [Row("a", [0.0, 1.0], 0.5)], {"floor": 0.5})
    assert 'cx="217.8"' in svg
    assert 'cx="662.2"' in svg
    assert '<line class="mean" x1="440.0"' in svg
    assert '<line class="mark mark0" x1="440.0"' in svg


def test_one_value_alone_can_be_drawn():
    assert "<circle" in strip_chart("t", [Row("a", [0.0], 0.0)], {})
    assert histogram([0.5, 0.5]) == [("0.5", 2.0)]
    assert "<rect" in bar_chart("t", [("a", 0.0)], ".0f")


def test_a_histogram_counts_every_value_once():
    assert histogram([0.0, 0.1, 0.5, 1.0], bins=2) == [("0", 2.0), ("0.5", 2.0)]


def test_the_json_has_every_number_and_conversation():
    nothing = result_of({name: [0.0] for name in FIVE})
    floors = (Floor("do nothing", "says nothing", nothing), Floor("untrained", "big", why_not="not here"))
    data = json.loads(json.dumps(report_of(floors=floors).to_dict()))
    assert (data["checkpoint"], data["step"], data["interrupted"]) == ("./checkpoints/mine", 40, False)
    assert data["reward"]["mean"] == pytest.approx(0.56)
    assert data["pass_hat_k"] == {"1": pytest.approx(0.6), "2": pytest.approx(0.6)}
    assert data["floors"]["do nothing"]["result"]["reward"]["mean"] == 0.0
    assert data["floors"]["do nothing"]["reward_above"]["mean"] == pytest.approx(0.56)
    missing = {"result": None, "reward_above": None}
    assert data["floors"]["untrained"] == {"about": "big", "why_not": "not here", **missing}
    assert (len(data["episodes"]), data["comparison"]) == (10, None)


def test_an_episode_is_told_without_control_characters():
    made = episode("a", 3, 0.5, success=True)
    made.turns[1].content = "Hi.\x1b[2J"
    lines = episode_lines(made)
    assert lines[0] == "a, sample 3: reward 0.500, success, 1 turn"
    assert lines[-2:] == ["user: Hello?", "assistant: Hi.[2J"]
