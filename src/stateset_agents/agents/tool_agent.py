"""ToolAgent: an agent that calls functions before it answers.

Invariant: what the model sampled is what is trained: calls stay in the conversation as the text that was sampled, and
what the tools said is context. A move ends with the first turn that calls nothing. Calls beyond the budget are not
made, and a turn that still calls something after it was told so is the reply, which says nothing to the user.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Self

from ..chat.tool_format import FORMATS, Calls, ToolFormat, ToolFormatName
from ..core.errors import ConfigError
from ..core.tool_calls import TOOL, ToolCall, spoken
from ..core.tools import Tool, as_tools
from ..core.trajectory import ConversationTurn
from .config import AgentConfig
from .memory import since_the_user
from .multi_turn import MultiTurnAgent
from .runtime import AgentRuntime
from .session import Definitions, Message
from .toolbox import Toolbox, ToolLimits

logger = logging.getLogger(__name__)

_TOLD: set[type] = set()


class ToolAgent(MultiTurnAgent):
    """An agent that uses tools.

    `stream_response` shows what is said beside calls too ("Let me look."), `generate_response` gives the last reply.
    An override of `process_turn` calls `super().process_turn`, whose turn has the calls as its `steps`.

    Args:
        config: what the agent is told.
        tools: functions, `Tool` objects, or mappings such as `{"name", "description", "function"}`. The description of
            the parameters is read from a function's signature and docstring unless `parameters` (JSON Schema) has it.
            An environment may offer more (`Environment.episode_tools`).
        tool_format: how the model calls: "hermes", "llama" or "json"; "auto" reads it off the chat template.
        limits: what the tools may take.
        memory_window, context_compression: override the config's.

    Raises:
        ConfigError: a setting or a tool is wrong.
    """

    def __init__(
        self,
        config: AgentConfig,
        tools: Iterable[object] = (),
        *,
        tool_format: ToolFormatName = "auto",
        limits: ToolLimits | None = None,
        memory_window: int | None = None,
        context_compression: bool | None = None,
    ) -> None:
        super().__init__(config, memory_window=memory_window, context_compression=context_compression)
        if tool_format not in ("auto", *FORMATS):
            known = ", ".join(("auto", *FORMATS))
            raise ConfigError(f"tool_format is {tool_format!r}, which does not exist. Known: {known}")
        self.tools: list[Tool] = as_tools(tools)
        self.tool_format = tool_format
        if limits is not None and not isinstance(limits, ToolLimits):
            raise ConfigError(f"limits is {limits!r:.60}; it must be ToolLimits(calls_per_turn=...)")
        self.limits = limits if limits is not None else ToolLimits()
        self._made: list[ConversationTurn] = []
        """Steps of the moves that are over."""

    @classmethod
    def from_model(cls, name: str, *, tools: Iterable[object] = (), **config: Any) -> Self:
        """An agent on the model `name` with these tools; other keywords are the fields of `AgentConfig`.

        Raises:
            ConfigError: a field does not exist, or it or a tool is wrong.
        """
        agent = super().from_model(name, **config)
        agent.tools = as_tools(tools) if tools else agent.tools
        return agent

    def format_of(self, runtime: AgentRuntime) -> ToolFormat:
        """How this model calls tools.

        Raises:
            ConfigError: the form needs a chat template that shows tools, and the model's does not.
        """
        codec = runtime.codec
        if self.tool_format == "auto":
            return codec.tool_format
        chosen = FORMATS[self.tool_format]
        if chosen.native and not codec.shows_tools:
            raise ConfigError(
                f"tool_format is {self.tool_format!r}, but the model's chat template does not tell it of tools; use "
                '"json", for which the system prompt does'
            )
        return chosen

    def most_tokens(self, replies: int) -> int:
        """See `MultiTurnAgent.most_tokens`: before each reply a turn for each call, and one more that is refused."""
        return super().most_tokens(replies) * (self.limits.calls_per_turn + 2)

    def calls_in(self, runtime: AgentRuntime, reply: str) -> Calls:
        """The calls in a reply. A thought that the prompt opened is part of it."""
        thought = "<think>" if runtime.codec.opens_thought else ""
        return self.format_of(runtime).calls(thought + reply)

    def settle(self, turns: Sequence[ConversationTurn]) -> int:
        """See `Agent.settle`. Says so, once for a class, when calls that were made did not reach the conversation."""
        written = super().settle(turns)
        calls = [step.span for step in self._made if step.span is not None]
        lost = sum(not any(span.row.mask[span.start : span.end]) for span in calls)
        if lost and type(self) not in _TOLD:
            _TOLD.add(type(self))
            logger.warning(
                "%d of %d turns with calls did not reach the conversation, so that they are not trained and no "
                "environment or reward sees them: return the turn of super().process_turn, or give yours its `steps` "
                "(%s.process_turn)",
                lost,
                len(calls),
                type(self).__name__,
            )
        return written

    def _on_fork(self) -> None:
        super()._on_fork()
        self._made = []

    def _shared_names(self) -> tuple[str, ...]:
        return (*super()._shared_names(), "_made")

    def said_beside_calls(self, content: str) -> str:
        """What a sampled turn says to the user, without its calls."""
        return self.format_of(self.runtime).speech(content)

    async def _respond(self, messages: list[Message], context: Mapping[str, Any] | None) -> ConversationTurn:
        context = self._with_tools(context)
        move = await self._move(messages, context)
        while True:
            turn = await self.next_turn(move.messages, context, move.fresh)
            calls = move.calls_of(turn)
            if not calls:
                return turn
            await move.make(calls)

    async def _stream(
        self, messages: list[Message], context: Mapping[str, Any] | None
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """Pieces of what is certainly said to the user; calls are turns, as soon as they are about to be made."""
        context = self._with_tools(context)
        move = await self._move(messages, context)
        while True:
            text, shown = "", 0
            async with aclosing(self._next_pieces(move.messages, context, move.fresh)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ConversationTurn):
                        turn = piece
                        continue
                    text += piece
                    safe = 0 if move.warned else len(move.form.speech(text))  # what calls again says nothing
                    if safe > shown:
                        yield text[shown:safe]
                        shown = safe
            calls = move.calls_of(turn)
            if not calls:
                if len(spoken(turn)) > shown:
                    yield turn.content[shown:]
                yield turn
                return
            yield turn
            for result in await move.make(calls):
                yield result

    async def _move(self, messages: list[Message], context: Mapping[str, Any] | None) -> _Move:
        runtime = await self._runtime.get(self.config)
        box = Toolbox(self.offered(context), self.limits)
        made = self._made if self.key else []  # who is no fork is never settled
        return _Move(messages, self.format_of(runtime), partial(self.calls_in, runtime), box, made)

    def _with_tools(self, context: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The context with what the environment offers as `Tool` objects: made once in a move, however often asked."""
        return {**context, "tools": as_tools(context["tools"])} if context and context.get("tools") else context

    def _compose(
        self, runtime: AgentRuntime, messages: list[Message], context: Mapping[str, Any] | None, fresh: int = 1
    ) -> list[Message]:
        composed = super()._compose(runtime, messages, context, fresh)
        return composed if runtime.codec.shows_results else results_as_user_words(composed)

    def _definitions(self, runtime: AgentRuntime, context: Mapping[str, Any] | None) -> Definitions:
        tools = self.offered(context)
        return _described(tools) if tools and self.format_of(runtime).native else None

    def _tool_instructions(self, runtime: AgentRuntime, context: Mapping[str, Any] | None) -> list[str]:
        tools = self.offered(context)
        told = self.format_of(runtime).instructions(_described(tools)) if tools else ""
        return [told] if told else []

    def offered(self, context: Mapping[str, Any] | None = None) -> list[Tool]:
        """The agent's own tools and those that the environment offers in this episode.

        Args:
            context: as in `process_turn`.

        Raises:
            ConfigError: two of them have the same name.
        """
        episode = (context or {}).get("tools") or ()
        return as_tools([*self.tools, *episode]) if episode else self.tools


