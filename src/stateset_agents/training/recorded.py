"""Records to groups of conversations, as if they had been played.

Invariant: the rows of a recorded conversation are those of a rollout in which everybody said the same. It takes the
same way: a fork of the agent is asked for each reply, and an engine gives the recorded one. Every record is rendered
before the first step, so that one which cannot be learned from ends a run at its beginning.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..agents.multi_turn import MultiTurnAgent
from ..agents.runtime import AgentRuntime
from ..agents.tool_agent import ToolAgent
from ..chat.tool_format import MalformedCall
from ..core.errors import DataError, ModelError
from ..core.messages import refuse
from ..core.records import Message, Record
from ..core.tool_calls import TOOL, ToolCall
from ..core.tools import BadArguments
from ..core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from ..engines.recorded import NOT_SAMPLED, RecordedEngine

_NEEDED = 'agent.type must be "tool", or "custom" with a class that derives from ToolAgent'


@dataclass(frozen=True)
class RecordedGroup:
    """A rendered record, small enough to keep all of a file.

    Attributes:
        record: what was said.
        answers: ids and masks of the rows of each answer.
    """

    record: Record
    answers: tuple[tuple[tuple[array[int], bytes], ...], ...]

    def to_group(self) -> TrajectoryGroup:
        """The conversations with their rewards: 1 for the one to learn, 0 for one to avoid."""
        told = self.record.prompt[:1] if self.record.prompt[0]["role"] == "system" else ()
        group = TrajectoryGroup(self.record.place)
        for number, (answer, rows) in enumerate(zip(self.record.answers, self.answers, strict=True)):
            messages = (*self.record.prompt[len(told) :], *answer)
            group.trajectories.append(
                MultiTurnTrajectory(
                    self.record.place,
                    turns=[_turn(message) for message in messages],
                    rows=[_row(ids, mask) for ids, mask in rows],
                    reward=float(number == 0),
                )
            )
        return group


async def render_records(
    records: Sequence[Record], agent: MultiTurnAgent, on_record: Callable[[int], None]
) -> list[RecordedGroup]:
    """Render every record as the agent's model would read and say it.

    Args:
        records: at least one.
        agent: initialized. Its system prompt holds where a record has none, its tools and memory window everywhere.
        on_record: told how many are done.

    Raises:
        DataError: records that are longer than the model's context, or that its tokenizer or chat template cannot
            render; several at once, each with its place.
    """
    rendered: list[RecordedGroup] = []
    problems: list[str] = []
    room = agent.runtime.max_context
    for done, record in enumerate(records, start=1):
        try:
            answers = [await render(record.prompt, answer, agent) for answer in record.answers]
        except (DataError, ModelError) as error:
            problems.append(f"{record.place}: {error}")
            continue
        for name, rows in zip(_names(record), answers, strict=True):
            longest = max(len(row) for row in rows)
            if longest > room:
                problems.append(
                    f"{record.place}: {name} has {longest} tokens, but the model's context is {room}; "
                    "shorten it or leave it out"
                )
        rendered.append(RecordedGroup(record, tuple(tuple(map(_packed, rows)) for rows in answers)))
        on_record(done)
        await asyncio.sleep(0)  # a signal may want to be heard
    refuse(problems)
    return rendered


async def render(prompt: Sequence[Message], answer: Sequence[Message], agent: MultiTurnAgent) -> list[TokenRow]:
    """The training rows of one conversation, as if the agent had played `answer` after `prompt`.

    Raises:
        DataError, ModelError: the tokenizer or the chat template refuses it, or it calls tools that the agent lacks.
    """
    codec = agent.runtime.codec
    _require_made_calls([*prompt, *answer], agent)
    said = [_text(message, agent) for message in answer]
    replies = [text for message, text in zip(answer, said, strict=True) if message["role"] == "assistant"]
    fork = _double(agent, RecordedEngine(codec, replies)).fork("recorded")
    history: list[Message] = [{"role": message["role"], "content": _text(message, agent)} for message in prompt]
    for message, text in zip(answer, said, strict=True):
        if message["role"] == "assistant":
            asked = max((at for at, earlier in enumerate(history) if earlier["role"] == "user"), default=0)
            turn = await fork.next_turn(history, fresh=len(history) - asked)
            # As in a rollout: later turns see what the ids say, which a tokenizer may spell in another way.
            text = turn.content
        history.append({"role": message["role"], "content": text})
    return fork.rows


def _double(agent: MultiTurnAgent, engine: RecordedEngine) -> MultiTurnAgent:
    """An agent of the same settings. A class of the user's own may change what is said; here it was said already."""
    double: MultiTurnAgent
    if isinstance(agent, ToolAgent):
        double = ToolAgent(agent.config, agent.tools, tool_format=agent.tool_format, limits=agent.limits)
    else:
        double = MultiTurnAgent(agent.config)
    double.runtime = AgentRuntime(None, agent.runtime.codec, engine)
    return double


