"""Calls of tools: all at once, each with one result, whatever the tool does."""

import asyncio
import json
import threading
import time

import pytest

from stateset_agents.agents.toolbox import Toolbox, ToolLimits
from stateset_agents.chat.tool_format import MalformedCall
from stateset_agents.core.errors import ConfigError, DataError, EnvironmentFailed
from stateset_agents.core.tool_calls import ToolCall, ToolError
from stateset_agents.core.tools import as_tools


def box(*functions, **limits):
    return Toolbox(as_tools(functions), ToolLimits(**limits))


def call(name, **arguments):
    return ToolCall(name, arguments)


async def only(toolbox, *calls, left=8):
    (turn,) = await toolbox.run(calls, left)
    return turn


def told(turn):
    data = json.loads(turn.content)
    assert data["error"] == turn.tool_result.error
    return data["error"], data["message"]


def echo(text: str):
    return text


async def wait(text: str):
    await asyncio.sleep(0)
    return {"text": text}


async def test_text_is_given_as_it_is_and_other_values_as_json():
    turns = await box(echo, wait).run([call("echo", text="größer <3"), call("wait", text="größer")], 8)
    assert [turn.content for turn in turns] == ["größer <3", '{"text": "größer"}']
    assert all(turn.role == "tool" and turn.tool_result.ok for turn in turns)


async def test_what_json_has_no_word_for_is_given_as_text_and_nothing_as_null():
    def today():
        import datetime

        return datetime.date(2026, 1, 31)

    def nothing():
        pass

    turns = await box(today, nothing).run([call("today"), call("nothing")], 8)
    assert [turn.content for turn in turns] == ['"2026-01-31"', "null"]


async def test_every_kind_of_error_is_told_with_its_name():
    def breaks():
        raise ValueError("no such order")

    def leaves():
        raise SystemExit(3)

    def stops():
        raise StopIteration("x")

    toolbox = box(echo, breaks, leaves, stops)
    calls = [
        MalformedCall("a <tool_call> has no </tool_call>"),
        call("drop_tables"),
        call("echo", txt="a"),
        call("breaks"),
        call("leaves"),
        call("stops"),
        call("echo", text="good"),
    ]
    turns = await toolbox.run(calls, 8)
    assert [told(turn) for turn in turns[:6]] == [
        ("malformed_call", "a <tool_call> has no </tool_call>"),
        ("unknown_tool", "there is no tool 'drop_tables'; there are: echo, breaks, leaves, stops"),
        ("bad_arguments", "text: Field required; txt: Extra inputs are not permitted"),
        ("tool_failed", "ValueError: no such order"),
        ("tool_failed", "RuntimeError: SystemExit: 3"),
        ("tool_failed", "RuntimeError: StopIteration: x"),
    ]
    assert turns[6].content == "good"


async def test_calls_beyond_the_budget_are_not_made():
    made = []

    def note(text: str):
        made.append(text)
        return "noted"

    turns = await box(note, calls_per_turn=2).run([call("note", text=t) for t in "abc"], 2)
    assert sorted(made) == ["a", "b"]
    assert told(turns[2]) == ("budget", "no more than 2 calls before a reply; answer the user")


async def test_sync_and_async_tools_that_hang_are_given_up_and_nobody_waits_for_their_threads():
    release = threading.Event()

    def hangs():
        release.wait(20)

    async def sleeps():
        await asyncio.sleep(20)

    begun = time.monotonic()
    turns = await box(hangs, sleeps, seconds_per_call=0.1).run([call("hangs"), call("sleeps")], 8)
    assert time.monotonic() - begun < 5
    release.set()
    assert [turn.tool_result.error for turn in turns] == [ToolError.TIMEOUT] * 2
    assert told(turns[0])[1] == "the tool took longer than 0.1 s"


async def test_a_tools_own_timeout_is_its_failure():
    async def gives_up():
        raise TimeoutError("the shop is closed")

    assert told(await only(box(gives_up), call("gives_up"))) == ("tool_failed", "TimeoutError: the shop is closed")


async def test_a_long_result_is_cut_at_a_character_and_says_so():
    turn = await only(box(echo, bytes_per_result=5), call("echo", text="äöüß"))
    assert (turn.content, turn.tool_result.cut) == ("äö [cut]", True)  # 2 bytes each: the fifth begins the third one
    turn = await only(box(echo, bytes_per_result=8), call("echo", text="äöüß"))
    assert (turn.content, turn.tool_result.cut) == ("äöüß", False)


async def test_half_a_character_is_no_crash():
    def half():
        return "a\ud800b"

    assert (await only(box(half), call("half"))).content == "a?b"


