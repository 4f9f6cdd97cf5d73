"""The shipped scenarios, tasks and configs: what they promise about themselves holds."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stateset_agents.config.resolve import load_config
from stateset_agents.core.facts import implies, provided_topics, states_fact, unmatchable_facts
from stateset_agents.core.reward import build_rewards, default_reward, load_ground_truth
from stateset_agents.core.scenario import load_scenarios
from stateset_agents.core.trajectory import ConversationTurn as Turn

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "data"
SCRIPT = ROOT / "scripts" / "make_customer_service_data.py"
TRAIN = load_scenarios(DATA / "customer_service_scenarios.json")
HELDOUT = load_scenarios(DATA / "customer_service_heldout.json")
REFERENCE = load_scenarios(DATA / "scenarios.json")
EVERY = [*TRAIN, *HELDOUT, *REFERENCE]


def by_id(scenarios):
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.id)


def test_the_files_are_what_the_script_writes():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_writes_what_is_missing(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_customer_service_data", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "DATA", tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "--check"])
    assert script.main() == 1
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["script"])
    assert script.main() == 0
    assert "written: customer_service_heldout.json" in capsys.readouterr().out
    assert load_scenarios(tmp_path / "customer_service_scenarios.json") == TRAIN


def test_there_are_enough_scenarios_of_many_kinds():
    assert len(TRAIN) >= 64
    assert len(HELDOUT) >= 24
    assert len({scenario.metadata["category"] for scenario in TRAIN}) >= 6
    assert {scenario.metadata["difficulty"] for scenario in TRAIN} == {"easy", "medium", "hard"}
    assert {len(scenario.user_responses) for scenario in TRAIN} == {2, 3}


def test_heldout_scenarios_share_nothing_with_those_trained_on():
    def shared(what):
        return set(itertools.chain.from_iterable(map(what, TRAIN))) & set(
            itertools.chain.from_iterable(map(what, HELDOUT))
        )

    assert not shared(lambda scenario: [scenario.id])
    assert not shared(lambda scenario: [scenario.topic])
    assert not shared(lambda scenario: [" ".join(scenario.topic.split()[1:])])
    assert not shared(lambda scenario: scenario.topic.lower().split()[:1])
    assert not shared(lambda scenario: scenario.facts.values())
    assert not shared(lambda scenario: [text.lower() for text in scenario.user_responses])


@by_id([*TRAIN, *HELDOUT])
def test_a_customer_asks_for_one_fact_in_each_turn_and_some_facts_are_left_to_leave_out(scenario):
    assert len(scenario.facts) in (4, 5)
    assert len(scenario.user_responses) == len(scenario.topics) == scenario.expected_turns
    assert len(scenario.topics) < len(scenario.facts)
    assert len(set(scenario.user_responses)) == len(scenario.user_responses)
    assert all(len(text.split()) <= 16 for text in scenario.user_responses)


@by_id(EVERY)
def test_the_agents_card_states_every_fact_and_no_fact_states_another(scenario):
    assert not unmatchable_facts(scenario.facts)
    wordings = {topic: [fact] if isinstance(fact, str) else fact for topic, fact in scenario.facts.items()}
    assert all(states_fact(scenario.agent_context, fact) for fact in scenario.facts.values())
    assert not any(states_fact(text, fact) for text in scenario.user_responses for fact in scenario.facts.values())
    for one, other in itertools.permutations(wordings, 2):
        assert not any(implies(a, b) for a in wordings[one] for b in wordings[other]), (one, other)


@by_id(EVERY)
async def test_reading_out_the_card_provides_everything_and_earns_less_than_answering(scenario):
    context = {
        "scenario": scenario.to_dict(),
        "scenario_id": scenario.id,
        "facts": scenario.facts,
        "information_provided": scenario.topics,
        "expected_turns": scenario.expected_turns,
    }
    first = {topic: fact if isinstance(fact, str) else fact[0] for topic, fact in scenario.facts.items()}
    asked = iter(scenario.topics)
    skipped = len(scenario.user_responses) - len(scenario.topics)
    answers = [
        f"The {topic} is {first[topic]}." if i >= skipped and (topic := next(asked)) else f"Yes, the {scenario.topic}."
        for i in range(len(scenario.user_responses))
    ]

    async def play(replies):
        pairs = zip(scenario.user_responses, replies, strict=True)
        turns = [turn for said, reply in pairs for turn in (Turn("user", said), Turn("assistant", reply))]
        return turns, (await default_reward().evaluate(turns, context)).score

    turns, answered = await play(answers)
    assert all(provided_topics(turns, scenario.facts, scenario.topics).values())
    turns, recited = await play([scenario.agent_context] * len(answers))
    assert all(provided_topics(turns, scenario.facts, scenario.topics).values())
    assert recited < answered - 0.2


def test_system_prompt_and_card_are_short_enough_for_a_small_model():
    tokenizers = pytest.importorskip("stateset_agents.models").load_tokenizer
    tokenizer = tokenizers("smollm2-135m-instruct")
    config = load_config(ROOT / "configs" / "customer_service.yaml")
    prompt = config.agent.system_prompt
    longest = max(
        len(tokenizer(f"{prompt}\n{scenario.agent_context}", add_special_tokens=False)["input_ids"])
        for scenario in [*TRAIN, *HELDOUT]
    )
    assert longest <= 110


def test_ground_truth_and_facts_of_the_reference_scenarios_agree():
    truth = load_ground_truth(DATA / "ground_truth.json")
    assert set(truth) == {scenario.id for scenario in REFERENCE}
    for scenario in REFERENCE:
        answer = truth[scenario.id]
        wordings = answer.values() if isinstance(answer, dict) else [answer]
        assert all(states_fact(scenario.agent_context, wording) for wording in wordings)


def test_tasks_have_what_a_task_needs():
    tasks = json.loads((DATA / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    assert len({task["id"] for task in tasks}) == len(tasks) >= 3
    for task in tasks:
        assert task["description"]
        assert task["goal"]
        assert task["user_responses"]
        assert all(action["name"] and action["keywords"] for action in task["required_actions"])


@pytest.mark.parametrize("name", ["customer_service", "tutoring", "my_agent", "quickstart"])
def test_a_shipped_config_loads_with_its_rewards_and_scenarios(name):
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    specs = [spec.model_dump(exclude_none=True) for spec in config.rewards]
    reward = build_rewards(specs, config.combination_method, ROOT / "configs")
    assert reward.attainable == pytest.approx(1.0)
    assert config.agent.model_name == "smollm2-135m-instruct"
    assert config.training.plan.total_steps >= 10
