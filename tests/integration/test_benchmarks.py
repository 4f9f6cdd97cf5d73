"""The benchmark scripts run; what they measure is in `docs/benchmarks.md`."""

import importlib
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stateset_agents.config.algorithms import RECIPES
from stateset_agents.core.errors import ConfigError
from taught_shop import taught_shop

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not part of a source distribution")


@pytest.fixture
def algorithms(monkeypatch):
    """The script as a module, on a machine without matplotlib."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    yield importlib.import_module("algorithms")
    for name in ("algorithms", "toy_task"):  # too plain to be left behind
        del sys.modules[name]


def test_every_algorithm_has_settings_for_the_toy_task_and_they_are_its_own(algorithms):
    """Mutation: a setting that has no effect on its algorithm, which a config refuses."""
    assert list(algorithms.SETTINGS) == list(RECIPES)
    task_config = sys.modules["toy_task"].task_config
    for name, setting in algorithms.SETTINGS.items():
        file = {"data_file": "answers.jsonl"} if name == "sft" else {}
        config = task_config(setting.most_steps, algorithm=name, **file, **setting.changes)
        assert config.plan.total_steps == setting.most_steps


async def test_a_run_ends_after_its_steps_or_at_the_goal(algorithms, monkeypatch):
    """Mutation: the goal is not looked at; the settings do not reach the run."""
    two = await algorithms.train("rft", 0, most_steps=2)
    assert (two["steps"], len(two["curve"]), len(two["second"])) == (None, 2, 2)
    assert two["second"][0] < -3.0  # a random model over 512 tokens
    result = await algorithms.run(0, algorithm="dpo", goal=two["curve"][0], most_steps=2)
    assert result.steps == 1
    assert result.rows[0]["preference_accuracy"] == 0.0  # the policy is still the reference
    monkeypatch.setitem(algorithms.SETTINGS, "rft", algorithms.Setting({"clip_low": 0.1}))
    with pytest.raises(ConfigError, match="clip_low has no effect on rft"):
        await algorithms.train("rft", 0)


async def test_chance_is_the_same_in_whatever_order_conversations_end(algorithms):
    """Mutation: numbers drawn in the order of the calls."""

    async def rewards(*talks):
        reward = sys.modules["toy_task"].Share(7, noise=0)
        turns = [SimpleNamespace(span=SimpleNamespace(ids=ids), content=str(ids)) for ids in talks]
        return [(await reward.compute_reward([turn])).score for turn in turns]

    first, other, again = await rewards([7, 7], [3, 4], [7, 7])
    assert len({first, other, again}) == 3
    assert await rewards([3, 4], [7, 7], [7, 7]) == [other, first, again]


def test_what_was_not_kept_is_told_and_written_without_matplotlib(algorithms, monkeypatch, tmp_path, capsys):
    """Mutation: `problems` looks at one of the seeds, or not at all."""
    monkeypatch.setitem(algorithms.SETTINGS, "grpo", algorithms.Setting(most_steps=1))
    with pytest.raises(SystemExit, match=r"grpo did not reach 0\.9 with seed 0: 0\.0\d+ in 1 steps"):
        algorithms.main(["--only", "grpo", "--seeds", "1", "--output-dir", str(tmp_path)])
    printed = capsys.readouterr()
    assert "| grpo | none of 1 | " in printed.out
    assert "pip install 'grpo-agent-framework[plots]'" in printed.err
    (result,) = json.loads((tmp_path / "algorithms.json").read_text())["results"]
    assert len(result["runs"][0]["curve"]) == len(result["control"]["curve"]) == 1


def test_every_broken_promise_is_told(algorithms):
    """Mutation: `problems` looks at the first seed alone, or not at the control."""
    kept = {"seed": 0, "steps": 6, "best": 0.91, "second": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]}
    failed = kept | {"seed": 1, "steps": None, "best": 0.4}
    chance = {"seed": 0, "steps": None, "best": 0.05, "second": [0.0, 0.5]}

    def found(name, runs, control):
        return algorithms.problems([{"algorithm": name, "most_steps": 30, "runs": runs, "control": control}])

    assert found("dpo", [kept], chance) == []
    assert found("dpo", [kept, failed], chance) == ["dpo did not reach 0.9 with seed 1: 0.4 in 30 steps"]
    assert found("dpo", [kept], kept) == ["dpo reached 0.9 with rewards by chance"]
    unsure, unlikely = kept | {"second": [0.0, 1.0, 0.5, 0.0]}, kept | {"second": [-5.0, -5.5]}
    assert found("dpo", [unsure], chance) == ["dpo agrees with 38% of its pairs at the end"]
    assert found("rft", [unlikely], chance) == ["rft finds what it imitates no likelier than at first"]


@pytest.fixture
def tool_calls(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("tool_calls")
    del sys.modules["tool_calls"]


@pytest.mark.parametrize("awaited", [False, True])
async def test_the_tools_of_all_conversations_are_under_way_at_once(tool_calls, awaited):
    """Mutation: calls in an executor of two threads."""
    clock = await tool_calls.ours(together=True, awaited=awaited)
    assert clock.most_at_once() == tool_calls.CONVERSATIONS
    assert clock.span() >= tool_calls.ROUNDS * tool_calls.SECONDS
    alone = await tool_calls.ours(together=False, awaited=awaited)
    assert alone.most_at_once() == 1


def test_the_dashboards_times_are_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("dashboard")
    monkeypatch.setattr(sys, "argv", ["dashboard.py", "--steps", "3000"])
    script.main()
    del sys.modules["dashboard"]
    said = capsys.readouterr().out
    assert said.startswith("3,000 steps, 4 MB\n")
    assert ("the reward curve is painted: " in said) or ("verdict and curve are answered: " in said)
    assert "every row in the curves: " in said
    assert "one step: " in said


@pytest.fixture
def interruptions(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("interruptions")
    del sys.modules["interruptions"]


def test_a_run_told_to_stop_while_a_tool_hangs_is_gone_at_once_and_resumes_to_the_same_bytes(
    interruptions, launcher, tmp_path
):
    """Mutation: the thread of a tool is waited for at the end; a rollout is finished before the run stops."""
    work = taught_shop(tmp_path, launcher)
    row = interruptions.interrupt(work, "tool call, in a thread", signal.SIGTERM)
    assert interruptions.broken(row) == []
    assert row["seconds"] < 5


def test_the_run_of_a_model_begins_after_its_first_step_and_is_compared_with_an_undisturbed_one(
    interruptions, launcher, tmp_path
):
    work = interruptions.run_of_a_model(tmp_path, launcher, "tiny")
    row = interruptions.interrupt_model(work, "loading", signal.SIGTERM)
    assert interruptions.broken(row) == []
    assert row["told"] == ["  grpo-train run.json --output-dir run --resume"]
    whole = interruptions.digests(work, "whole")
    assert (len(whole), len(whole["metrics.jsonl"])) == (4, 3)  # two models, the optimizer, three rows
    assert not (work.path / "run").exists()


def test_every_promise_to_an_interrupted_run_is_looked_at(interruptions):
    """Mutation: one of them is not."""
    kept = {"phase": "saving", "signal": "SIGINT", "seconds": 1.0, "code": 75, "saved": 3, "expected": 3, "equal": True}
    kept |= {"told": [], "different": []}
    assert interruptions.broken(kept) == []
    for broken in ({"seconds": 11.0}, {"code": 0}, {"saved": 2}, {"equal": False}):
        assert len(interruptions.broken(kept | broken)) == 1
    assert interruptions.broken(kept | {"phase": "final save", "code": 0}) == []


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("soak")
    del sys.modules["soak"]


def looks(minutes, **rising):
    """A look each ten seconds at a process that is flat, but for what rises by so much an hour."""
    flat = {"memory": 500.0, "descriptors": 20, "threads": 10, "tasks": 2, "rows": 1.0}
    return [
        {"minute": second / 60, **{name: value + rising.get(name, 0) * second / 3600 for name, value in flat.items()}}
        for second in range(0, 60 * minutes + 1, 10)
    ]


@pytest.mark.parametrize(
    ("rising", "told"),
    [
        ({}, []),
        ({"memory": 4.9}, []),
        ({"memory": 5.1}, ["memory rises by 5.1 MB an hour (standard error 0.0)"]),
        ({"memory": 8.0, "rows": 4.0}, []),
        ({"descriptors": 2.0, "threads": 2.0}, []),
        ({"threads": 5.0}, ["threads: 14.3 (end), 10.6 at first", "threads: 14.9 (resumed), 10.6 at first"]),
        ({"tasks": 2.6}, ["asyncio tasks: 4.6 (resumed), 2.3 at first"]),
    ],
    ids=str,
)
def test_what_is_not_flat_in_an_hour_is_told(soak, rising, told):
    """Medians: from minute 5 to 10, from 49 to 54, and from 58 to 60, so after 7.5, 51.5 and 59 minutes.

    Mutation: what the rows take is not counted off; the end, or what was resumed, is not looked at.
    """
    found = soak.problems({"summary": soak.summary(looks(60, **rising), 60), "injected": {}})
    assert found == told


def test_noise_is_no_rise_and_a_kind_of_failure_that_hardly_comes_is_told(soak):
    """Mutation: the standard error is left out, above 20 MB an hour here. The standard error of 900 calls is 9."""
    rows = looks(60, memory=20.0)
    for place, row in enumerate(rows):
        row["memory"] += 8.0 * (-1) ** (place // 16)
    taken = soak.summary(rows, 60)
    injected = {"rare": [900, 53], "often": [900, 127], "just": [900, 55], "too few to say": [100, 0]}
    assert soak.problems({"summary": taken, "injected": injected}) == [
        "rare: 53 of 900 calls",
        "often: 127 of 900 calls",
    ]
    chance = soak.Chance(0)
    struck = [chance.strikes("one") for _ in range(2000)]
    again = soak.Chance(0)
    assert [(again.strikes("other"), again.strikes("one"))[1] for _ in range(2000)] == struck  # each kind has its own
    assert chance.counts() == {"one": [2000, sum(struck)]}
    assert 160 <= sum(struck) <= 240


@pytest.mark.slow
def test_a_short_soak_meets_every_kind_of_failure_and_its_files_tell_of_them(soak, tmp_path):
    """Mutation: an injection that is not made, or not counted."""
    result = soak.measure(tmp_path, 1.0, 0)
    injected, seen = result["injected"], result["seen"]
    assert len(injected) == 20
    assert result["steps"] >= 1
    for kind in ("environment raises", "environment hangs", "the reward raises", "a tool raises"):
        assert 0 < seen[kind] <= injected[kind][1]
