"""Evaluation: real environment, real rewards, an agent without a model; numbers by hand."""

import json
from dataclasses import replace

import pytest

from stateset_agents.agents import Agent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ConfigError, DataError
from stateset_agents.core.outcome import Outcome, StopReason
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.core.scenario import Scenario
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.evaluation import EvaluationResult, SuccessCriterion, evaluate, group_metrics
from stateset_agents.evaluation.metrics import repeated_share

SCENARIOS = [
    {"id": "price", "type": "sales", "user_responses": ["What does it cost?", "And a year?"]},
    {"id": "refund", "metadata": {"category": "returns"}, "user_responses": ["I want my money back."]},
    {"id": "broken", "metadata": {"category": "returns"}, "user_responses": ["It broke."]},
]


class Clerk(Agent):
    """Says its key's sample number, so that samples differ."""

    async def process_turn(self, history, user_input, context=None):
        assert not self.training_sampling
        return ConversationTurn("assistant", f"answer {self.key.rsplit('/', 1)[1]} to {user_input}")


class Table(RewardFunction):
    """Reward by scenario and sample, looked up in a table; an exception there is raised."""

    attainable = 2.0

    def __init__(self, table):
        super().__init__()
        self.table = table

    async def compute_reward(self, turns, context=None):
        sample = int(turns[1].content.split()[1])
        value = self.table[context["scenario_id"]][sample]
        if isinstance(value, Exception):
            raise value
        if value is None:
            return RewardResult.unscored("no ground truth")
        return RewardResult(value, breakdown={"facts": value / 2, "turn_0": 9.0})


TABLE = {"price": [0.0, 1.0], "refund": [2.0, 2.0], "broken": [1.0, ZeroDivisionError("division by zero")]}


async def run(table=TABLE, **arguments):
    environment = ConversationEnvironment(scenarios=SCENARIOS)
    return await evaluate(Clerk(), environment, SCENARIOS, Table(table), **({"samples": 2} | arguments))


async def test_every_number_of_a_small_evaluation_by_hand():
    result = await run()
    # Scenario means 0.5, 2.0, 1.0; a success is a reward of at least 1.0, half of 2.0.
    assert result.reward.mean == pytest.approx(3.5 / 3)
    assert result.success.mean == pytest.approx((0.5 + 1.0 + 1.0) / 3)
    assert (result.reward.scenarios, result.reward.episodes) == (3, 5)
    assert result.components == {"facts": (pytest.approx(0.6), pytest.approx(0.3741657))}
    assert result.reward_std == pytest.approx(0.7483315)  # of 0, 1, 2, 2, 1
    assert result.length == (pytest.approx(1.4), pytest.approx(0.4898979))  # 2, 2, 1, 1, 1 assistant turns
    assert result.failures == {"reward": 1}
    assert result.metrics() == {
        "eval_reward_mean": result.reward.mean,
        "eval_reward_low": result.reward.low,
        "eval_reward_high": result.reward.high,
        "eval_success_rate": result.success.mean,
        "eval_length_mean": pytest.approx(1.4),
        "eval_episodes": 6,
        "eval_failed": 1,
        "eval_seconds": result.seconds,
    }


async def test_the_tables_by_scenario_and_category():
    result = await run()
    rows = [(r.id, r.category, r.episodes, r.failed, r.reward, r.success, r.length) for r in result.by_scenario]
    assert rows == [
        ("price", "sales", 2, 0, 0.5, 0.5, 2.0),
        ("refund", "returns", 2, 0, 2.0, 1.0, 1.0),
        ("broken", "returns", 1, 1, 1.0, 1.0, 1.0),
    ]
    sales, returns = result.by_category
    assert (sales.name, sales.scenarios, sales.reward.mean) == ("sales", 1, 0.5)
    assert (returns.name, returns.scenarios, returns.reward.mean, returns.success.mean) == ("returns", 2, 1.5, 1.0)


async def test_pass_at_k_and_pass_hat_k_are_over_the_scenarios_with_enough_samples():
    result = await run()
    # price 1 of 2, refund 2 of 2; broken has one judged sample only.
    assert result.pass_rates(2) == (1.0, 0.5)
    assert result.pass_rates(1) == (pytest.approx(2.5 / 3), pytest.approx(2.5 / 3))
    assert result.pass_rates(3) is None