def results_as_user_words(messages: Sequence[Message]) -> list[Message]:
    """What tools said as the user's words, for a chat template that has no other place for them."""
    shown: list[Message] = []
    after_a_result = False
    for message in messages:
        result = message["role"] == TOOL
        if not result:
            shown.append(message)
        elif after_a_result:  # templates of this kind want user and assistant in turns
            shown[-1] = {"role": "user", "content": f"{shown[-1]['content']}\nTool result: {message['content']}"}
        else:
            shown.append({"role": "user", "content": f"Tool result: {message['content']}"})
        after_a_result = result
    return shown


def _described(tools: list[Tool]) -> list[Mapping[str, Any]]:
    return [tool.definition() for tool in tools]


class _Move:
    """One turn of the user, up to the reply: the calls that were made, and how many are left.

    Attributes:
        form: in which the model calls.
        steps: calls that were made and what the tools said.
        warned: whether it was told that no call is left. A turn that calls all the same is the reply.
    """

    def __init__(
        self,
        messages: list[Message],
        form: ToolFormat,
        calls_in: Callable[[str], Calls],
        box: Toolbox,
        made: list[ConversationTurn],
    ) -> None:
        self.form = form
        self._calls_in = calls_in
        self.steps: list[ConversationTurn] = []
        self._asked = messages
        self._box, self._made = box, made
        self._left = box.limits.calls_per_turn
        self.warned = False

    @property
    def messages(self) -> list[Message]:
        """The conversation, with what happened in this move."""
        return [*self._asked, *(step.to_message() for step in self.steps)]

    @property
    def fresh(self) -> int:
        """The user's message and what came after it."""
        return since_the_user(self.messages)

    def calls_of(self, turn: ConversationTurn) -> Calls:
        """The calls that `make` is to make; none if this turn is the reply, which has the steps of the move then."""
        calls = self._calls_in(turn.content) if self._box.tools and turn.span is not None else []
        if not calls or self.warned:
            turn.tool_calls = tuple(call for call in calls if isinstance(call, ToolCall))  # unmade: nobody hears them
            turn.steps = self.steps
            self._made += self.steps
            return []
        turn.tool_calls = tuple(call for call in calls[: self._left + 1] if isinstance(call, ToolCall))
        self.warned = len(calls) > self._left
        self.steps.append(turn)
        return calls

    async def make(self, calls: Calls) -> list[ConversationTurn]:
        """What the tools say to these calls."""
        results = await self._box.run(calls, self._left)
        self._left = max(0, self._left - len(calls))
        self.steps += results
        return results
