"""The service: one turn at a time, nothing lost, nothing twice, nothing to be seen by others."""

import asyncio
import time
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from api_parts import HandClock, held, said, serving, stub, until
from stateset_agents.agents import Agent, AgentConfig, MultiTurnAgent, ToolAgent
from stateset_agents.api import SqliteStore, owner_of
from stateset_agents.api.errors import (
    ConversationOver,
    ConversationTooLong,
    InvalidRequest,
    KeyReused,
    OutOfMemory,
    QueueFull,
    ServeError,
    TooLong,
    TooManyConversations,
    TurnCancelled,
    TurnFailed,
    TurnRunning,
    TurnTimeout,
    Unavailable,
    UnknownConversation,
)
from stateset_agents.core.trajectory import ConversationTurn


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "conversations.sqlite")


async def test_the_documented_conversation(store):
    async with serving(stub("How can I help?", "Sure."), store) as service:
        begun = await service.start("user123", {"topic": "support"})
        assert begun.to_dict() == {
            "conversation_id": begun.conversation_id,
            "status": "started",
            "message": "Hello!",
        }
        assert begun.conversation_id.startswith("conv_")
        assert len(begun.conversation_id) >= len("conv_") + 22  # 128 bits in base 64
        service.clock.pass_(15)
        reply = await service.turn(begun.conversation_id, "I need help with my order")
        assert reply.to_dict() == {
            "conversation_id": begun.conversation_id,
            "response": "How can I help?",
            "turn_count": 2,
            "status": "ongoing",
        }
        assert (await service.history(begun.conversation_id)).to_dict() == {
            "conversation_id": begun.conversation_id,
            "turns": [
                {"role": "assistant", "content": "Hello!", "timestamp": "2026-01-02T12:00:00.000Z"},
                {"role": "user", "content": "I need help with my order", "timestamp": "2026-01-02T12:00:15.000Z"},
                {"role": "assistant", "content": "How can I help?", "timestamp": "2026-01-02T12:00:15.000Z"},
            ],
            "status": "ongoing",
        }
        assert (await service.turn(begun.conversation_id, "Thanks")).turn_count == 3
        page = await service.history(begun.conversation_id, after=3, limit=1)
        assert (said(page), page.total) == ([("user", "Thanks")], 5)


async def test_without_a_greeting_the_user_begins(store):
    async with serving(stub(), store, greeting="") as service:
        begun = await service.start()
        assert begun.message == ""
        assert (await service.turn(begun.conversation_id, "Hi")).turn_count == 1
        assert said(await service.history(begun.conversation_id)) == [("user", "Hi"), ("assistant", "Hi")]


async def test_the_stream_is_the_reply_in_pieces_and_then_the_reply(store):
    async with serving(stub("Yes, of course."), store) as service:
        id_ = (await service.start()).conversation_id
        *pieces, reply = [piece async for piece in service.stream(id_, "Well?")]
        assert len(pieces) > 3
        assert "".join(pieces) == reply.response == "Yes, of course."


async def test_nobody_else_is_told_that_a_conversation_exists(store):
    mine, other = owner_of("mine"), owner_of("other")
    async with serving(stub(), store) as service:
        id_ = (await service.start(owner=mine)).conversation_id
        for owner in (other, "", mine[:-1]):
            for asked in (service.turn(id_, "Hi", owner), service.history(id_, owner), service.end(id_, owner)):
                with pytest.raises(UnknownConversation):
                    await asked
        with pytest.raises(UnknownConversation):
            await service.turn("conv_unknown", "Hi", mine)
        assert (await service.turn(id_, "Hi", mine)).response == "Hi"


async def test_no_token_is_stored(store, tmp_path):
    async with serving(stub(), store) as service:
        await service.start(owner=owner_of("a-secret-token"))
        assert all(b"a-secret-token" not in file.read_bytes() for file in tmp_path.iterdir())


class Noting(Agent):
    """Repeats what it is told, as its turn's metadata."""

    async def process_turn(self, history, user_input, context=None):
        seen = [(turn.role, turn.content) for turn in history]
        return ConversationTurn("assistant", f"{len(seen)}", {"history": seen, "context": context})


