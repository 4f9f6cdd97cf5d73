"""A reward or an environment that blocks the event loop for ever: it is named, and does not hang the run for ever."""

import asyncio
import json
import logging
import threading
import time

import pytest

from stateset_agents.core.outcome import Outcome
from stateset_agents.core.reward import as_reward
from stateset_agents.core.trajectory import ConversationTurn, MultiTurnTrajectory
from stateset_agents.rollouts.episode import judge_together
from stateset_agents.training.blocked import BlockWatch

VOWELS = """
import time
calls = []
async def vowels(turns, context=None):
    calls.append(None)
    if len(calls) > 6:  # in the second step
        {block}
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)
"""
SWALLOWING = """
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                pass
"""
SHOP = """
import time
from stateset_agents import ConversationEnvironment
class Shop(ConversationEnvironment):
    async def step(self, state, action):
        time.sleep(3600)
"""


def test_a_reward_that_blocks_is_named_and_the_run_ends_in_order_saved(work):
    (work.path / "my_rewards.py").write_text(VOWELS.format(block="time.sleep(3600)"))
    work.write(training__reward_timeout=1.0, logging={"alerts": {}})
    begun = time.monotonic()
    ended = work.train()
    assert time.monotonic() - begun < 25
    assert ended.code == 4, ended.err
    assert (
        "the reward has blocked all conversations for more than reward_timeout, 1 s, at my_rewards.py, line 7: use "
        "await or a thread. After 3 s the run is stopped.\n" in ended.err
    )
    assert "    time.sleep(3600)\n" in ended.err
    assert (
        "training stopped: the reward has blocked all conversations for more than 3 times reward_timeout" in ended.err
    )
    assert "once that is mended, continue from step 1:" in ended.err
    assert (work.path / "outputs" / "checkpoints" / "step-1").is_dir()
    assert work.status()["state"] == "failed"
    rows = [json.loads(line) for line in (work.path / "outputs" / "alerts.jsonl").read_text().splitlines()]
    assert [(row["alert"], row["step"]) for row in rows] == [("blocked", 1), ("run", 1)]


def test_a_reward_that_catches_everything_ends_with_the_process_and_costs_what_a_kill_costs(work):
    (work.path / "my_rewards.py").write_text(VOWELS.format(block=SWALLOWING.strip()))
    work.write(training__reward_timeout=0.5, training__save_every=4)
    ended = work.train()
    assert ended.code == 4
    assert ended.err.rstrip().endswith("it blocks still: the process ends, and what was not saved is lost")
    assert work.status()["state"] == "running"
    (work.path / "my_rewards.py").write_text(VOWELS.format(block="pass"))
    assert work.train("--resume").code == 0


def test_an_environment_that_blocks_is_named(work):
    (work.path / "my_shop.py").write_text(SHOP)
    work.write(
        environment__type="custom",
        environment__class="my_shop.Shop",
        training__environment_timeout=1.0,
    )
    ended = work.train()
    assert ended.code == 4
    assert (
        "the environment has blocked all conversations for more than environment_timeout, 1 s, at my_shop.py, line 6"
        in (ended.err)
    )


async def judged(block):
    async def slow(turns, context=None):
        await block()
        return 1.0

    episode = MultiTurnTrajectory("a", "k", turns=[ConversationTurn("user", "Hi")])
    await judge_together([(episode, {})], as_reward(slow), key="k", reward_timeout=None)


async def blocks():
    time.sleep(0.6)  # noqa: ASYNC251 - that is what is looked for


@pytest.mark.parametrize("work_of", ["a reward that awaits", "the run itself"])
async def test_who_awaits_is_not_blamed_nor_is_the_run_itself(work_of, caplog):
    told = []
    with BlockWatch({Outcome.REWARD: 0.2}, tell=told.append):
        if work_of == "the run itself":
            await blocks()
        else:
            await judged(lambda: asyncio.sleep(0.6))
    assert told == []


async def test_many_short_calls_between_which_the_others_have_their_turn_block_nobody(caplog):
    async def short():
        time.sleep(0.03)  # noqa: ASYNC251 - less than a look

    told = []
    with BlockWatch({Outcome.REWARD: 0.2}, tell=told.append):
        for _ in range(30):
            await judged(short)
            await asyncio.sleep(0)
    assert told == []


async def test_in_somebody_elses_process_a_block_is_told_once_and_nothing_is_ended(caplog):
    told = []
    with BlockWatch({Outcome.REWARD: 0.05, Outcome.ENVIRONMENT: None}, tell=told.append):
        await judged(blocks)
        await judged(blocks)
    assert [text.partition(", at ")[0] for text in told] == [
        "the reward has blocked all conversations for more than reward_timeout, 0.05 s"
    ] * len(told)
    assert 1 <= len(told) <= 2
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == len(told)


async def test_the_watch_is_over_when_it_is_left():
    """Its thread must not be the last to let go of a model while the interpreter goes down: exit code 134.

    Mutation: the thread is not waited for.
    """
    with BlockWatch({Outcome.REWARD: 60.0}):
        assert "blocked" in [thread.name for thread in threading.enumerate()]
    assert "blocked" not in [thread.name for thread in threading.enumerate()]
