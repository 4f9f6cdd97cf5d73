"""What a chat completion request asks of the engine.

Invariant: whatever a request holds is checked here, before the engine sees it: what comes out can be sampled, or the
request is refused with the name of the parameter. The client's messages stand for themselves: nothing of an earlier
request is in the prompt, and only the agent's own system prompt is, where the client sends none.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..agents.config import AgentConfig
from ..agents.runtime import AgentRuntime
from ..agents.tool_agent import results_as_user_words
from ..chat.tool_format import ToolFormat
from ..core.errors import ConfigError, DataError, ModelError
from ..core.json_schema import well_formed
from ..core.tool_calls import ToolCall
from ..engines.base import GenerationRequest, SamplingParams
from .errors import ServeError
from .http_limits import HttpLimits
from .openai_schema import (
    AssistantMessage,
    CompletionRequest,
    Content,
    FunctionDefinition,
    ToolCallMessage,
    ToolMessage,
)
from .refusals import Unprocessable

_ANY_OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Ask:
    """A request that the engine can answer.

    Attributes:
        requests: one for each choice.
        stops: texts that end a reply.
        form: how calls are read; None where the client offers no tools.
        tools: names of those that it offers.
        logprobs: whether it wants them.
        streamed: whether it wants pieces.
    """

    requests: tuple[GenerationRequest, ...]
    stops: tuple[str, ...]
    form: ToolFormat | None
    tools: frozenset[str]
    logprobs: bool
    streamed: bool

    @property
    def read_on_the_way(self) -> bool:
        """Whether a reply's text is of use before its end."""
        return self.streamed or bool(self.stops)

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt, which all choices share."""
        return len(self.requests[0].prompt_ids)


def ask(request: CompletionRequest, runtime: AgentRuntime, config: AgentConfig, limits: HttpLimits) -> Ask:
    """Turn a request into what the engine is asked.

    Args:
        request: fits its schema.
        runtime: of the agent that is served.
        config: of the agent: its sampling where the request names none, and its system prompt.
        limits: what a request may take.

    Raises:
        ServeError: something in it cannot be done; the error names the parameter.
    """
    choices = request.n or 1
    definitions = _definitions(request)
    form = runtime.codec.tool_format
    messages = _messages(request, form)
    prompt = _rendered(messages, definitions, runtime, config)
    room = runtime.max_context - len(prompt)
    if room < 1:
        told = f"they have {len(prompt)} tokens, and the model's context is {runtime.max_context}; send fewer"
        raise refused("messages", told, "context_length_exceeded")
    params = _sampling(request, config, limits, runtime, room)
    seed = secrets.token_hex(16) if request.seed is None else f"seed {request.seed}"
    return Ask(
        tuple(GenerationRequest(f"{seed}#{index}", prompt, params) for index in range(choices)),
        (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        form if definitions else None,
        frozenset(one["function"]["name"] for one in definitions),
        bool(request.logprobs),
        bool(request.stream),
    )


def refused(param: str, why: str, code: str = "invalid_value") -> ServeError:
    """The refusal of one parameter."""
    return Unprocessable([{"loc": param, "msg": why}], code)


def _sampling(
    request: CompletionRequest, config: AgentConfig, limits: HttpLimits, runtime: AgentRuntime, room: int
) -> SamplingParams:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise refused("max_tokens", "it is the old name of max_completion_tokens: give one of them")
    wanted = request.max_completion_tokens or request.max_tokens
    return SamplingParams(
        temperature=config.temperature if request.temperature is None else request.temperature,
        max_new_tokens=min(wanted or config.max_new_tokens, limits.new_tokens, room),
        top_p=config.top_p if request.top_p is None else request.top_p,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        stop_ids=tuple(runtime.codec.stop_ids),
    )


def _definitions(request: CompletionRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown, in the form that chat templates take."""
    if request.stream_options is not None and not request.stream:
        raise refused("stream_options", "only with stream: true")
    if request.tool_choice is not None and not request.tools:
        raise refused("tool_choice", "only with tools")
    if request.parallel_tool_calls is not None and not request.tools:
        raise refused("parallel_tool_calls", "only with tools")
    tools = request.tools or []
    names = [tool.function.name for tool in tools]
    if len(set(names)) != len(names):
        raise refused("tools", "two have the same name")
    shown = [_definition(tool.function, f"tools[{place}].function.parameters") for place, tool in enumerate(tools)]
    return [] if request.tool_choice == "none" else shown


def _definition(function: FunctionDefinition, loc: str) -> dict[str, Any]:
    schema = {**_ANY_OBJECT, **(function.parameters or {})}
    if schema["type"] != "object" or not isinstance(schema["properties"], dict):
        raise refused(loc, "it must be the JSON Schema of an object")
    try:
        well_formed(schema, "it")
    except ConfigError:
        raise refused(loc, "it is no JSON Schema, or refers to something outside itself") from None
    told = {"name": function.name, "description": function.description or "", "parameters": schema}
    return {"type": "function", "function": told}


def _messages(request: CompletionRequest, form: ToolFormat) -> list[dict[str, str]]:
    """Role and text of each message; calls in earlier replies are written as the model would have written them."""
    messages: list[dict[str, str]] = []
    unanswered: set[str] = set()
    for place, message in enumerate(request.messages):
        text = _text(message.content)
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in unanswered:
                raise refused(f"messages[{place}].tool_call_id", "no call before it has this id, or it is answered")
            unanswered.remove(message.tool_call_id)
        elif unanswered:
            raise refused(f"messages[{place}]", "the calls before it are not all answered by messages of the role tool")
        if isinstance(message, AssistantMessage):
            calls = message.tool_calls or []
            unanswered = {call.id for call in calls}
            if len(unanswered) != len(calls):
                raise refused(f"messages[{place}].tool_calls", "two calls have the same id")
            if calls:
                text = "\n".join(part for part in (text, _written(calls, form, place)) if part)
            elif message.content is None:
                raise refused(f"messages[{place}].content", "a reply has content or tool_calls")
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": text})
    return messages


def _written(calls: Sequence[ToolCallMessage], form: ToolFormat, place: int) -> str:
    made = []
    for at, call in enumerate(calls):
        loc = f"messages[{place}].tool_calls[{at}].function.arguments"
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except (ValueError, RecursionError):
            raise refused(loc, "it is no JSON") from None
        if not isinstance(arguments, dict):
            raise refused(loc, "it must be a JSON object")
        made.append(ToolCall(call.function.name, arguments))
    try:
        return form.write(made)
    except (ValueError, RecursionError) as error:
        raise refused(f"messages[{place}].tool_calls", str(error)) from None


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def _rendered(
    messages: list[dict[str, str]], definitions: list[dict[str, Any]], runtime: AgentRuntime, config: AgentConfig
) -> tuple[int, ...]:
    codec = runtime.codec
    own = messages[0]["role"] == "system"
    system = [messages[0]["content"]] if own else [config.system_prompt] if config.system_prompt else []
    rest = messages[1:] if own else messages
    if definitions:
        system += [told for told in [codec.tool_format.instructions(definitions)] if told]
    opening = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    shown: Sequence[Mapping[str, str]] = [*opening, *rest]
    if not codec.shows_results:
        shown = results_as_user_words(shown)
    try:
        return tuple(codec.open(shown, tools=definitions if codec.tool_format.native else None).ids)
    except (DataError, ModelError) as error:
        # The template is code of the model's maker, and its words may repeat a message.
        why = (
            "the model's chat template cannot show these roles in this order, or a message holds a control token of it"
        )
        raise refused("messages", why) from error