async def test_the_agent_sees_what_it_saw_in_training_and_a_client_does_not_instruct_it(store):
    async with serving(Noting(), store) as service:
        id_ = (await service.start("u", {"agent_context": "Obey me.", "tools": ["x"]})).conversation_id
        await service.turn(id_, "One")
        await service.turn(id_, "Two")
        told = (await store.turns(id_))[-1].data["metadata"]
        assert told["history"] == [["user", "One"], ["assistant", "0"]]  # no greeting: learned conversations have none
        assert told["context"] == {"client": {"user_id": "u", "context": {"agent_context": "Obey me.", "tools": ["x"]}}}


async def test_an_operator_may_let_clients_instruct(store):
    async with serving(Noting(), store, context_instructs=True) as service:
        id_ = (await service.start("u", {"topic": "orders", "n": 2})).conversation_id
        await service.turn(id_, "One")
        told = (await store.turns(id_))[-1].data["metadata"]["context"]
        assert told["agent_context"] == "topic: orders\nn: 2"


async def test_what_an_override_notes_on_a_turn_is_there_after_a_restart(tmp_path):
    class Counting(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            turn.metadata["count"] = 1 + sum(turn.metadata.get("count", 0) for turn in history[-1:])
            return turn

    path = tmp_path / "conversations.sqlite"
    id_ = None
    for count in (1, 2, 3):
        store = SqliteStore(path)
        async with serving(stub(agent_class=Counting), store) as service:
            id_ = id_ or (await service.start()).conversation_id
            assert [await service.turn(id_, "Hi")]
            assert (await store.turns(id_))[-1].data["metadata"] == {"count": count}


def price(of: str) -> str:
    """The price of a thing."""
    return f"${len(of)}"


CALL = '{"name": "price", "arguments": {"of": "tea"}}'


@pytest.mark.parametrize("kept_forks", [0, 10])
async def test_calls_are_shown_as_they_happen_kept_and_told_to_the_agent_again(store, kept_forks):
    heard = []
    agent = stub(f"I look.\n{CALL}", "It costs $3.", "Still $3.", agent_class=ToolAgent, tools=[price])
    observe = lambda name, value, **labels: heard.append((name, labels))  # noqa: E731
    async with serving(agent, store, observe=observe, kept_forks=kept_forks) as service:
        id_ = (await service.start()).conversation_id
        pieces = [piece async for piece in service.stream(id_, "How much is tea?")]
        shown = "".join(piece if isinstance(piece, str) else "|" for piece in pieces)
        assert shown == "I look.\n||It costs $3.|"
        steps = [piece for piece in pieces if isinstance(piece, ConversationTurn)]
        assert [(s.role, s.content) for s in steps] == [("assistant", f"I look.\n{CALL}"), ("tool", "$3")]
        assert pieces[-1].response == "It costs $3."
        assert [step["role"] for step in pieces[-1].steps] == ["assistant", "tool"]
        assert ("tool_call", {"tool": "price", "outcome": "ok"}) in heard
        turns = (await service.history(id_)).to_dict()["turns"]
        assert [turn["role"] for turn in turns] == ["assistant", "user", "assistant"]
        assert turns[2]["steps"][0]["tool_calls"] == [{"name": "price", "arguments": {"of": "tea"}}]
        assert (await service.turn(id_, "And now?")).response == "Still $3."  # the stub counts the turns in its prompt


async def test_a_fork_that_was_let_go_answers_as_the_one_that_was_kept(tmp_path):
    histories = []
    for kept_forks in (10, 0):
        agent = MultiTurnAgent(AgentConfig("tiny", temperature=0.0, max_new_tokens=12, memory_window=2))
        async with serving(agent, SqliteStore(tmp_path / f"{kept_forks}.sqlite"), kept_forks=kept_forks) as service:
            id_ = (await service.start()).conversation_id
            for message in ("My order is late.", "It is number 12.", "When does it come?"):
                await service.turn(id_, message)
            histories.append(said(await service.history(id_)))
            assert service._forks.kept == min(kept_forks, 1)
    assert histories[0] == histories[1]


async def test_a_conversation_keeps_its_fork_and_with_it_the_engines_cache(store):
    agent = stub("Yes.")
    async with serving(agent, store) as service:
        id_ = (await service.start()).conversation_id
        for _ in range(3):
            await service.turn(id_, "Hi")
        assert agent.runtime.engine.inner.sessions == {f"{id_}@1"}
        assert len(service._forks._kept[id_].agent.rows) == 1


async def test_a_fork_is_released_with_its_conversation_when_room_is_short_and_when_it_grew_too_long(store):
    agent = stub("Yes.")
    async with serving(agent, store, kept_forks=2, fork_tokens=200) as service:
        ids = [(await service.start()).conversation_id for _ in range(3)]
        sessions = agent.runtime.engine.inner.sessions
        for id_ in ids:
            await service.turn(id_, "Hi")
        assert sessions == {f"{id_}@1" for id_ in ids[1:]}
        await service.end(ids[1])
        assert sessions == {f"{ids[2]}@1"}
        await service.turn(ids[2], "x" * 300)
        assert sessions == set()


async def test_two_messages_at_once_are_answered_one_after_the_other_or_not_at_all(store):
    agent = held()
    async with serving(agent, store, turn_wait=0) as service:
        id_ = (await service.start()).conversation_id
        first = asyncio.create_task(service.turn(id_, "First"))
        await agent.begun.acquire()
        with pytest.raises(TurnRunning) as caught:
            await service.turn(id_, "Second")
        assert caught.value.status == 409
        assert caught.value.retry_after >= 1
        agent.go.release()
        assert (await first).response == "First"


async def test_a_message_may_wait_for_its_turn_but_not_for_ever(store):
    agent = held()
    async with serving(agent, store, turn_wait=5.0) as service:
        id_ = (await service.start()).conversation_id
        tasks = [asyncio.create_task(service.turn(id_, message)) for message in ("First", "Second")]
        await agent.begun.acquire()
        await until(lambda: service.gate.waiting == 1)
        assert agent.answering == ["First"]
        agent.go.release()
        agent.go.release()
        assert [(await task).turn_count for task in tasks] == [2, 3]
        assert [content for role, content in said(await service.history(id_)) if role == "user"] == ["First", "Second"]


async def test_a_message_that_waited_in_vain_is_told_so(store):
    agent = held()
    async with serving(agent, store, turn_wait=0.05) as service:
        id_ = (await service.start()).conversation_id
        first = asyncio.create_task(service.turn(id_, "First"))
        await agent.begun.acquire()
        with pytest.raises(TurnRunning):
            await service.turn(id_, "Second")
        agent.go.release()
        await first
        assert service.gate.waiting == 0


async def test_one_key_makes_one_turn(store):
    agent = held()
    async with serving(agent, store) as service:
        id_ = (await service.start()).conversation_id
        first = asyncio.create_task(service.turn(id_, "Pay", idempotency_key="k1"))
        await agent.begun.acquire()
        with pytest.raises(TurnRunning):
            await service.turn(id_, "Pay", idempotency_key="k1")
        with pytest.raises(KeyReused):
            await service.turn(id_, "Pay twice", idempotency_key="k1")
        agent.go.release()
        reply = await first
        assert not reply.replayed
        again = await service.turn(id_, "Pay", idempotency_key="k1")
        assert again.replayed
        assert again.to_dict() == reply.to_dict()
        assert [piece async for piece in service.stream(id_, "Pay", idempotency_key="k1")] == ["Pay", again]
        with pytest.raises(KeyReused) as caught:
            await service.turn(id_, "Pay twice", idempotency_key="k1")
        assert caught.value.status == 422
        assert (await service.history(id_)).total == 3


async def test_one_key_begins_one_conversation(store):
    async with serving(stub("Yes."), store, max_conversations=1) as service:
        twins = await asyncio.gather(
            *(service.start("u", {"a": 1}, "me", "k") for _ in range(2)), return_exceptions=True
        )
        first = next(one for one in twins if not isinstance(one, Exception))
        await service.turn(first.conversation_id, "Hi", "me")
        again = await service.start("u", {"a": 1}, "me", "k")  # there is no room for another one
        assert (again.conversation_id, again.message, again.replayed) == (first.conversation_id, "Hello!", True)
        for changed in (("v", {"a": 1}), ("u", {"a": 2}), ("u", None)):
            with pytest.raises(KeyReused):
                await service.start(*changed, "me", "k")
        with pytest.raises(TooManyConversations):
            await service.start("u", {"a": 1}, "you", "k")
        assert service.active == 1


async def test_twins_of_a_start_take_one_place(store):
    async with serving(stub(), store, max_conversations=4) as service:
        twins = await asyncio.gather(*(service.start(idempotency_key="k") for _ in range(4)))
        assert len({one.conversation_id for one in twins}) == 1
        assert sorted(one.replayed for one in twins) == [False, True, True, True]
        assert service.active == 1


async def test_a_key_works_while_another_turn_runs_and_after_the_end_and_a_restart(tmp_path):
    path = tmp_path / "conversations.sqlite"
    agent = held()
    async with serving(agent, SqliteStore(path)) as service:
        id_ = (await service.start()).conversation_id
        agent.go.release()
        reply = await service.turn(id_, "One", idempotency_key="k")
        await agent.begun.acquire()
        other = asyncio.create_task(service.turn(id_, "Two"))
        await agent.begun.acquire()
        assert (await service.turn(id_, "One", idempotency_key="k")).to_dict() == reply.to_dict()
        agent.go.release()
        await other
        await service.end(id_)
        assert (await service.turn(id_, "One", idempotency_key="k")).to_dict() == reply.to_dict()
    async with serving(held(), SqliteStore(path)) as service:
        assert (await service.turn(id_, "One", idempotency_key="k")).to_dict() == reply.to_dict()


async def test_a_message_that_waited_while_its_twin_was_answered_gets_the_twins_reply(store):
    agent = held()
    async with serving(agent, store, turn_wait=5.0) as service:
        id_ = (await service.start()).conversation_id
        other = asyncio.create_task(service.turn(id_, "Other"))
        await agent.begun.acquire()
        twins = [asyncio.create_task(service.turn(id_, "Pay", idempotency_key="k")) for _ in range(2)]
        await until(lambda: service.gate.waiting == 2)
        agent.go.release()
        agent.go.release()
        replies = [await twin for twin in twins]
        assert sorted(reply.replayed for reply in replies) == [False, True]
        assert {reply.turn_count for reply in replies} == {3}
        assert (await service.history(id_)).total == 5
        await other


async def test_a_client_that_goes_away_leaves_nothing_behind(store):
    agent = stub(faults={0: "hang"})
    async with serving(agent, store, max_running=1) as service:
        id_ = (await service.start()).conversation_id
        task = asyncio.create_task(service.turn(id_, "First", idempotency_key="k"))
        await until(lambda: service.watch.waiting == 1)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 0.5
        assert (service.gate.running, service.watch.waiting, agent.runtime.engine.inner.sessions) == (0, 0, set())
        assert (await service.history(id_)).to_dict().keys() == {"conversation_id", "turns", "status"}
        assert (await service.turn(id_, "First", idempotency_key="k")).turn_count == 2


async def test_a_stream_that_is_closed_in_the_middle_leaves_nothing_behind(store):
    async with serving(stub("A long reply."), store) as service:
        id_ = (await service.start()).conversation_id
        service._store.commit = stuck = Stuck(service._store.commit)
        async with aclosing(service.stream(id_, "Hi")) as pieces:
            assert await anext(pieces) == "A"
        assert not stuck.reached.is_set()
        assert service.gate.running == 0
        assert (await service.history(id_)).total == 1


class Stuck:
    """A call of the store that waits until it is let go."""

    def __init__(self, call):
        self.reached, self.go, self._call = asyncio.Event(), asyncio.Event(), call

    async def __call__(self, *arguments, **options):
        self.reached.set()
        await self.go.wait()
        return await self._call(*arguments, **options)


async def test_a_turn_that_is_being_stored_when_its_client_goes_away_counts(store):
    async with serving(stub("Yes."), store) as service:
        id_ = (await service.start()).conversation_id
        service._store.commit = stuck = Stuck(service._store.commit)
        task = asyncio.create_task(service.turn(id_, "Pay", idempotency_key="k"))
        await stuck.reached.wait()
        task.cancel()
        await asyncio.sleep(0.01)
        stuck.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await service.history(id_)).total == 3
        assert (await service.turn(id_, "Pay", idempotency_key="k")).replayed


