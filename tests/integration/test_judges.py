"""Judges behind a real server on loopback, which misbehaves by script: how many valid samples are left."""

import itertools
import json
import re
import sqlite3
from collections import Counter

import pytest

from endpoint_server import BROKEN, BUSY, CUT, HANG, MALFORMED, says, tiny_model
from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.agents.local_chat import LocalChat
from stateset_agents.core.agent import AgentConfig
from stateset_agents.core.outcome import Outcome
from stateset_agents.engines.endpoint import Endpoint
from stateset_agents.rewards.group_judge import GroupJudgeReward
from stateset_agents.rewards.llm_judge import LLMJudgeReward
from stateset_agents.rollouts import RolloutCounts, collect_groups, with_baseline

SCENARIOS = [{"id": name, "user_responses": [f"{name}?", "Thanks."]} for name in ("price", "order", "refund")]
FAULTS = [BROKEN, BUSY, HANG, MALFORMED, CUT]
BABBLE = says("I would give it a seven.")
CANARY = "sk-canary-77aa41"


def score(body):
    """A score that differs between conversations: 0 to 10 by the evidence's length."""
    return json.dumps({"score": len(body["messages"][1]["content"]) % 11})


def evidence(body):
    return body["messages"][1]["content"]


def every_fifth_conversation(*faults):
    """Conversations are counted as they are first seen; every fifth one fails, however often it is asked about."""
    seen = {}

    def behaviour(number, body):
        place = seen.setdefault(evidence(body), len(seen))
        return faults[place // 5 % len(faults)] if place % 5 == 4 else score(body)

    behaviour.seen = seen
    return behaviour


def judge(server, kind=LLMJudgeReward, **more):
    return kind(Endpoint(server.base_url, "judge", **{"seconds": 3.0, "first_wait": 0.01, **more}))


async def play(reward, group_size=5, **more):
    agent = MultiTurnAgent(AgentConfig("tiny", temperature=1.0, max_new_tokens=6))
    environment = ConversationEnvironment(scenarios=SCENARIOS)
    groups = await collect_groups(
        agent, environment, environment.episode_scenarios(), reward, group_size=group_size, key="k", **more
    )
    await agent.aclose()
    return groups


async def test_a_fifth_of_the_requests_that_fails_in_passing_costs_no_sample(endpoint_server):
    faults = itertools.cycle(FAULTS)
    server = endpoint_server(lambda number, body: next(faults) if number % 5 == 4 else score(body))
    groups = await play(judge(server))
    assert RolloutCounts.of(groups) == RolloutCounts(episodes=15, scored=15)
    # 15 answers are needed. Of 18 requests, numbers 4, 9 and 14 fail: 15 are answered, the last one among them.
    assert server.count == 18


async def test_a_fifth_of_the_conversations_that_cannot_be_judged_leaves_its_groups(endpoint_server):
    behaviour = every_fifth_conversation(*FAULTS, BABBLE)
    server = endpoint_server(behaviour)
    groups = await play(judge(server, retries=1), group_size=10)
    # 3 groups of 10 are 30 conversations, no two alike; the 5th, 10th, 15th, 20th, 25th and 30th fail, each otherwise.
    assert len(behaviour.seen) == 30
    assert RolloutCounts.of(groups) == RolloutCounts(episodes=30, scored=24, failures={Outcome.REWARD: 6})
    # 24 answers, and 6 conversations that are asked about twice: five are retried, what cannot be read is asked again.
    assert server.count == 24 + 6 * 2
    failed = [episode for group in groups for episode in group.failures]
    assert all(episode.reward is None for episode in failed)
    reasons = " ".join(episode.error for episode in failed)
    for reason in (
        "answered 500",
        "answered 429",
        "no answer in",
        "is no JSON: ",
        "RemoteProtocolError",
        "asked twice",
    ):
        assert len(re.findall(f"compute_reward: (?:ChatFailed|JudgeFailed): [^(]*{reason}", reasons)) == 1, reason
    for group in groups:
        assert len(group.trajectories) + len(group.failures) == 10
        for episode in group.trajectories:  # what a conversation got is its own score, and no other's
            asked = next(text for text in behaviour.seen if _holds(text, episode))
            assert episode.reward == pytest.approx(len(asked) % 11 / 10)


def _holds(text, episode):
    _, *lines, _ = text.split("\n")
    return [json.loads(line)["content"] for line in lines] == [turn.content for turn in episode.turns]


NOT_ALL = json.dumps({"scores": {"c1": 0.5}})
TOO_HIGH = json.dumps({"scores": {"c1": 0.1, "c2": 0.2, "c3": 0.3, "c4": 1.1}})
NOT_FINITE = '{"scores": {"c1": 0.1, "c2": 0.2, "c3": 0.3, "c4": NaN}}'


@pytest.mark.parametrize("fault", [*FAULTS, BABBLE, NOT_ALL, TOO_HIGH, NOT_FINITE])
async def test_a_group_whose_judgement_fails_is_dropped_and_the_others_are_not(endpoint_server, fault):
    def behaviour(number, body):
        lines = [json.loads(line) for line in evidence(body).split("\n")[1:-1]]
        if lines[0]["content"] == "order?":
            return fault
        names = {line["conversation"] for line in lines} - {"all of them"}
        return json.dumps({"scores": {name: int(name[1:]) / 10 for name in names}})

    server = endpoint_server(behaviour)
    groups = await play(judge(server, GroupJudgeReward, retries=1), group_size=4)
    assert RolloutCounts.of(groups) == RolloutCounts(
        episodes=12, scored=8, failures={Outcome.REWARD: 4}, dropped_groups=1
    )
    assert [group.scenario_id for group in with_baseline(groups)] == ["price", "refund"]
    assert [sorted(group.rewards) for group in with_baseline(groups)] == [[0.1, 0.2, 0.3, 0.4]] * 2
    assert server.count == 1 + 2 + 1  # one question a group, and one more for the one that fails
    assert {len(evidence(body).split("all of them")) - 1 for body in server.bodies} == {1}  # the opening, once


async def test_a_judge_that_is_down_is_left_alone_and_nothing_becomes_a_reward(endpoint_server):
    server = endpoint_server(lambda number, body: BROKEN)
    groups = await play(judge(server, retries=0, concurrency=1), group_size=10)
    assert RolloutCounts.of(groups) == RolloutCounts(episodes=30, failures={Outcome.REWARD: 30}, dropped_groups=3)
    assert server.count == 10  # the breaker opens after ten failures, and the other 20 are not asked about
    reasons = [episode.error for group in groups for episode in group.failures]
    assert sum("keeps failing and is left alone" in reason for reason in reasons) == 20


async def test_a_judge_that_babbles_scores_nothing(endpoint_server):
    server = endpoint_server(tiny_model())
    groups = await play(judge(server, seconds=60.0), group_size=2)
    assert RolloutCounts.of(groups) == RolloutCounts(episodes=6, failures={Outcome.REWARD: 6}, dropped_groups=3)
    assert server.count == 12
    assert all(
        "cannot" not in (episode.error or "") or episode.reward is None for g in groups for episode in g.failures
    )


@pytest.mark.parametrize("kind", [LLMJudgeReward, GroupJudgeReward])
async def test_a_judge_in_this_process_that_babbles_scores_nothing(kind):
    groups = await play(kind(LocalChat("tiny"), max_tokens=8), group_size=2)
    assert RolloutCounts.of(groups) == RolloutCounts(episodes=6, failures={Outcome.REWARD: 6}, dropped_groups=3)
    assert not with_baseline(groups)
    assert all(episode.reward is None for group in groups for episode in group.failures)


def test_a_training_run_with_a_judge_that_fails_a_fifth_ends_and_counts_it(work, endpoint_server):
    behaviour = every_fifth_conversation(BROKEN, MALFORMED, BABBLE)
    server = endpoint_server(behaviour)
    entry = {
        "type": "llm_judge",
        "base_url": server.base_url,
        "model": "judge",
        "api_key_env": "JUDGE_KEY",
        "rubric": "Is it an answer?",
        "cache_file": "judged.sqlite",
        "retries": 1,
        "seconds": 20,
    }
    work.scenarios({"scenarios": SCENARIOS})
    # 2 steps of 3 scenarios x 5 conversations
    training = {"num_episodes": 30, "num_generations": 5, "batch_size": 15, "gradient_accumulation_steps": 1}
    work.write(rewards=[entry], **{f"training__{name}": value for name, value in training.items()})
    ended = work.train("--seed=3", JUDGE_KEY=CANARY)
    assert ended.code == 0, ended.err
    assert f"llm_judge: judge at {server.base_url} judges" in ended.err
    rows = work.metrics()
    # Of the 15 conversations of a step, no two alike, the 5th, 10th and 15th fail. The other 12 have rewards.
    assert len(behaviour.seen) == 30
    assert [(row["step_episodes"], row["failed"], row["updated"]) for row in rows] == [(15, 3, True)] * 2
    lines = (work.path / "outputs" / "trajectories.jsonl").read_text().splitlines()
    scored = Counter(line["step"] for line in map(json.loads, lines) if line["reward"] is not None)
    assert scored == {1: 12, 2: 12}
    assert server.count == 24 + 6 * 2
    assert all(headers["authorization"] == f"Bearer {CANARY}" for headers in server.headers)
    written = [*work.snapshot("outputs").values(), ended.out.encode(), ended.err.encode()]
    assert not any(CANARY.encode() in content for content in written)
    with sqlite3.connect(work.path / "judged.sqlite") as table:
        assert table.execute("SELECT count(*) FROM judgements").fetchone() == (24,)
    table.close()

    # What was judged is kept for the next run, and what failed is asked about again.
    assert work.train("--seed=3", "--output-dir=again", JUDGE_KEY=CANARY).code == 0
    assert work.metrics("again") == rows
    assert server.count == 24 + 6 * 2 + 6 * 2

    ended = work.train("--output-dir=keyless")
    assert ended.code == 2
    assert "the environment variable JUDGE_KEY (api_key_env) is not set" in ended.err
