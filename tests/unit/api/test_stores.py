"""What a store of conversations keeps: the same for SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stateset_agents.api.errors import ConversationOver, KeyReused, StoreFailed, TurnCancelled, UnknownConversation
from stateset_agents.api.store import Attempt, AttemptState, Conversation, Start, Status, StoredTurn

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
HELLO = StoredTurn("assistant", "Hello!", NOON)
SAID = [
    StoredTurn("user", "nul \0, quote ', 100 % ☃ \U0001f600", NOON + timedelta(seconds=1)),
    StoredTurn("assistant", "half \ud800 ?", NOON + timedelta(seconds=2), {"metadata": {"mood": "\0", "n": 1.5}}),
]


@pytest.fixture
async def store(make_store):
    store = make_store()
    await store.open()
    yield store
    await store.aclose()


async def begun(store, id_="conv_1", **about):
    conversation = Conversation(id_, "me", NOON, NOON, **about)
    await store.create(conversation, HELLO)
    return conversation


async def attempt(store, id_="turn_1", key=None, digest="d", conversation_id="conv_1"):
    return (await store.begin(Attempt(id_, conversation_id, NOON, key=key, digest=digest)))[1]


async def test_what_is_committed_is_read_back_to_the_letter(store):
    await begun(store, user_id="u \0", context={"topic": "☃", "deep": [{"a": None}]})
    after = await store.commit(await attempt(store), SAID, {"response": "half \ud800 ?"})
    assert await store.turns("conv_1") == [HELLO, *SAID]
    assert after == await store.find("conv_1")
    assert (after.user_id, after.context) == ("u \0", {"topic": "☃", "deep": [{"a": None}]})
    assert (after.turns, after.turn_count, after.last_activity) == (3, 2, NOON + timedelta(seconds=2))
    assert (after.status, after.over_at) == (Status.ONGOING, None)
    assert await store.turns("conv_1", after=1, limit=1) == SAID[:1]
    assert await store.turns("conv_1", after=3) == []
    assert await store.turns("conv_1", after=10**30, limit=10**30) == []


async def test_another_store_on_the_same_tables_reads_the_same(store, make_store):
    await begun(store)
    await store.commit(await attempt(store, key="k"), SAID, {"response": "x"})
    await store.aclose()
    again = make_store()
    try:
        assert await again.open() == 0
        assert await again.turns("conv_1") == [HELLO, *SAID]
        assert (await again.answered("conv_1", "k")).reply == {"response": "x"}
        assert [c.id for c in await again.ongoing()] == ["conv_1"]
    finally:
        await again.aclose()


async def test_one_key_begins_one_conversation_of_an_owner(store):
    def one(id_, owner="me"):
        return Conversation(id_, owner, NOON, NOON)

    start = Start("me", "k", "d")
    assert await store.begun(start) is None
    assert await store.create(one("conv_1"), HELLO, start) == (await store.find("conv_1"), HELLO)
    assert (
        await store.create(one("conv_2"), None, start)
        == (await store.find("conv_1"), HELLO)
        == await store.begun(start)
    )
    assert await store.find("conv_2") is None
    assert await store.turns("conv_2") == []
    for failing in (
        store.begun(replace(start, digest="x")),
        store.create(one("conv_3"), None, replace(start, digest="x")),
    ):
        with pytest.raises(KeyReused):
            await failing
    assert await store.find("conv_3") is None
    other = replace(start, owner="you")
    assert (await store.create(one("conv_4", "you"), None, other))[0].id == "conv_4"
    await store.end("conv_1", NOON, Status.ENDED, "ended")
    assert (await store.begun(start))[0].status is Status.ENDED
    await store.purge(NOON + timedelta(days=1))
    assert await store.begun(start) is None  # the key goes with what it stands for


async def test_twins_at_the_same_moment_begin_one_conversation(store):
    start = Start("me", "k", "d")
    made = await asyncio.gather(
        *(store.create(Conversation(f"conv_{number}", "me", NOON, NOON), HELLO, start) for number in range(4))
    )
    assert len({conversation.id for conversation, _ in made}) == 1
    assert len(await store.ongoing()) == 1


async def test_one_turn_at_a_time(store):
    await begun(store)
    await attempt(store)
    assert (await store.find("conv_1")).turns == 1
    await store.drop("turn_1")
    assert (await attempt(store, "turn_2")).id == "turn_2"


async def test_a_dropped_turn_leaves_nothing_and_its_key_is_free(store):
    await begun(store)
    await attempt(store, key="k")
    assert (await store.answered("conv_1", "k")).state is AttemptState.RUNNING
    await store.drop("turn_1")
    assert await store.answered("conv_1", "k") is None
    assert await store.interrupted("conv_1") == []
    with pytest.raises(TurnCancelled):
        await store.commit(Attempt("turn_1", "conv_1", NOON), SAID, {})
    assert await store.turns("conv_1") == [HELLO]
    await store.drop("turn_1")
    await store.drop("never")


async def test_a_key_that_was_answered_begins_nothing(store):
    await begun(store)
    await store.commit(await attempt(store, key="k"), SAID, {"response": "once"})
    conversation, known = await store.begin(Attempt("turn_2", "conv_1", NOON, key="k", digest="d"))
    assert (known.id, known.state, known.reply) == ("turn_1", AttemptState.DONE, {"response": "once"})
    assert conversation.turns == 3
    await attempt(store, "turn_3", key="other")


async def test_a_turn_that_is_marked_interrupted_stays_and_frees_key_and_conversation(store):
    await begun(store)
    await attempt(store, key="k")
    await store.drop("turn_1", interrupted=True)
    (mark,) = await store.interrupted("conv_1")
    assert (mark.id, mark.after, mark.begun_at) == ("turn_1", 1, NOON)
    await store.drop("turn_1")
    await store.commit(await attempt(store, "turn_2", key="k"), SAID, {})
    await store.drop("turn_2", interrupted=True)
    assert [a.id for a in await store.interrupted("conv_1")] == ["turn_1"]


async def test_an_ended_conversation_takes_no_turn_and_keeps_what_was_said(store):
    await begun(store)
    await attempt(store)
    ended = await store.end("conv_1", NOON + timedelta(hours=1), Status.ENDED, "ended")
    assert (ended.status, ended.reason, ended.over_at) == (Status.ENDED, "ended", NOON + timedelta(hours=1))
    with pytest.raises(ConversationOver, match="was ended at 2026-01-02T13:00:00Z"):
        await attempt(store, "turn_2")
    with pytest.raises(ConversationOver):
        await store.commit(Attempt("turn_1", "conv_1", NOON), SAID, {})
    again = await store.end("conv_1", NOON + timedelta(hours=2), Status.EXPIRED, "expired")
    assert again == ended
    assert await store.turns("conv_1") == [HELLO]
    assert await store.ongoing() == []


async def test_a_reply_may_be_the_last(store):
    await begun(store)
    after = await store.commit(await attempt(store), SAID, {}, ends="turn_limit")
    assert (after.status, after.reason, after.over_at) == (Status.ENDED, "turn_limit", SAID[1].timestamp)


async def test_only_an_idle_conversation_expires(store):
    await begun(store)
    late = NOON + timedelta(hours=1)
    early = NOON - timedelta(microseconds=1)
    still = await store.end("conv_1", late, Status.EXPIRED, "expired", if_idle_since=early)
    assert still.status is Status.ONGOING
    gone = await store.end("conv_1", late, Status.EXPIRED, "expired", if_idle_since=NOON)
    assert (gone.status, gone.reason) == (Status.EXPIRED, "expired")


async def test_only_what_was_over_for_long_is_deleted(store):
    for id_ in ("conv_1", "conv_2", "conv_3"):
        await begun(store, id_)
    await store.commit(await attempt(store, key="k"), SAID, {})
    await store.end("conv_1", NOON, Status.ENDED, "ended")
    await store.end("conv_2", NOON + timedelta(hours=1), Status.ENDED, "ended")
    assert await store.purge(NOON + timedelta(minutes=1)) == 1
    assert await store.find("conv_1") is None
    assert await store.turns("conv_1") == []
    assert await store.answered("conv_1", "k") is None
    assert (await store.find("conv_2")).status is Status.ENDED
    assert (await store.find("conv_3")).status is Status.ONGOING


async def test_what_does_not_exist_is_said_to_be_unknown(store):
    assert await store.find("conv_x") is None
    assert await store.end("conv_x", NOON, Status.ENDED, "ended") is None
    with pytest.raises(UnknownConversation):
        await attempt(store, conversation_id="conv_x")
    with pytest.raises(UnknownConversation):
        await store.commit(Attempt("turn_1", "conv_x", NOON), SAID, {})


async def test_a_closed_store_says_so(make_store):
    store = make_store()
    await store.open()
    await store.ping()
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreFailed):
        await store.find("conv_1")


async def test_a_turn_of_a_store_that_is_gone_is_marked_when_the_next_one_opens(make_store):
    store = make_store()
    await store.open()
    await begun(store)
    await attempt(store, key="k")
    await store.aclose()
    again = make_store()
    try:
        assert await again.open() == 1
        assert [mark.id for mark in await again.interrupted("conv_1")] == ["turn_1"]
        assert await again.turns("conv_1") == [HELLO]
        assert (await attempt(again, "turn_2", key="k")).id == "turn_2"
    finally:
        await again.aclose()