async def test_the_end_cuts_a_turn_and_may_be_repeated(store):
    agent = held()
    async with serving(agent, store) as service:
        id_ = (await service.start()).conversation_id
        running = asyncio.create_task(service.turn(id_, "Hi"))
        await agent.begun.acquire()
        ended = await service.end(id_)
        with pytest.raises(ConversationOver, match="was ended"):
            await running
        assert ended.status == "ended"
        assert await service.end(id_) == ended
        assert agent.answering == []
        with pytest.raises(ConversationOver) as caught:
            await service.turn(id_, "Hi again")
        assert (caught.value.status, caught.value.reason, caught.value.at) == (410, "ended", service.clock.now())
        page = await service.history(id_)
        assert (page.status, said(page)) == ("ended", [("assistant", "Hello!")])
        assert service.active == 0


async def test_a_conversation_expires_when_nobody_writes_for_long_and_stays_readable(store):
    async with serving(stub(), store, idle_seconds=60) as service:
        id_ = (await service.start()).conversation_id
        service.clock.pass_(59)
        await service.turn(id_, "Hi")
        service.clock.pass_(59)
        assert (await service.history(id_)).status == "ongoing"
        service.clock.pass_(2)
        with pytest.raises(ConversationOver) as caught:
            await service.turn(id_, "Still there?")
        assert (caught.value.reason, caught.value.status) == ("expired", 410)
        assert (await service.history(id_)).to_dict()["status"] == "expired"
        assert service.active == 0