async def test_the_json_form_is_strict_json_and_holds_the_conversations_on_request():
    result = await run()
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data["success_criterion"] == "a reward of at least 1, half of the attainable 2"
    assert data["pass_hat_k"] == {"1": pytest.approx(2.5 / 3), "2": 0.5}
    assert data["by_scenario"][2]["failed"] == 1
    assert "episodes" not in data
    episodes = result.to_dict(episodes=True)["episodes"]
    assert [e["outcome"] for e in episodes] == ["ok", "ok", "ok", "ok", "ok", "reward"]
    assert episodes[0]["turns"][0]["content"] == "What does it cost?"


async def test_the_summary_says_what_was_left_out_and_why():
    text = (await run()).summary()
    assert "3 scenarios x 2 samples" in text
    assert "reward   1.167 (95 % interval " in text
    assert " of 2" in text
    assert "by a reward of at least 1, half of the attainable 2" in text
    assert "1 of 6 episodes are in no mean: 1 reward" in text
    assert "first error: compute_reward: ZeroDivisionError: division by zero" in text


async def test_an_evaluation_in_which_nothing_could_be_scored_is_a_result_and_no_crash():
    error = RuntimeError("judge is down")
    result = await run({"price": [error, error], "refund": [error, error], "broken": [None, None]})
    assert (result.reward, result.success, result.length, result.reward_std) == (None, None, None, None)
    assert result.failures == {"reward": 4, "unscored": 2}
    assert "no episode could be scored" in result.summary()
    assert result.metrics()["eval_reward_mean"] is None
    assert [row.reward for row in result.by_scenario] == [None, None, None]


async def test_the_agent_is_left_as_it_was_and_samples_as_its_config_says():
    agent = Clerk()
    agent.training_sampling = True
    environment = ConversationEnvironment(scenarios=SCENARIOS)
    result = await evaluate(agent, environment, SCENARIOS, Table(TABLE), samples=2)  # Clerk asserts its sampling
    assert result.failures == {"reward": 1}
    assert agent.training_sampling
    assert agent.key == ""


async def test_the_key_names_the_episodes_and_each_is_told_as_it_ends():
    told = []
    result = await run(key="held-out", on_episode=lambda episode: told.append(episode.key))
    assert sorted(told) == sorted(f"held-out/{s['id']}/{i}" for s in SCENARIOS for i in range(2))
    assert [e.key for e in result.groups[0].trajectories] == ["held-out/price/0", "held-out/price/1"]


async def test_no_scenarios_repeated_ids_and_what_is_no_reward_are_refused():
    environment = ConversationEnvironment(scenarios=SCENARIOS)
    with pytest.raises(DataError, match="no scenarios to evaluate on"):
        await evaluate(Clerk(), environment, [], None)
    with pytest.raises(DataError, match="has already"):
        await evaluate(Clerk(), environment, [SCENARIOS[0], SCENARIOS[0]], None)
    with pytest.raises(ConfigError):
        await evaluate(Clerk(), environment, SCENARIOS, "helpfulness")


def episode(reward, success=None, outcome=Outcome.OK, turns=1):
    return MultiTurnTrajectory(
        "s",
        reward=reward,
        success=success,
        outcome=outcome,
        turns=[ConversationTurn("assistant", "Yes.") for _ in range(turns)],
    )


def test_the_environments_criterion_comes_before_half_the_reward():
    criterion = SuccessCriterion(1.0)
    assert criterion.succeeded(episode(0.9, success=False)) is False
    assert criterion.succeeded(episode(0.1, success=True)) is True
    assert criterion.succeeded(episode(0.5)) is True
    assert criterion.succeeded(episode(0.49)) is False
    assert SuccessCriterion(None).succeeded(episode(0.9)) is None


def test_the_criterion_is_said_in_words():
    stated, silent = episode(1.0, success=True), episode(1.0)
    assert SuccessCriterion(1.0).text([stated]) == "the environment's criterion"
    assert SuccessCriterion(2.4).text([silent]) == "a reward of at least 1.2, half of the attainable 2.4"
    assert SuccessCriterion(1.0).text([stated, silent]).startswith("the environment's criterion, elsewhere a reward of")
    assert SuccessCriterion(None).text([silent]) == "nothing states a criterion"
    assert SuccessCriterion(None).text([stated, silent]) == "the environment's criterion, where it states one"