def _text(message: Message, agent: MultiTurnAgent) -> str:
    """What is said; calls in the form in which the agent's model makes them.

    Raises:
        DataError: the agent has no such tool, or its model cannot make so many calls at once.
    """
    content = str(message["content"])
    if message["role"] not in ("assistant", "tool") or not message.get("tool_calls"):
        if message["role"] == "tool" and not isinstance(agent, ToolAgent):
            raise DataError(f"it has messages of tools, and the agent calls none: {_NEEDED}")
        return content
    if not isinstance(agent, ToolAgent):
        raise DataError(f"it calls tools, and the agent calls none: {_NEEDED}")
    calls = _calls(message)
    known = [tool.name for tool in agent.tools]
    for call in calls:
        if call.name not in known:
            raise DataError(f"it calls {call.name!r}, and the agent has the tools {', '.join(known) or '(none)'}")
    form = agent.format_of(agent.runtime)
    try:
        written = form.write(calls)
    except ValueError as error:
        raise DataError(str(error)) from None
    text = f"{content}\n{written}" if content.strip() else written
    if agent.calls_in(agent.runtime, text) != calls:
        thinks = ": its prompt opens a <think>, which they close" if agent.runtime.codec.opens_thought else ""
        raise DataError(
            f"its calls {calls!r:.80} cannot be told from the words beside them in the form {form.name!r}, in which "
            f"this model makes them; leave the content empty, or other words out{thinks}"
        )
    return text


def _calls(message: Message) -> list[ToolCall]:
    return [ToolCall(call["name"], call["arguments"]) for call in message.get("tool_calls") or ()]


def _turn(message: Message) -> ConversationTurn:
    return ConversationTurn(message["role"], message["content"], tool_calls=tuple(_calls(message)))


def _require_made_calls(messages: Sequence[Message], agent: MultiTurnAgent) -> None:
    """Every call is one that the agent could make, and has the tool's answer after it.

    Raises:
        DataError: one is or has not.
    """
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        after = next((n for n, later in enumerate(messages[at + 1 :]) if later["role"] != TOOL), len(messages) - at - 1)
        text = _text(message, agent)
        if not isinstance(agent, ToolAgent):
            continue
        calls = agent.calls_in(agent.runtime, text) if agent.tools else []
        if len(calls) != after:
            raise DataError(f"{text!r:.60} makes {len(calls)} calls, and {after} messages of tools follow it")
        tools = {tool.name: tool for tool in agent.tools}
        for call in calls:
            if isinstance(call, MalformedCall):
                raise DataError(f"{text!r:.60} is no call: {call.problem}")
            if call.name not in tools:
                raise DataError(f"it calls {call.name!r}, and the agent has the tools {', '.join(tools) or '(none)'}")
            try:
                tools[call.name].check(call.arguments)
            except BadArguments as error:
                raise DataError(f"it calls {call.name!r} with arguments that do not fit: {error}") from None


def _names(record: Record) -> tuple[str, ...]:
    return ("the conversation",) if len(record.answers) == 1 else ("the prompt with chosen", "the prompt with rejected")


def _packed(row: TokenRow) -> tuple[array[int], bytes]:
    return array("i", row.ids), bytes(row.mask)


def _row(ids: array[int], mask: bytes) -> TokenRow:
    return TokenRow(list(ids), list(mask), [0.0] * len(ids), [NOT_SAMPLED] * len(ids))