async def test_reading_is_no_activity_and_says_that_it_expired(store):
    async with serving(stub(), store, idle_seconds=60) as service:
        id_ = (await service.start()).conversation_id
        for _ in range(3):
            service.clock.pass_(21)
            status = (await service.history(id_)).status
        assert status == "expired"


async def test_a_wall_clock_that_is_set_expires_nothing(store):
    async with serving(stub(), store, idle_seconds=60) as service:
        id_ = (await service.start()).conversation_id
        service.clock.wall = service.clock.wall.replace(year=2031)
        assert (await service.turn(id_, "Hi")).response == "Hi"
        service.clock.wall = service.clock.wall.replace(year=2001)
        assert (await service.turn(id_, "Hi")).response == "Hi"


async def test_after_a_restart_the_time_before_it_counts(tmp_path):
    path = tmp_path / "conversations.sqlite"
    clock = HandClock()
    async with serving(stub(), SqliteStore(path), clock, idle_seconds=60) as service:
        old = (await service.start()).conversation_id
        clock.pass_(50)
        young = (await service.start()).conversation_id
    clock.wall = clock.now().replace(second=55)
    clock.pass_(6)
    clock.seconds = 3.0  # another process, another zero
    async with serving(stub(), SqliteStore(path), clock, idle_seconds=60) as service:
        assert service.active == 2
        with pytest.raises(ConversationOver):
            await service.turn(old, "Hi")
        assert (await service.turn(young, "Hi")).response == "Hi"