def test_the_metrics_of_a_step_by_hand():
    groups = [
        TrajectoryGroup.of("a", [episode(0.0, turns=1), episode(1.0, turns=3), episode(None, outcome=Outcome.USER)]),
        TrajectoryGroup.of("b", [episode(0.5), episode(0.5, outcome=Outcome.TRUNCATED)]),
        TrajectoryGroup.of("c", [episode(1.0), episode(None)]),
    ]
    ends = (StopReason.LENGTH, StopReason.CONTEXT, StopReason.STOP)
    for turn, reason in zip(groups[0].trajectories[1].turns, ends, strict=True):
        turn.stop_reason = reason
    assert group_metrics(groups, SuccessCriterion(1.0)) == {
        "reward_mean": pytest.approx(0.6),  # 0, 1, 0.5, 0.5, 1
        "reward_std": pytest.approx(0.3741657),
        "reward_min": 0.0,
        "reward_max": 1.0,
        "reward_diversity": 0.25,  # 0.5 and 0; c has no baseline
        "zero_variance_share": 0.5,
        "success_rate": 0.8,
        "length_mean": 1.4,
        "step_episodes": 7,
        "failed": 1,
        "failed_agent": 0,
        "failed_user": 1,
        "failed_environment": 0,
        "failed_reward": 0,
        "unscored": 1,
        "truncated": 1,
        "edited_turns": 0,
        "replies": 7,
        "cut_replies": 1,
        "repeated_ngrams": None,  # no reply has four words
    }


def test_repetition_is_the_share_of_a_replys_4_grams_that_it_said_before():
    row = TokenRow()
    # 1 2 3 4, 2 3 4 1, 3 4 1 2, 4 1 2 3 and then 1 2 3 4 again
    loop = ConversationTurn("assistant", "x", span=row.append_sampled([1, 2, 3, 4, 1, 2, 3, 4], [-1.0] * 8, 0))
    assert repeated_share(loop) == pytest.approx(1 / 5)
    assert repeated_share(ConversationTurn("assistant", "no no no no no no")) == pytest.approx(2 / 3)
    assert repeated_share(ConversationTurn("assistant", "far too short")) is None


def test_a_step_in_which_everything_failed_has_counts_and_no_means():
    groups = [TrajectoryGroup.of("a", [episode(None, outcome=Outcome.USER)])]
    row = group_metrics(groups, SuccessCriterion(1.0))
    assert (row["failed"], row["reward_mean"], row["reward_diversity"], row["reward_max"]) == (1, None, None, None)


def test_scenarios_without_a_category_are_grouped_by_type_or_as_other():
    scenarios = (Scenario("a", ("Hi",), type="sales"), Scenario("b", ("Hi",)))
    groups = tuple(TrajectoryGroup.of(s.id, [episode(1.0)]) for s in scenarios)
    result = EvaluationResult(scenarios, groups, SuccessCriterion(1.0), 1, "k", 0.0)
    assert [row.name for row in result.by_category] == ["sales", "other"]


async def test_a_reward_that_states_no_maximum_has_no_success_rate():
    result = await evaluate(Clerk(), ConversationEnvironment(scenarios=SCENARIOS), SCENARIOS, lambda turns: 7.0)
    assert (result.reward.mean, result.success, result.to_dict()["attainable"]) == (7.0, None, None)
    assert "nothing states a criterion" in result.to_dict()["success_criterion"]
    assert " of 1" not in result.summary()


async def test_each_episode_is_judged_once_however_many_rows_are_asked_for():
    class Counting(SuccessCriterion):
        def succeeded(self, episode):
            judged.append(episode.key)
            return super().succeeded(episode)

    judged = []
    result = replace(await run(), criterion=Counting(2.0))
    assert len(result.by_scenario) == 3
    assert result.by_category
    assert result.pass_rates(1)
    assert sorted(judged) == sorted(episode.key for episode in result.episodes)
