"""The service under everything that clients and fate may do, in any order: what was acknowledged is the history.

Hypothesis chooses what happens next and shrinks what fails. The agent answers each message when it is told to, so that
turns are under way for as long as the machine likes. A crash is a store of which nothing is heard any more; the next
service opens the same file.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api_parts import HandClock
from stateset_agents.agents import Agent
from stateset_agents.api import Conversations, ServeLimits, SqliteStore
from stateset_agents.api.errors import (
    ConversationOver,
    KeyReused,
    ServeError,
    StoreFailed,
    TooManyConversations,
    TurnFailed,
    TurnRunning,
    UnknownConversation,
)
from stateset_agents.core.trajectory import ConversationTurn

IDLE = 60
MOST = 4
OWNERS = st.sampled_from(["a", "b"])
PICK = st.integers(0, 50)


class Mortal(SqliteStore):
    """A store that can die."""

    dead = False
    dies_at_commit = None

    async def transaction(self, operation):
        if self.dead:
            raise StoreFailed("dead")
        if self.dies_at_commit is not None and operation.__name__ == "commit":
            self.dead = True
            if self.dies_at_commit == "after":
                await super().transaction(operation)
            raise StoreFailed("dead")
        return await super().transaction(operation)


class Told(Agent):
    """Answers a message when it is told to, with the number of turns that it knows of."""

    shared = ("orders",)

    def __init__(self):
        self.orders = {}

    async def process_turn(self, history, user_input, context=None):
        order = self.orders[user_input] = asyncio.get_running_loop().create_future()
        if await order == "raise":
            raise RuntimeError("told to")
        return ConversationTurn("assistant", f"{len(history)} before {user_input}")


class Talk:
    """What a conversation must look like."""

    def __init__(self, id_, owner):
        self.id, self.owner = id_, owner
        self.turns = [("assistant", "Hello!")]
        self.over = None
        self.marks = 0
        self.keys = {}
        self.idle, self.late = 0, False
        self.running = None  # (task, message, key)


class Service(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.runner = HandClock(), asyncio.Runner()
        self.talks, self.messages, self.steps = [], 0, 0
        self.serve()

    def serve(self):
        self.agent, self.store = Told(), Mortal(Path(self.folder.name) / "conversations.sqlite")
        limits = ServeLimits(max_conversations=MOST, idle_seconds=IDLE, keep_seconds=1e9, kept_forks=2, max_running=3)
        self.service = Conversations(self.agent, self.store, limits, greeting="Hello!", clock=self.clock)
        return self.run(self.service.open())

    def run(self, work):
        return self.runner.run(asyncio.wait_for(work, 10))

    def error_of(self, work):
        try:
            self.run(work)
        except ServeError as error:
            return type(error)
        return None

    def talk(self, pick, running=None):
        fitting = [talk for talk in self.talks if running is None or (talk.running is not None) is running]
        return fitting[pick % len(fitting)] if fitting else None

    def expected(self, talk):
        """What a message to this conversation is refused with."""
        return ConversationOver if talk.over else TurnRunning if talk.running else None

    def ongoing(self):
        return [talk for talk in self.talks if not talk.over]

    @rule(owner=OWNERS)
    def start(self, owner):
        self.expire()
        if len(self.ongoing()) >= MOST:
            assert self.error_of(self.service.start(owner=owner)) is TooManyConversations
            return
        self.talks.append(Talk(self.run(self.service.start("u", {"x": 1}, owner)).conversation_id, owner))

    def send(self, talk, message, key):
        async def begin():
            task = asyncio.create_task(self.service.turn(talk.id, message, talk.owner, key))
            while message not in self.agent.orders and not task.done():  # noqa: ASYNC110
                await asyncio.sleep(0)
            return task

        return self.run(begin())

    @rule(pick=PICK, keyed=st.booleans())
    def begin(self, pick, keyed):
        talk = self.talk(pick)
        if talk is None:
            return
        self.expire()
        self.messages += 1
        message, expected = f"message {self.messages}", self.expected(talk)
        key = f"key {self.messages}" if keyed else None
        if len([t for t in self.talks if t.running]) >= 3 and expected is None:
            return  # it would wait for a place
        task = self.send(talk, message, key)
        if expected is not None:
            assert isinstance(task.exception(), expected)
            return
        talk.running = (task, message, key)

    @rule(pick=PICK, order=st.sampled_from(["say", "say", "say", "raise"]))
    def finish(self, pick, order):
        talk = self.talk(pick, running=True)
        if talk is None:
            return
        task, message, key = talk.running
        talk.running = None
        self.agent.orders.pop(message).set_result(order)
        if order == "raise":
            assert self.error_of(task_of(task)) is TurnFailed
            return
        reply = self.run(task_of(task))
        self.answered(talk, message, key, reply.response)
        assert reply.turn_count == sum(role == "assistant" for role, _ in talk.turns)

    def answered(self, talk, message, key, response=None):
        known = len(talk.turns) - 1  # the agent does not see the greeting
        expected = f"{known} before {message}"
        assert response in (None, expected)
        talk.turns += [("user", message), ("assistant", expected)]
        talk.idle, talk.late = 0, False
        if key is not None:
            talk.keys[key] = (message, expected)

    @rule(pick=PICK)
    def go_away(self, pick):
        talk = self.talk(pick, running=True)
        if talk is not None:
            task, message, _ = talk.running
            talk.running = None
            task.cancel()
            self.run(asyncio.wait([task]))
            assert task.cancelled()
            assert self.agent.orders.pop(message).cancelled()

    @rule(pick=PICK, other=st.booleans())
    def say_it_again(self, pick, other):
        talk = self.talk(pick)
        if talk is None:
            return
        keys = dict(talk.keys)
        if talk.running and talk.running[2]:
            keys[talk.running[2]] = (talk.running[1], None)
        for key, (message, response) in keys.items():
            asked = self.service.turn(talk.id, "something else" if other else message, talk.owner, key)
            if other or response is None:
                assert self.error_of(asked) is (KeyReused if other else TurnRunning)
            else:
                reply = self.run(asked)
                assert (reply.response, reply.replayed) == (response, True)

    @rule(pick=PICK)
    def look_at_what_is_anothers(self, pick):
        talk = self.talk(pick)
        if talk is None:
            return
        for owner in ("c", ""):
            for asked in (
                self.service.history(talk.id, owner),
                self.service.turn(talk.id, "Let me in", owner, next(iter(talk.keys), None)),
                self.service.end(talk.id, owner),
            ):
                assert self.error_of(asked) is UnknownConversation

    @rule(pick=PICK)
    def end(self, pick):
        talk = self.talk(pick)
        if talk is None:
            return
        self.expire()
        status = self.run(self.service.end(talk.id, talk.owner)).status
        talk.over = talk.over or "ended"
        assert status == talk.over
        if talk.running is not None:
            task, message, _ = talk.running
            talk.running = None
            assert self.error_of(task_of(task)) is ConversationOver
            self.agent.orders.pop(message)

    @rule(seconds=st.sampled_from([1, 20, IDLE + 1]))
    def wait(self, seconds):
        self.clock.pass_(seconds)
        for talk in self.talks:
            talk.idle += seconds

    def expire(self):
        """What is idle for too long is over as soon as somebody asks."""
        self.run(self.service.sweep())
        for talk in self.talks:
            if talk.idle > IDLE and not talk.running and not talk.over:
                talk.over = "expired"

    @rule()
    def set_the_clock(self):
        self.clock.wall = self.clock.wall.replace(year=self.clock.wall.year + 1)
        for talk in self.talks:
            talk.late = True

    @rule(at_commit=st.sampled_from([None, "before", "after"]), pick=PICK)
    def crash(self, at_commit, pick):
        talk = self.talk(pick, running=True) if at_commit else None
        if talk is not None:
            task, message, key = talk.running
            self.store.dies_at_commit = at_commit
            self.agent.orders.pop(message).set_result("say")
            assert self.error_of(task_of(task)) is StoreFailed
            if at_commit == "after":
                self.answered(talk, message, key)
            else:
                talk.marks += 1
            talk.running = None
        self.store.dead = True
        lost = 1 if at_commit == "before" and talk is not None else 0
        for talk in self.talks:
            if talk.running is not None:
                talk.running[0].cancel()
                self.run(asyncio.wait([talk.running[0]]))
                talk.running = None
                talk.marks += 1
                lost += 1
        self.run(self.service.close())
        for talk in self.talks:  # what was idle before is judged by the wall clock from here on
            if talk.late and not talk.over:
                talk.idle = IDLE + 1
        assert self.serve() == lost

    @rule()
    def restart(self):
        running = [talk for talk in self.talks if talk.running]
        self.run(self.service.close())
        for talk in running:
            assert talk.running[0].exception().slug == "turn-cancelled"
            talk.running = None
            talk.marks += 1
        for talk in self.talks:
            if talk.late and not talk.over:
                talk.idle = IDLE + 1
        assert self.serve() == 0

    @precondition(lambda self: self.talks)
    @invariant()
    def history_is_what_was_acknowledged(self):
        self.steps += 1
        for talk in {self.talks[-1], self.talks[self.steps % len(self.talks)]}:
            page = self.run(self.service.history(talk.id, talk.owner))
            if talk.idle > IDLE and not talk.running and not talk.over:
                talk.over = "expired"
            assert [(turn.role, turn.content) for turn in page.turns] == talk.turns
            assert [turn.role for turn in page.turns] == (["assistant", "user"] * len(page.turns))[: len(page.turns)]
            assert page.status == (talk.over or "ongoing")
            assert len(page.interrupted) == talk.marks
        assert self.service.gate.running == len([talk for talk in self.talks if talk.running])
        assert self.service.gate.waiting == 0

    def teardown(self):
        self.store.dead = True
        for talk in self.talks:
            if talk.running is not None:
                talk.running[0].cancel()
        self.run(self.service.close())
        self.runner.close()
        self.folder.cleanup()


async def task_of(task):
    return await task


CALM: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


class TestInAnyOrder(Service.TestCase):
    settings = settings(max_examples=12, stateful_step_count=25, **CALM)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestInVeryManyOrders(Service.TestCase):
    settings = settings(max_examples=150, stateful_step_count=40, **CALM)
