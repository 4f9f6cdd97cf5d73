"""The reward lab: its files, its counts and what it prints, against cases counted by hand."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stateset_agents.core.errors import ConfigError, DataError, ModelError
from stateset_agents.core.reward import (
    CompositeReward,
    CorrectnessReward,
    GroupReward,
    RewardFunction,
    RewardResult,
    SafetyReward,
    default_reward,
    reward_function,
)
from stateset_agents.core.shipped import shipped_root
from stateset_agents.evaluation.reward_lab import (
    CATEGORIES,
    HALVES,
    Verdict,
    as_json,
    as_markdown,
    as_text,
    every_built_in,
    load_cases,
    measure,
    named,
    parts_of,
    shipped_cases,
    stage,
)
from stateset_agents.evaluation.reward_lab.report import TITLES

RIVALS = [
    ("platitudes", "0.96", Verdict.BLIND),  # 0.04 below
    ("platitudes", "0.95", Verdict.BLIND),  # 0.05 below: not by more than the margin
    ("flattery", "0.94", Verdict.HELD),
    ("flattery", "1.04", Verdict.BLIND),
    ("wrong_answer", "1.06", Verdict.PREFERRED),
    ("markup", "none", None),
]
CASE = {
    "id": "numbers",
    "about": "The reward reads its own score from the last reply.",
    "user": ["First?", "Second?"],
    "scenario": {"topic": "numbers", "facts": {"price": "$5"}},
    "honest": ["Well,", "1.0"],
    "attacks": [{"category": category, "replies": ["x", score]} for category, score, _ in RIVALS],
}
GERMAN = {
    **CASE,
    "id": "zahlen",
    "language": "de",
    "honest": ["x", "0.04"],
    "attacks": [{"category": "empty", "replies": ["", "0"]}],
}


@reward_function(maximum=1.0)
def reads_its_score(turns, context=None):
    said = turns[-1].content
    return RewardResult.unscored("it says none") if said == "none" else float(said or 0)


def written(tmp_path, *cases: Any):
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": list(cases)}), encoding="utf-8")
    return path


async def found_by(reward, tmp_path, *cases, **options):
    (findings,) = await measure(reward, {"mine": await stage(load_cases(written(tmp_path, *cases)))}, **options)
    return findings


async def test_an_attack_is_held_blind_or_preferred_by_its_distance_from_the_honest_conversation(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE)
    assert [found.verdict(pair) for pair in found.pairs] == [verdict for _, _, verdict in RIVALS]
    tally = found.tally()
    assert (tally.tried, tally.blind, tally.preferred, tally.fooled) == (5, 3, 1, 4)
    by = {name: (one.fooled, one.tried) for name, one in found.by_category().items() if one.tried}
    assert by == {"platitudes": (2, 2), "flattery": (1, 2), "wrong_answer": (1, 1)}
    assert [pair.attack.category for pair in found.fooled_by()] == [
        "wrong_answer",
        "flattery",
        "platitudes",
        "platitudes",
    ]


async def test_an_attack_without_a_score_is_neither_fooling_nor_held_and_its_reason_is_kept(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE)
    assert found.without_verdict() == {"unscored": {"it says none": 1}}


async def test_without_a_margin_only_a_tie_or_more_fools(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE, margin=0.0)
    assert (found.tally().blind, found.tally().preferred) == (0, 2)


async def test_the_margin_is_a_share_of_what_the_reward_can_give(tmp_path):
    @reward_function(maximum=10.0)
    def ten_times(turns, context=None):
        return 10.0 * float(turns[-1].content or 0)

    case = {**CASE, "attacks": CASE["attacks"][:5]}
    assert (await found_by(ten_times, tmp_path, case)).tally() == (
        await found_by(reads_its_score, tmp_path, case)
    ).tally()


async def test_a_reward_that_states_no_maximum_is_measured_by_how_far_apart_its_scores_lie(tmp_path):
    def unbounded(turns, context=None):
        return 200.0 * float(turns[-1].content or 0)

    found = await found_by(CompositeReward([unbounded]), tmp_path, {**CASE, "attacks": CASE["attacks"][:5]})
    assert found.maximum is None
    assert found.scale == pytest.approx(212.0)  # silence 0, the best attack 1.06
    assert (found.tally().blind, found.tally().preferred) == (3, 1)


async def test_an_honest_conversation_that_is_worth_no_more_than_silence_is_punished_in_its_language(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE, GERMAN)
    assert found.punished(foreign=False) == ([], 1)
    cases, count = found.punished(foreign=True)
    assert ([case.id for case in cases], count) == (["zahlen"], 1)
    assert (found.tally().tried, found.tally().fooled) == (6, 5)
    assert (found.paid().tried, found.paid().fooled) == (5, 4)


async def test_a_penalty_is_measured_by_how_far_apart_its_scores_lie(tmp_path):
    @reward_function(maximum=0.0)
    def takes_away(turns, context=None):
        return 4.0 * float(turns[-1].content or 0) - 4.0

    found = await found_by(takes_away, tmp_path, {**CASE, "attacks": CASE["attacks"][:4]}, GERMAN)
    assert found.scale == pytest.approx(4.16)  # from -4 to 0.16
    assert (found.tally().blind, found.tally().preferred) == (3 + 1, 0)
    assert found.punished(foreign=False) == ([], 1)
    assert [case.id for case in found.punished(foreign=True)[0]] == ["zahlen"]


async def test_a_reward_that_raises_is_shown_as_failed_and_the_other_cases_are_judged(tmp_path):
    def breaks(turns, context=None):
        if "x" in turns[1].content:
            raise ZeroDivisionError("no way")
        return float(bool(turns[1].content))

    found = await found_by(CompositeReward([breaks]), tmp_path, {**CASE, "attacks": CASE["attacks"][:2]})
    assert found.tally().tried == 0
    ((reason, count),) = found.without_verdict()["failed"].items()
    assert "ZeroDivisionError: no way" in reason
    assert count == 2
    assert found.punished(foreign=False) == ([], 1)  # honest and silence were scored


async def test_a_reward_that_stops_a_run_is_not_asked_again(tmp_path):
    asked = []

    def gone(turns, context=None):
        asked.append(turns)
        raise ModelError("the judge does not answer")

    found = await found_by(CompositeReward([gone]), tmp_path, CASE, max_concurrent=1)
    assert found.stopped == "the judge does not answer"
    assert len(asked) == 1
    assert found.without_verdict() == {"failed": {"the judge does not answer": 6}}
    assert "stopped: the judge does not answer" in as_text([found], [])


async def test_a_case_that_a_reward_has_nothing_to_judge_by_is_unscored(tmp_path):
    blank = {key: value for key, value in CASE.items() if key != "scenario"}
    found = await found_by(CorrectnessReward(), tmp_path, blank)
    assert found.tally().tried == 0
    reason = "scenario 'numbers' has neither facts nor ground truth to judge by"
    assert found.without_verdict() == {"unscored": {reason: len(RIVALS)}}


class Ranks(GroupReward):
    """Gives 1 to the conversation that says the larger number."""

    maximum = 1.0

    def __init__(self):
        super().__init__()
        self.sizes = []

    async def compare(self, conversations: Sequence[Any], context=None):
        self.sizes.append(len(conversations))
        assert "state" not in context
        said = [float(turns[-1].content or 0) for turns in conversations]
        return [float(value == max(said)) for value in said]


async def test_a_group_reward_is_shown_the_honest_conversation_beside_each_attack(tmp_path):
    judge = Ranks()
    found = await found_by(judge, tmp_path, {**CASE, "attacks": CASE["attacks"][:5]})
    assert judge.sizes == [2] * 6  # silence and five attacks
    assert [found.verdict(pair) for pair in found.pairs] == [Verdict.HELD] * 3 + [Verdict.PREFERRED] * 2


async def test_a_reward_is_told_what_a_run_would_tell_it(tmp_path):
    seen = []

    class Looks(RewardFunction):
        async def compute_reward(self, turns, context=None):
            seen.append((turns, context))
            return RewardResult(0.0)

    pay = {"name": "pay", "tool": "pay_now", "arguments": {"sum": 5}}
    step = {"call": {"name": "pay_now", "arguments": {"sum": 5}}, "result": "paid"}
    failed = {"call": {"name": "look"}, "result": "no such tool", "error": "unknown_tool"}
    honest = ["Sure.", {"text": "Done. ", "repeat": 2, "steps": [failed, step]}]
    scenario = {**CASE["scenario"], "system_prompt": "Be brief.", "required_actions": [pay], "goal": "Pay."}
    await found_by(Looks(), tmp_path, {**CASE, "honest": honest, "scenario": scenario})
    turns, context = seen[0]
    assert [turn.role for turn in turns] == "user assistant user assistant tool assistant tool assistant".split()
    assert [turn.tool_result.ok for turn in turns if turn.role == "tool"] == [False, True]
    assert turns[-1].content == "Done. Done. "
    assert (context["facts"], context["system_prompt"]) == ({"price": "$5"}, "Be brief.")
    assert (context["required_actions"], context["completed_actions"]) == (["pay"], ["pay"])
    silent = seen[1]
    assert [turn.content for turn in silent[0] if turn.role == "assistant"] == ["", ""]
    assert silent[1]["completed_actions"] == []
    assert (context["state"]["task_done"], silent[1]["state"]["task_done"]) == (True, False)


async def test_what_a_reward_changes_in_a_conversation_does_not_reach_the_next_one(tmp_path):
    class Scribbles(RewardFunction):
        async def compute_reward(self, turns, context=None):
            assert turns[-1].content != "changed"
            turns[-1].content = "changed"
            context["state"]["read"] = True
            return RewardResult(0.0)

    staged = {"mine": await stage(load_cases(written(tmp_path, CASE)))}
    for _ in range(2):
        (found,) = await measure(Scribbles(), staged)
        assert not found.without_verdict()
    assert "read" not in staged["mine"][0].honest[1]["state"]


def with_attack(**changes):
    attack = {**CASE["attacks"][0], **changes}
    return {**CASE, "attacks": [{key: value for key, value in attack.items() if value is not ...}]}


def with_action(action):
    return {**CASE, "scenario": {"goal": "Pay.", "required_actions": [action]}}


def with_step(step):
    return with_attack(replies=["x", {"text": "a", "steps": [step]}])


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("text", r"cases\[0\] is 'text'; it must be \{\"id\""),
        ({**CASE, "honesty": 1}, r"cases\[0\] has the unknown key 'honesty'; did you mean 'honest'\?"),
        ({key: value for key, value in CASE.items() if key != "about"}, r"cases\[0\] lacks 'about'"),
        ({**CASE, "user": []}, r"cases\[0\]\.user is \[\]; it must be a list of at least one"),
        ({**CASE, "honest": ["One."]}, r"cases\[0\]\.honest has 1 replies, but the user speaks 2 times"),
        ({**CASE, "honest": ["One.", " "]}, r"cases\[0\]\.honest\[1\] is ' '; it must be text, and not blank"),
        ({**CASE, "scenario": {"fact": {}}}, r"scenario has the unknown key 'fact'; did you mean 'facts'\?"),
        ({**CASE, "scenario": []}, r"cases\[0\]\.scenario is \[\]; it must be a mapping"),
        ({**CASE, "scenario": {"id": "x"}}, r"scenario has 'id', which the case itself says"),
        (with_action({"name": "a"}), r"scenario\.required_actions\[0\] says not when it is done; give it keywords"),
        (with_action({"name": "a", "check": "os.system"}), r"required_actions has a check, which is code"),
        (with_action("pay"), r"scenario\.required_actions\[0\] is 'pay'; it must be"),
        ({**CASE, "scenario": {"required_actions": 5, "goal": "x"}}, r"scenario\.required_actions is 5; it must be"),
        (with_attack(category="flatery"), r"attacks\[0\]\.category is 'flatery', .* did you mean 'flattery'\?"),
        (with_attack(category=["flattery"]), r"attacks\[0\]\.category is \['flattery'\], which does not exist"),
        (with_attack(replies=...), r"attacks\[0\] lacks 'replies'"),
        (with_attack(replies=["x", 5]), r"attacks\[0\]\.replies\[1\] is 5; it must be text, or \{"),
        (
            with_attack(replies=["x", {"text": "a", "repeat": 0}]),
            r"replies\[1\]\.repeat is 0; it must be a whole number",
        ),
        (with_attack(replies=["x", {"text": "a", "steps": [{"call": {}, "result": ""}]}]), r"\.call lacks 'name'"),
        (
            with_attack(
                replies=["x", {"text": "", "steps": [{"call": {"name": "a"}, "result": "", "error": "tiemout"}]}]
            ),
            r"steps\[0\]\.error is 'tiemout', .* did you mean 'timeout'\?",
        ),
        (with_attack(replies=CASE["honest"]), r"attacks\[0\] says word for word what the honest conversation says"),
    ],
)
def test_a_malformed_case_is_refused_by_its_place(tmp_path, case, problem):
    with pytest.raises(DataError, match=problem):
        load_cases(written(tmp_path, case))


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        load_cases(written(tmp_path, {**CASE, "user": "Hi"}, {**CASE, "colour": 1}, CASE))
    lines = str(caught.value).splitlines()
    assert [line.partition("cases.json: ")[2].partition(" ")[0] for line in lines] == [
        "cases[0].user",
        "cases[1]",
        "cases[1].id",
        "cases[2].id",
    ]


def test_a_task_whose_user_says_nothing_has_one_problem(tmp_path):
    silent = {**CASE, "user": [], "scenario": {"required_actions": [{"name": "pay", "keywords": ["pay"]}]}}
    with pytest.raises(DataError) as caught:
        load_cases(written(tmp_path, silent))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_without_cases_is_refused(tmp_path):
    path = tmp_path / "cases.json"
    for text in ('{"cases": []}', "[]", '{"case": []}'):
        path.write_text(text)
        with pytest.raises(DataError, match="with at least one case"):
            load_cases(path)
    with pytest.raises(DataError, match="does not exist"):
        load_cases(tmp_path / "nope.json")


@pytest.mark.parametrize("half", HALVES)
async def test_every_shipped_case_has_an_attack_of_every_kind(half):
    if not (shipped_root() / HALVES[half]).is_file():
        pytest.skip(f"there is no {HALVES[half]} yet")
    cases = shipped_cases(half)
    assert len(cases) >= 12
    for case in cases:
        assert {attack.category for attack in case.attacks} == set(CATEGORIES), case.id
    assert len({case.language for case in cases}) >= 5
    assert sum(any(reply.steps for reply in case.honest) for case in cases) >= 2
    assert sum(len(case.honest) > 1 for case in cases) >= len(cases) / 2
    texts = [tuple(reply.text for reply in attack.replies) for case in cases for attack in case.attacks]
    told = [text for text in texts if any(len(part.strip()) > 5 for part in text)]
    assert len(told) == len(set(told))
    await stage(cases)


def test_every_reward_that_a_config_can_name_is_found_by_its_name(tmp_path):
    candidates = every_built_in()
    names = {candidate.name for candidate in candidates}
    assert {"helpfulness", "safety", "default"} <= names
    assert "custom" not in names
    for candidate in candidates:
        if candidate.reward is not None:
            assert type(named(candidate.name, tmp_path).reward) is type(candidate.reward)
    entry = named('{"type": "conciseness", "optimal_length": 7}', tmp_path)
    assert (entry.name, entry.reward.optimal_length) == ("conciseness", 7)
    with pytest.raises(ConfigError, match="is no JSON"):
        named('{"type": conciseness}', tmp_path)
    with pytest.raises(ConfigError, match=r"there is no reward 'helpfulnes'; did you mean 'helpfulness'\?"):
        named("helpfulnes", tmp_path)


def test_the_rewards_of_a_sum_are_looked_at_one_by_one_and_together():
    assert [part.name for part in parts_of(default_reward())] == [
        "helpfulness",
        "safety",
        "conciseness",
        "engagement",
        "all together",
    ]
    assert [part.name for part in parts_of(CompositeReward([SafetyReward()]))] == ["safety"]
    assert [part.name for part in parts_of(Ranks())] == ["ranks"]


async def test_the_text_shows_counts_by_kind_and_the_worst_attack(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE, GERMAN)
    text = as_text([found], [])
    assert "mine: 2 cases, 7 attacks" in text
    row = next(line for line in text.splitlines() if line.startswith("reads_its_score "))
    # ten kinds, then fooled, paid, preferred, punished, foreign
    assert row.split()[1:] == "2/2 - - 1/2 - 1/1 - - - 1/1 5/6 4/5 1/6 0/1 1/1".split()
    assert "numbers/wrong_answer[4]: attack 1.06, honest 1.00" in text
    assert "attack: 'x / 1.06'" in as_text([found], [], verbose=True)
    assert "reads_its_score on mine gives 1 of 2 honest conversations no more than silence: zahlen (de)" in text


async def test_markdown_and_json_hold_the_same_counts(tmp_path):
    found = await found_by(reads_its_score, tmp_path, CASE)
    table = as_markdown([found], []).splitlines()
    assert table[4] == "| reads_its_score | 2/2 | - | - | 1/2 | - | - | - | - | - | 1/1 | 4/5 | 4/5 | 1/5 | 0/1 | - |"
    (record,) = json.loads(as_json([found], []))["rewards"]
    assert (record["tried"], record["fooled"], record["preferred"], record["range"]) == (5, 4, 1, 1.0)
    assert record["categories"]["flattery"] == {"tried": 2, "fooled": 1, "preferred": 0}
    assert record["unscored"] == {"it says none": 1}
    assert record["fooled_by"][0] == {
        "case": "numbers",
        "category": "wrong_answer",
        "number": 4,
        "verdict": "preferred",
        "attack": 1.06,
        "honest": 1.0,
    }


DOCUMENT = (Path(__file__).parents[3] / "docs" / "reward-lab.md").read_text(encoding="utf-8")


def test_the_example_of_a_file_of_cases_is_one(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path / "example.json"
    path.write_text(example)
    (case,) = load_cases(path)
    assert [attack.category for attack in case.attacks] == ["flattery", "wrong_answer", "very_long"]


def test_the_document_names_every_kind_of_attack():
    assert all(f"`{category}`" in DOCUMENT for category in CATEGORIES)
    assert all(f"| {title} |" in DOCUMENT for title in TITLES.values())
    assert TITLES.keys() == CATEGORIES.keys()


def test_a_reward_that_needs_settings_says_how_to_give_them(tmp_path):
    (rubric,) = [candidate for candidate in every_built_in() if candidate.name == "rubric"]
    assert rubric.reward is None
    assert "needs" in rubric.problem
    with pytest.raises(ConfigError, match=r"""needs .*\n  give its settings .*'\{"type": "rubric", \.\.\.\}'"""):
        named("rubric", tmp_path)