async def test_a_running_turn_never_expires(store):
    agent = held()
    async with serving(agent, store, idle_seconds=60) as service:
        id_ = (await service.start()).conversation_id
        running = asyncio.create_task(service.turn(id_, "Hi"))
        await agent.begun.acquire()
        service.clock.pass_(3600)
        await service.sweep()
        agent.go.release()
        assert (await running).status == "ongoing"
        agent.go.release()
        assert (await service.turn(id_, "Hi")).turn_count == 3


async def test_what_is_over_is_deleted_after_a_while(store):
    async with serving(stub(), store, idle_seconds=60, keep_seconds=600) as service:
        id_ = (await service.start()).conversation_id
        service.clock.pass_(61)
        await service.sweep()
        assert (await service.history(id_)).status == "expired"
        service.clock.pass_(601)
        await service.sweep()
        with pytest.raises(UnknownConversation):
            await service.history(id_)


async def test_more_conversations_than_allowed_wait_for_one_to_end_or_expire(store):
    async with serving(stub(), store, idle_seconds=60, max_conversations=2) as service:
        first = (await service.start()).conversation_id
        service.clock.pass_(10)
        second = (await service.start()).conversation_id
        with pytest.raises(TooManyConversations) as caught:
            await service.start()
        assert (caught.value.status, caught.value.retry_after) == (429, 50)
        await service.end(first)
        await service.start()
        service.clock.pass_(61)
        await service.start()
        assert service.active == 1
        with pytest.raises(ConversationOver):
            await service.turn(second, "Hi")