async def test_all_calls_of_all_conversations_are_under_way_at_once():
    together = threading.Barrier(40)

    def meet():
        together.wait(20)  # passes only if forty calls are here at the same time
        return "met"

    boxes = [box(meet) for _ in range(8)]
    found = await asyncio.gather(*(toolbox.run([call("meet")] * 5, 8) for toolbox in boxes))
    assert [turn.content for turns in found for turn in turns] == ["met"] * 40


async def test_sequential_calls_wait_for_each_other_in_the_order_in_which_they_were_made():
    seen = []

    async def write(text: str):
        seen.append(f"+{text}")
        await asyncio.sleep(0.02 if text == "a" else 0)
        seen.append(f"-{text}")

    toolbox = Toolbox(as_tools([{"function": write, "sequential": True}]), ToolLimits())
    await toolbox.run([call("write", text=text) for text in "abc"], 8)
    assert seen == ["+a", "-a", "+b", "-b", "+c", "-c"]


async def test_what_concerns_the_operator_or_the_world_passes_through_and_stops_the_others():
    cancelled = asyncio.Event()

    async def waits():
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    for error in (DataError("the table is missing"), EnvironmentFailed("the database is down")):

        async def breaks(error=error):
            raise error

        cancelled.clear()
        with pytest.raises(type(error)):
            await box(waits, {"name": "breaks", "function": breaks, "parameters": {}}).run(
                [call("waits"), call("breaks")], 8
            )
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_cancelled_turn_cancels_its_calls():
    cancelled = asyncio.Event()

    async def waits():
        try:
            await asyncio.sleep(20)
        finally:
            cancelled.set()

    task = asyncio.create_task(box(waits).run([call("waits")], 8))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("calls_per_turn", 0), ("calls_per_turn", 1.5), ("seconds_per_call", 0), ("bytes_per_result", True)],
)
def test_limits_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"ToolLimits.{name} is {value!r}"):
        ToolLimits(**{name: value})


async def test_a_sequential_call_is_alone_among_those_of_its_turn():
    """Mutation: sequential calls waiting for each other only."""
    stock = {"tea": 1}

    async def find():
        await asyncio.sleep(0.01)
        return stock["tea"]

    async def take():
        await asyncio.sleep(0.02)
        stock["tea"] -= 1

    toolbox = Toolbox(as_tools([find, {"function": take, "sequential": True}]), ToolLimits())
    turns = await toolbox.run([call("find"), call("take"), call("find")], 8)
    assert [turn.content for turn in turns] == ["1", "null", "0"]


async def test_of_many_calls_beyond_the_budget_one_is_answered():
    turns = await box(echo, calls_per_turn=2).run([call("echo", text="a")] * 100, 2)
    assert [turn.tool_result.error for turn in turns] == [None, None, ToolError.BUDGET]


async def test_values_that_would_differ_from_run_to_run_are_no_results():
    import dataclasses

    @dataclasses.dataclass
    class Order:
        number: int

    def order():
        return {"order": Order(3), "tags": {"b", "a"}}

    def thing():
        return object()

    turns = await box(order, thing).run([call("order"), call("thing")], 8)
    assert turns[0].content == '{"order": {"number": 3}, "tags": ["a", "b"]}'
    assert told(turns[1])[1].startswith("TypeError: the tool gave a object, which is no JSON")


async def test_a_tool_that_never_lets_go_has_failed_all_the_same():
    async def blocks():
        time.sleep(0.05)  # noqa: ASYNC251
        return "late"

    async def leaves():
        raise SystemExit(3)

    turns = await box(blocks, leaves, seconds_per_call=0.02).run([call("blocks"), call("leaves")], 8)
    assert [turn.tool_result.error for turn in turns] == [ToolError.TIMEOUT, ToolError.FAILED]


async def test_an_error_is_cut_and_holds_no_half_character():
    def long():
        raise ValueError("x\ud800" * 100)

    turn = await only(box(long, bytes_per_result=20), call("long"))
    assert told(turn)[1] == "ValueError: x?x?x?x? [cut]"


async def test_a_secret_in_what_a_tool_raises_never_reaches_the_model(monkeypatch):
    """Mutation: the model reads the key of the tool's own service, and tells it to whoever asks."""
    monkeypatch.setenv("WEATHER_API_KEY", "w-key-0123456789")

    def weather(city: str) -> str:
        """The weather."""
        raise ConnectionError("GET https://api.example?key=w-key-0123456789 failed")

    (turn,) = await Toolbox(as_tools([weather]), ToolLimits()).run([ToolCall("weather", {"city": "Ulm"})], 1)
    message = "ConnectionError: GET https://api.example?key=*** failed"
    assert json.loads(turn.content) == {"error": "tool_failed", "message": message}
