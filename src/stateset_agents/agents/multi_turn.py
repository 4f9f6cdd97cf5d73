"""MultiTurnAgent: a language model that holds a conversation.

Invariant: what the model reads is the system prompt, the scenario's `agent_context`, the history (or what `memory.py`
shows of it) and the user's message, rendered by the chat template; nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ..core.errors import ConfigError, ContextFull, ModelError
from ..core.outcome import StopReason
from ..core.trajectory import ConversationTurn, TokenRow
from ..engines.base import SamplingParams
from .base import Agent, History
from .config import AgentConfig
from .history import as_messages
from .memory import first_in_window, first_that_fits, notes_of, since_the_user
from .runtime import AgentRuntime, LazyRuntime
from .session import Definitions, Message, TokenSession


class MultiTurnAgent(Agent):
    """An agent for conversations of several turns.

    Subclass it and override `process_turn` to act before or after the model's reply; the override is what rollouts,
    evaluation and serving call.

    Args:
        config: what the agent is told.
        memory_window, context_compression: override the config's.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self, config: AgentConfig, *, memory_window: int | None = None, context_compression: bool | None = None
    ) -> None:
        if not isinstance(config, AgentConfig):
            raise ConfigError(
                f"{type(self).__name__}(config) got {config!r}; pass AgentConfig(model_name=...) "
                f"or use {type(self).__name__}.from_model(name)"
            )
        changes: dict[str, Any] = {"memory_window": memory_window, "context_compression": context_compression}
        changes = {name: value for name, value in changes.items() if value is not None}
        self.config = replace(config, **changes) if changes else config
        self._runtime = LazyRuntime()
        self._session = TokenSession("agent", keep=False)

    @classmethod
    def from_model(cls, name: str, **config: Any) -> Self:
        """An agent on the model `name`; keywords are the fields of `AgentConfig`.

        Raises:
            ConfigError: a field does not exist or is wrong.
        """
        try:
            settings = AgentConfig(model_name=name, **config)
        except TypeError as error:
            raise ConfigError(f"from_model({name!r}): {error}; fields are those of AgentConfig") from None
        return cls(settings)

    @property
    def runtime(self) -> AgentRuntime:
        """Model, codec and engine.

        Raises:
            ModelError: the agent is not initialized.
        """
        if self._runtime.loaded is None:
            raise ModelError(f"{type(self).__name__} is not initialized; `await agent.initialize()` loads its model")
        return self._runtime.loaded

    @runtime.setter
    def runtime(self, runtime: AgentRuntime) -> None:
        self._runtime.set(runtime)

    @property
    def initialized(self) -> bool:
        """Whether the model is loaded."""
        return self._runtime.loaded is not None

    @property
    def rows(self) -> list[TokenRow]:
        """Training rows of the episode that this fork plays; an agent that is no fork keeps none."""
        return self._session.rows

    async def initialize(self) -> None:
        """Load the model.

        Raises:
            ModelError: it does not exist, does not fit, or has no chat template.
        """
        await self._runtime.get(self.config)

    @property
    def loads_from(self) -> str | None:
        """Folder that its weights are taken from; None if the config's `model_name` says it."""
        return self._runtime.weights

    def load_from(self, weights: str | None) -> None:
        """Take the weights from this folder (None: by the config's `model_name`) at the next use."""
        self._runtime = LazyRuntime(weights)

    async def process_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> ConversationTurn:
        """See `Agent.process_turn`. The turn's stop reason is CONTEXT when the model's context is full."""
        messages = [*as_messages(history), {"role": "user", "content": user_input}]
        return await self._respond(messages, context)

    async def stream_turn(
        self, history: History, user_input: str, context: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """See `Agent.stream_turn`. An override of `process_turn` is called instead, and its turn comes in one piece."""
        overridden = getattr(self.process_turn, "__func__", None) is not MultiTurnAgent.process_turn
        if overridden or getattr(self.next_turn, "__func__", None) is not MultiTurnAgent.next_turn:
            pieces = super().stream_turn(history, user_input, context)
        else:
            messages = [*as_messages(history), {"role": "user", "content": user_input}]
            pieces = self._stream(messages, context)
        with self._session.attempt():
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def generate_response(self, messages: History) -> str:
        """The model's reply to `messages`, without any override of `process_turn`.

        Args:
            messages: `{"role", "content"}` mappings or turns; the last one is answered. A leading system message takes
                the place of the agent's own system prompt.

        Raises:
            ConfigError: there are no messages.
            ContextFull: they do not fit into the model's context. An episode whose agent lets it pass is truncated.
        """
        turn = await self._respond(_given(messages), None)
        _require_room(turn)
        return turn.content

    async def stream_response(self, messages: History) -> AsyncIterator[str]:
        """Like `generate_response`, in pieces of text as they come."""
        async with aclosing(self._stream(_given(messages), None)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield piece
                elif piece.stop_reason is StopReason.CONTEXT:
                    _require_room(piece)

    async def _respond(self, messages: list[Message], context: Mapping[str, Any] | None) -> ConversationTurn:
        """The answer to messages of which the first may be a system prompt."""
        return await self.next_turn(messages, context, since_the_user(messages))

    async def _stream(
        self, messages: list[Message], context: Mapping[str, Any] | None
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """Like `_respond`, in pieces of text, and the turn as the last item."""
        async with aclosing(self._next_pieces(messages, context, since_the_user(messages))) as pieces:
            async for piece in pieces:
                yield piece

    async def _next_pieces(
        self, messages: list[Message], context: Mapping[str, Any] | None, fresh: int = 1
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """Like `next_turn`, in pieces of text, and the turn as the last item."""
        runtime = await self._runtime.get(self.config)
        composed = self._compose(runtime, messages, context, fresh)
        tools = self._definitions(runtime, context)
        async with aclosing(self._session.stream(runtime, composed, self._params(runtime), tools)) as pieces:
            async for piece in pieces:
                yield piece

    async def next_turn(
        self, messages: list[Message], context: Mapping[str, Any] | None = None, fresh: int = 1
    ) -> ConversationTurn:
        """What the model says next, whatever it is: a call of a tool in it is not made.

        Args:
            messages: the conversation, `{"role", "content"}`; the first may be a system prompt.
            context: as in `process_turn`.
            fresh: newest messages that no memory window hides.
        """
        runtime = await self._runtime.get(self.config)
        composed = self._compose(runtime, messages, context, fresh)
        return await self._session.reply(runtime, composed, self._params(runtime), self._definitions(runtime, context))

    def prompt_tokens(self, user_input: str, context: Mapping[str, Any] | None = None) -> int:
        """Length of the prompt with which a conversation begins, in tokens.

        Args:
            user_input: the opening.
            context: as in `process_turn`.

        Raises:
            ModelError: the agent is not initialized.
        """
        opening: list[Message] = [{"role": "user", "content": user_input}]
        return self._prompt_length(self.runtime, self._compose(self.runtime, opening, context), context)

    def most_tokens(self, replies: int) -> int:
        """The most tokens that it can sample in a conversation of so many replies."""
        return self.config.max_new_tokens * replies

    def said_beside_calls(self, content: str) -> str:
        """What a sampled turn says to the user; without tools that is all of it."""
        return content

    def settle(self, turns: Sequence[ConversationTurn]) -> int:
        """See `Agent.settle`."""
        return self._session.settle(turns)

    def release(self) -> None:
        """See `Agent.release`."""
        self._session.release(self._runtime.loaded)

    async def aclose(self) -> None:
        """Stop the engine and let the weights go. The next use loads them again."""
        await self._runtime.aclose()

    def _shared_names(self) -> tuple[str, ...]:
        return (*self.shared, "_runtime", "_session")

    def _on_fork(self) -> None:
        self._session = TokenSession(self.key)

    def _params(self, runtime: AgentRuntime) -> SamplingParams:
        config = self.config
        params = SamplingParams(
            temperature=config.temperature, max_new_tokens=config.max_new_tokens, stop_ids=tuple(runtime.codec.stop_ids)
        )
        if self.training_sampling:
            return params
        return replace(params, top_p=config.top_p, top_k=config.top_k, repetition_penalty=config.repetition_penalty)

    def _compose(
        self, runtime: AgentRuntime, messages: list[Message], context: Mapping[str, Any] | None, fresh: int = 1
    ) -> list[Message]:
        """System prompt and what is shown of `messages`, whose last `fresh` ones are always shown."""
        system = [self.config.system_prompt] if self.config.system_prompt else []
        if messages[0]["role"] == "system":
            system, messages = [messages[0]["content"]], messages[1:]
        if context and context.get("agent_context"):
            system.append(str(context["agent_context"]))
        system += self._tool_instructions(runtime, context)
        compressed = self.config.context_compression

        def prompt(first: int) -> list[Message]:
            notes = notes_of(messages[:first]) if compressed else ""
            told = [*system, notes] if notes else system
            opening: list[Message] = [{"role": "system", "content": "\n\n".join(told)}] if told else []
            return opening + messages[first:]

        def fits(first: int) -> bool:
            room = runtime.max_context - self._prompt_length(runtime, prompt(first), context)
            return room >= self.config.max_new_tokens

        first = first_in_window(messages, self.config.memory_window, fresh)
        return prompt(first_that_fits(messages, first, fresh, fits) if compressed else first)

    def _prompt_length(self, runtime: AgentRuntime, messages: list[Message], context: Mapping[str, Any] | None) -> int:
        """Tokens of a composed prompt."""
        return len(runtime.codec.open(messages, tools=self._definitions(runtime, context)).ids)

    def _definitions(self, runtime: AgentRuntime, context: Mapping[str, Any] | None) -> Definitions:
        """The tools that the chat template shows. This agent has none."""
        return None

    def _tool_instructions(self, runtime: AgentRuntime, context: Mapping[str, Any] | None) -> list[str]:
        """What the system prompt says of tools. This agent calls none."""
        if context and context.get("tools"):
            raise ConfigError(
                f"the environment offers tools, and {type(self).__name__} calls none; use ToolAgent, or derive from it"
            )
        return []


def require_begun(agent: MultiTurnAgent) -> None:
    """Refuse an agent of a class whose `__init__` left out that of `MultiTurnAgent`: it has no model.

    Raises:
        ConfigError: the class, the place of its `__init__` and what to add.
    """
    if {"config", "_runtime", "_session"} <= vars(agent).keys():
        return
    kind = type(agent)
    code = getattr(kind.__init__, "__code__", None)
    place = f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code is not None else ""
    raise ConfigError(
        f"{kind.__name__}.__init__{place} does not call super().__init__(config), so the agent has no model: call it "
        "first, with an AgentConfig"
    )


def _given(messages: History) -> list[Message]:
    if not messages:
        raise ConfigError("there are no messages to answer; pass [{'role': 'user', 'content': '...'}]")
    return as_messages(messages)


def _require_room(turn: ConversationTurn) -> None:
    if turn.span is None:
        raise ContextFull(turn.metadata["prompt_tokens"], turn.metadata["max_context"])