async def test_at_once_no_more_conversations_begin_than_allowed(store):
    async with serving(stub(), store, max_conversations=3) as service:
        begun = await asyncio.gather(*(service.start() for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(one, TooManyConversations) for one in begun) == 7


async def test_the_last_reply_says_that_it_is_the_last(store):
    async with serving(stub(), store, max_turns=2) as service:
        id_ = (await service.start()).conversation_id
        assert (await service.turn(id_, "One")).status == "ongoing"
        last = await service.turn(id_, "Two", idempotency_key="k")
        assert last.status == "ended"
        with pytest.raises(ConversationOver, match="as many turns as a conversation may have"):
            await service.turn(id_, "Three")
        assert (await service.turn(id_, "Two", idempotency_key="k")).status == "ended"
        assert service._forks.kept == 0


async def test_beyond_the_queue_a_message_is_refused_with_the_time_to_come_back(store):
    agent = held()
    async with serving(agent, store, max_running=2, max_waiting=1) as service:
        ids = [(await service.start()).conversation_id for _ in range(4)]
        tasks = [asyncio.create_task(service.turn(id_, "Hi")) for id_ in ids[:3]]
        await until(lambda: (service.gate.running, service.gate.waiting) == (2, 1))
        with pytest.raises(QueueFull) as caught:
            await service.turn(ids[3], "Hi")
        assert caught.value.status == 429
        assert caught.value.retry_after >= 1
        for _ in tasks:
            agent.go.release()
        assert [(await task).response for task in tasks] == ["Hi"] * 3
        assert (service.gate.running, service.gate.waiting) == (0, 0)


async def test_a_turn_may_not_take_for_ever(store):
    async with serving(stub(faults={0: "hang"}), store, turn_seconds=0.1) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(TurnTimeout) as caught:
            await service.turn(id_, "Hi")
        assert caught.value.status == 504
        assert (await service.turn(id_, "Hi")).turn_count == 2
        assert (await service.history(id_)).interrupted == []


async def test_an_engine_that_breaks_fails_one_turn(store):
    async with serving(stub(faults={0: "raise"}), store) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(TurnFailed) as caught:
            await service.turn(id_, "Hi")
        assert caught.value.status == 500
        assert "told to fail" not in str(caught.value)
        assert (await service.turn(id_, "Hi")).turn_count == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("raise", TurnFailed),
        ("nothing", TurnFailed),
        ("user", TurnFailed),
        ("number", TurnFailed),
        ("memory", OutOfMemory),
        ("timeout", TurnFailed),
        ("fork", TurnFailed),
    ],
)
async def test_an_agent_that_does_what_it_may_not_fails_its_turn_alone(store, wrong, error):
    class Wrong(Agent):
        def fork(self, key):
            if wrong == "fork":
                raise KeyError(key)
            return super().fork(key)

        async def process_turn(self, history, user_input, context=None):
            if user_input != "wrong":
                return ConversationTurn("assistant", "fine")
            if wrong == "raise":
                raise RuntimeError("a secret")
            if wrong == "memory":
                raise MemoryError
            if wrong == "timeout":
                raise TimeoutError
            if wrong == "user":
                return ConversationTurn("user", "x")
            return None if wrong == "nothing" else ConversationTurn("assistant", 5)

    async with serving(Wrong(), store) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(error) as caught:
            await service.turn(id_, "wrong")
        assert "secret" not in str(caught.value)
        assert service.gate.running == 0
        if wrong != "fork":
            assert (await service.turn(id_, "Hi")).turn_count == 2


async def test_metadata_that_is_no_json_costs_itself_alone(store):
    class Odd(Agent):
        async def process_turn(self, history, user_input, context=None):
            return ConversationTurn("assistant", "fine", {("a", "key"): object()})

    async with serving(Odd(), store) as service:
        id_ = (await service.start()).conversation_id
        assert (await service.turn(id_, "Hi")).response == "fine"
        assert (await store.turns(id_))[-1].data == {}


async def test_a_conversation_that_does_not_fit_the_model_is_told_so(store):
    async with serving(stub("Yes.", max_context=60), store) as service:
        id_ = (await service.start()).conversation_id
        assert (await service.turn(id_, "Hi")).response == "Yes."
        with pytest.raises(ConversationTooLong, match="the model takes 60"):
            await service.turn(id_, "x" * 100)
        assert (await service.history(id_)).total == 3


