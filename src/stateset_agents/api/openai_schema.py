"""The requests and responses of `/v1`, as OpenAI's clients write and read them.

Invariant: a field is here because it has an effect, or because OpenAI's API says that it is only a hint. One that is
known and cannot be had here has one value that means "off", so that the refusal of another names it; one that is
unknown is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class FunctionCall(_Strict):
    """The function that a call names."""

    name: str = Field(min_length=1, max_length=64)
    arguments: str = Field(description="A JSON object, as text.")


class ToolCallMessage(_Strict):
    """A call in an earlier reply."""

    id: str = Field(min_length=1, max_length=64)
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(_Strict):
    """What the model is told before the conversation; it takes the place of the agent's own system prompt."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(_Strict):
    """What the user says."""

    role: Literal["user"]
    content: Content


class AssistantMessage(_Strict):
    """An earlier reply. The fields that clients send back from a response are taken while they are empty."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCallMessage] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)


class ToolMessage(_Strict):
    """What a tool said."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str = Field(min_length=1, max_length=64)


AnyMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(_Strict):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON Schema of an object.")
    strict: Literal[False] | None = None


class ToolDefinition(_Strict):
    """A tool: the only kind there is is a function."""

    type: Literal["function"]
    function: FunctionDefinition


class StreamOptions(_Strict):
    """What a stream says beside the reply."""

    include_usage: Flag = False
    include_obfuscation: Literal[False] | None = None


class TextFormat(_Strict):
    """The only form of replies."""

    type: Literal["text"]


class CompletionRequest(_Strict):
    """A chat completion request."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[AnyMessage] = Field(min_length=1)
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    n: Annotated[Whole, Field(ge=1, le=8)] | None = None
    seed: Whole | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    logprobs: Flag | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=64)] | None = None
    tool_choice: Literal["auto", "none"] | None = None

    top_logprobs: Literal[0] | None = Field(
        default=None, description="Only the sampled token's log-probability is known."
    )
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: dict[str, Any] | None = Field(default=None, max_length=0)
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, min_length=1, max_length=1)
    parallel_tool_calls: Literal[True] | None = None
    store: Literal[False] | None = None

    user: str | None = Field(default=None, description="A hint: it has no effect.")
    safety_identifier: str | None = Field(default=None, description="A hint: it has no effect.")
    prompt_cache_key: str | None = Field(default=None, description="A hint: it has no effect.")
    metadata: dict[str, str] | None = Field(default=None, description="For stored completions: it has no effect.")
    service_tier: Literal["auto", "default"] | None = None


class Usage(BaseModel):
    """Tokens that a request took. `completion_tokens` counts every sampled one, that which ended a reply too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(BaseModel):
    """A sampled token with its natural-log probability at the request's temperature, before top_p cuts."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Any] = Field(max_length=0)


class ChoiceLogprobs(BaseModel):
    """The tokens of a reply."""

    content: list[TokenLogprob]
    refusal: None = None


class ReplyMessage(BaseModel):
    """What the model said, or the calls that it asks the client to make."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallMessage] | None = None


FinishReason = Literal["stop", "length", "tool_calls"]


class Choice(BaseModel):
    """One reply."""

    index: int
    message: ReplyMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class Completion(BaseModel):
    """The response that is not a stream."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "stateset_agents"


class ModelList(BaseModel):
    """All models that are served: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class OpenAIError(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIEnvelope(BaseModel):
    """The body of every error of `/v1`."""

    error: OpenAIError
