"""What one agent rendered and sampled in one conversation, token by token.

Invariant: a row only grows, and only by tokens that the model saw or sampled in that order. A reply is appended with
its prompt when it is finished, so that a reply that failed or was cancelled leaves no trace.

A request for the next reply comes as messages. If they begin with everything that a row holds, word for word, that row
is extended: sampled ids are never tokenised again. If history was rewritten (an edited reply, a memory window, a chat
template that drops earlier thoughts) the messages open another row, in which all that came before is context.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..chat import GrowingText
from ..core.busy import during
from ..core.errors import StatesetError, is_out_of_memory
from ..core.outcome import StopReason
from ..core.trajectory import ConversationTurn, SampledSpan, TokenRow
from ..engines.base import Generation, GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from ..chat.codec import Rendering
    from .runtime import AgentRuntime

Message = Mapping[str, str]
Definitions = Sequence[Mapping[str, Any]] | None


class EngineFailed(StatesetError):
    """The engine broke in a way it does not document. Nothing that an agent or a user wrote caused it."""


@dataclass
class _Line:
    """A row and what it says."""

    row: TokenRow = field(default_factory=TokenRow)
    messages: list[Message] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    rendering: Rendering | None = None
    reply: tuple[int, ...] = ()
    closed: bool = True
    busy: bool = False


@dataclass
class _Pending:
    """A reply under way: the row it will go to, and the whole prompt."""

    line: _Line
    messages: list[Message]
    rendering: Rendering
    request: GenerationRequest
    clipped: bool


class TokenSession:
    """The rows of one conversation.

    Args:
        key: of the episode; the n-th reply is sampled under `f"{key}#{n}"`.
        keep: whether rows and the engine's cache outlive a reply. An agent that is no episode's fork keeps nothing.
    """

    def __init__(self, key: str, *, keep: bool = True) -> None:
        self.key = key
        self._keep = keep
        self._lines: list[_Line] = []
        self._replies: list[tuple[str, SampledSpan]] = []
        self._asked = 0

    @property
    def rows(self) -> list[TokenRow]:
        """Rows in the order in which they were opened."""
        return [line.row for line in self._lines if line.row.ids]

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Ask inside of it: what is given up or fails takes no key, and the next reply is as it would have been."""
        asked = self._asked
        try:
            yield
        except BaseException:
            self._asked = asked
            raise

    async def reply(
        self, runtime: AgentRuntime, messages: Sequence[Message], params: SamplingParams, tools: Definitions = None
    ) -> ConversationTurn:
        """Sample the assistant's answer to `messages`, for which the template may show `tools`.

        Returns:
            The turn. When not one token fits into the context any more its content is empty, it has no span, its
            stop reason is CONTEXT, and its metadata says `prompt_tokens` and `max_context`.

        Raises:
            EngineFailed: the engine raised something that is no `StatesetError`. That memory ran out passes as it is.
        """
        pending = self._begin(runtime, messages, params, tools)
        if isinstance(pending, ConversationTurn):
            return pending
        try:
            with during("generate"):
                generation = await runtime.engine.generate(pending.request)
        except StatesetError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise EngineFailed(f"reply {pending.request.key}: the engine raised {_name(error)}") from error
        finally:
            pending.line.busy = False
        return self._finish(runtime, pending, generation)

    async def stream(
        self, runtime: AgentRuntime, messages: Sequence[Message], params: SamplingParams, tools: Definitions = None
    ) -> AsyncGenerator[str | ConversationTurn, None]:
        """Like `reply`, in pieces of text, and the turn as the last item. A cut-off character waits for its rest."""
        pending = self._begin(runtime, messages, params, tools)
        if isinstance(pending, ConversationTurn):
            yield pending
            return
        ids: list[int] = []
        growing = GrowingText(runtime.codec)
        shown = ""
        final: Generation | None = None
        tokens = runtime.engine.stream(pending.request)
        try:
            async for token in tokens:
                ids.append(token.id)
                final = token.final
                text = growing.of(ids)
                if text.startswith(shown) and len(text) > len(shown) and not text.endswith("\ufffd"):
                    yield text[len(shown) :]
                    shown = text
        except StatesetError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise EngineFailed(f"reply {pending.request.key}: the engine raised {_name(error)}") from error
        finally:
            pending.line.busy = False
            close = getattr(tokens, "aclose", None)
            if close is not None:
                await close()
        if final is None:
            raise EngineFailed(f"reply {pending.request.key}: the engine's stream ended without a last token")
        turn = self._finish(runtime, pending, final)
        if len(turn.content) > len(shown):
            yield turn.content[len(shown) :]
        yield turn

    def settle(self, turns: Sequence[ConversationTurn]) -> int:
        """Mask what did not reach the conversation as it was sampled.

        A turn that repeats a reply word for word without its span (an agent that wraps `generate_response`) gets it.

        Returns:
            Assistant turns whose text code wrote or edited.
        """
        written = 0
        reached: set[tuple[int, int]] = set()
        for turn in turns:
            if turn.role != "assistant":
                continue
            if turn.span is None:
                twins = (r for r in self._replies if r[0] == turn.content and _place(r[1]) not in reached)
                turn.sampled_text, turn.span = next(twins, (None, None))
            if turn.sampled and turn.span is not None:
                reached.add(_place(turn.span))
            else:
                written += 1
        for _, span in self._replies:
            if _place(span) not in reached:
                span.unmask()
        return written

    def release(self, runtime: AgentRuntime | None) -> None:
        """Let the engine forget this conversation's cache."""
        if runtime is not None and self._keep:
            runtime.engine.release(self.key)

    def _begin(
        self, runtime: AgentRuntime, messages: Sequence[Message], params: SamplingParams, tools: Definitions
    ) -> _Pending | ConversationTurn:
        messages = [{"role": m["role"], "content": m["content"]} for m in messages]
        line, rendering = self._find(runtime, messages, tuple(tools) if tools else None)
        key = f"{self.key}#{self._asked}"
        self._asked += 1
        ids = tuple(rendering.ids)
        room = runtime.max_context - len(ids)
        if room < 1:
            return ConversationTurn(
                "assistant",
                "",
                metadata={"prompt_tokens": len(ids), "max_context": runtime.max_context},
                stop_reason=StopReason.CONTEXT,
            )
        clipped = room < params.max_new_tokens
        request = GenerationRequest(
            key=key,
            prompt_ids=ids,
            params=replace(params, max_new_tokens=room) if clipped else params,
            sampled_spans=tuple(line.spans),
            # Two replies at once cannot both own the kept cache; the second does without.
            session=self.key if self._keep and not any(other.busy for other in self._lines) else None,
        )
        line.busy = True
        if self._keep and not any(other is line for other in self._lines):
            self._lines.append(line)
        return _Pending(line, messages, rendering, request, clipped)

    def _find(
        self, runtime: AgentRuntime, messages: list[Message], tools: tuple[Mapping[str, Any], ...] | None
    ) -> tuple[_Line, Rendering]:
        """The row that says most of `messages`, with the prompt that continues it; otherwise an empty row."""
        known = [
            line
            for line in self._lines
            if line.rendering is not None
            and line.rendering.tools == tools
            and not line.busy
            and len(line.messages) < len(messages)
            and line.messages == messages[: len(line.messages)]
        ]
        for line in sorted(known, key=lambda line: len(line.messages), reverse=True):
            assert line.rendering is not None  # noqa: S101 - filtered above, for the type checker
            rendering = runtime.codec.extend(
                line.rendering,
                reply_ids=line.reply,
                reply_text=line.messages[-1]["content"],
                new_messages=messages[len(line.messages) :],
                closed=line.closed,
            )
            if rendering is not None and list(rendering.ids[: len(line.row)]) == line.row.ids:
                return line, rendering
        return _Line(), runtime.codec.open(messages, tools=tools)

    def _finish(self, runtime: AgentRuntime, pending: _Pending, generation: Generation) -> ConversationTurn:
        if generation.stop_reason is StopReason.CANCELLED:
            raise EngineFailed(f"reply {pending.request.key} was cancelled by the engine")
        line, row = pending.line, pending.line.row
        row.append_context(pending.request.prompt_ids[len(row) :])
        span = row.append_sampled(generation.ids, generation.logprobs, generation.version)
        text = runtime.codec.parse(generation.ids)
        line.messages = [*pending.messages, {"role": "assistant", "content": text}]
        line.spans.append((span.start, span.end))
        line.rendering, line.reply = pending.rendering, generation.ids
        line.closed = generation.stop_reason is StopReason.STOP
        if self._keep:
            self._replies.append((text, span))
        cut = pending.clipped and generation.stop_reason is StopReason.LENGTH
        return ConversationTurn(
            "assistant",
            text,
            span=span,
            sampled_text=text,
            stop_reason=StopReason.CONTEXT if cut else generation.stop_reason,
        )


def _place(span: SampledSpan) -> tuple[int, int]:
    return id(span.row), span.start


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