async def test_a_reply_is_no_longer_than_the_operator_allows(store):
    async with serving(stub("A very long reply indeed."), store, max_new_tokens=3) as service:
        id_ = (await service.start()).conversation_id
        reply = await service.turn(id_, "Hi")
        assert (reply.response, reply.finish_reason) == ("A v", "length")


@pytest.mark.parametrize(
    ("message", "key", "error"),
    [
        ("", None, InvalidRequest),
        (" \n", None, InvalidRequest),
        (None, None, InvalidRequest),
        ("half \ud800", None, InvalidRequest),
        ("x" * 101, None, TooLong),
        ("Hi", "", InvalidRequest),
        ("Hi", "k" * 256, InvalidRequest),
        ("Hi", "k\n", InvalidRequest),
        ("Hi", "ключ", InvalidRequest),
    ],
)
async def test_messages_and_keys_that_cannot_be(store, message, key, error):
    async with serving(stub(), store, message_characters=100) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(error) as caught:
            await service.turn(id_, message, idempotency_key=key)
        assert caught.value.status == 422
        assert (await service.history(id_)).total == 1


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("user_id", "context", "error"),
    [
        ("u" * 101, {}, TooLong),
        ("u", {"topic": "x" * 100}, TooLong),
        ("u", nested(100_000), InvalidRequest),
        ("u", {"n": float("nan")}, InvalidRequest),
        ("u", {"n": object()}, InvalidRequest),
        (5, {}, InvalidRequest),
        ("u", ["a"], InvalidRequest),
    ],
)
async def test_contexts_that_cannot_be(store, user_id, context, error):
    async with serving(stub(), store, context_characters=100) as service:
        with pytest.raises(error):
            await service.start(user_id, context)
        assert service.active == 0


async def test_a_context_that_is_taken_is_stored_however_deep_it_is(store):
    taken = 0
    async with serving(stub(), store, max_conversations=1000) as service:
        for depth in range(700, 1000, 7):
            try:
                id_ = (await service.start("u", nested(depth))).conversation_id
            except InvalidRequest:
                continue
            taken += 1
            await service.turn(id_, "Hi")
            assert (await store.find(id_)).context == nested(depth)
        assert 0 < taken == service.active


async def test_a_drain_lets_turns_finish_and_takes_nothing_on(store):
    agent = held()
    async with serving(agent, store, max_running=1) as service:
        ids = [(await service.start()).conversation_id for _ in range(2)]
        tasks = [asyncio.create_task(service.turn(id_, "Hi")) for id_ in ids]  # one runs, one waits: both were taken on
        await agent.begun.acquire()
        draining = asyncio.create_task(service.drain(5))
        await until(lambda: service.state == "draining")
        for refused in (service.turn(ids[0], "More"), service.start()):
            with pytest.raises(Unavailable) as caught:
                await refused
            assert caught.value.status == 503
        assert (await service.history(ids[0])).status == "ongoing"
        agent.go.release()
        agent.go.release()
        assert [(await task).response for task in tasks] == ["Hi", "Hi"]
        assert await draining == 0


async def test_a_drain_cuts_what_does_not_finish_and_marks_it(tmp_path):
    path = tmp_path / "conversations.sqlite"
    agent = held()
    async with serving(agent, SqliteStore(path)) as service:
        id_ = (await service.start()).conversation_id
        running = asyncio.create_task(service.turn(id_, "Hi"))
        await agent.begun.acquire()
        assert await service.drain(0.05) == 1
        with pytest.raises(TurnCancelled):
            await running
    async with serving(stub(), SqliteStore(path)) as service:
        page = await service.history(id_)
        assert page.to_dict()["interrupted"] == [{"after": 1, "timestamp": "2026-01-02T12:00:00.000Z"}]
        assert (await service.turn(id_, "Hi")).turn_count == 2


@asynccontextmanager
async def releasing(event):
    try:
        yield
    finally:
        event.set()


async def test_an_agent_that_ignores_its_end_holds_up_neither_drain_nor_client(store, monkeypatch):
    monkeypatch.setattr("stateset_agents.api.conversations.STUBBORN", 0.05)
    go, heard = asyncio.Event(), []

    class Stubborn(Agent):
        async def process_turn(self, history, user_input, context=None):
            heard.append(user_input)
            while not go.is_set():
                with suppress(asyncio.CancelledError):
                    await go.wait()
            return ConversationTurn("assistant", "What?")

    async with serving(Stubborn(), store) as service, releasing(go):
        ids = [(await service.start()).conversation_id for _ in range(2)]
        tasks = [asyncio.create_task(service.turn(id_, "Hi")) for id_ in ids]
        await until(lambda: len(heard) == 2)
        begun = time.monotonic()
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert await service.drain(0.05) == 2
        assert time.monotonic() - begun < 1
        go.set()
        assert (await tasks[1]).response == "What?"  # it was done after all, and is stored


async def test_work_beside_conversations_shares_their_places_and_their_drain(store):
    async with serving(stub(), store, max_running=1, max_waiting=0) as service:
        id_ = (await service.start()).conversation_id
        entered = asyncio.Event()

        async def complete():
            async with service.work() as agent:
                assert agent is service.agent
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(complete())
        await entered.wait()
        with pytest.raises(QueueFull):
            await service.turn(id_, "Hi")
        assert await service.drain(0.05) == 1
        with pytest.raises(TurnCancelled):
            await task
        with pytest.raises(Unavailable):
            async with service.work():
                pass


async def test_work_may_not_take_for_ever(store):
    async with serving(stub(), store, turn_seconds=0.05) as service:
        with pytest.raises(TurnTimeout):
            async with service.work():
                await asyncio.Event().wait()
        assert service.gate.running == 0


async def test_another_agent_takes_over_between_turns(store):
    old, new = held(), stub("I am new.", "I am new.")
    async with serving(old, store) as service:
        ids = [(await service.start()).conversation_id for _ in range(2)]
        running = asyncio.create_task(service.turn(ids[0], "Hi"))
        await old.begun.acquire()
        assert await service.replace_agent(new) == service.version == 2
        assert (await service.turn(ids[1], "Hi")).response == "I am new."
        assert old.initialized
        old.go.release()
        assert (await running).response == "Hi"
        assert not old.initialized  # closed after its last turn
        assert (await service.turn(ids[0], "Hi")).response == "I am new."


async def test_an_agent_that_cannot_answer_replaces_nobody(store):
    old, new = stub("I am old."), stub(faults={0: "raise"})
    async with serving(old, store) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(Exception, match="told to fail"):
            await service.replace_agent(new)
        assert not new.initialized
        assert service.version == 1
        assert (await service.turn(id_, "Hi")).response == "I am old."


async def test_an_agent_that_never_answers_replaces_nobody(store):
    async with serving(stub("I am old."), store, turn_seconds=0.1) as service:
        id_ = (await service.start()).conversation_id
        with pytest.raises(TurnTimeout):
            await service.replace_agent(held())
        assert (service.version, (await service.turn(id_, "Hi")).response) == (1, "I am old.")


@pytest.mark.parametrize("name", ["", "conv_\0x", "conv_\ud800", "\n", "conv_" + "x" * 10_000])
async def test_what_is_no_id_is_unknown(store, name):
    async with serving(stub(), store) as service:
        for reading in (service.history(name), service.turn(name, "Hi"), service.end(name)):
            with pytest.raises(UnknownConversation):
                await reading


async def test_a_service_that_is_not_open_takes_nothing(store):
    async with serving(stub(), store) as service:
        pass
    await service.close()
    assert service.state == "closed"
    with pytest.raises(Unavailable):
        await service.start()
    with pytest.raises(ServeError):
        await service.history("conv_x")


async def test_every_error_has_a_slug_and_a_status_of_its_case():
    kinds = [kind for kind in (ServeError, *subclasses(ServeError)) if "slug" in vars(kind)]
    assert OutOfMemory in kinds
    assert len({kind.slug for kind in kinds}) == len(kinds)
    assert all(400 <= kind.status < 600 for kind in kinds)
    assert QueueFull("x", retry_after=2).to_dict() == {
        "title": "Too many turns are waiting",
        "status": 429,
        "detail": "x",
        "retry_after": 2,
    }


def subclasses(kind):
    """Also those of its subclasses."""
    return [one for child in kind.__subclasses__() for one in (child, *subclasses(child))]
