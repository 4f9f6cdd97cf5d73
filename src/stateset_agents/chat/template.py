"""The model's own chat template: messages in, text out, refusals explained.

Invariant: the template always sees the whole conversation, never a piece of it (a piece may gain a default system
message, or lose its place in the alternation of roles). What a template refuses becomes a `ModelError` with the
template's own words; what no template could render becomes a `DataError` that names the message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.errors import DataError, ModelError
from .tokenizer import ChatTokenizer, tokenizer_name

Message = Mapping[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")


_PROBE: Message = {"role": "user", "content": "Hi"}


class ChatTemplate:
    """Renders conversations through `tokenizer.apply_chat_template`.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"the tokenizer of {tokenizer_name(tokenizer)!r} has no chat template, so a conversation cannot be "
                "turned into tokens; use the instruct or chat version of the model, or put the model's "
                "chat_template.jinja into its folder"
            )
        self._tokenizer = tokenizer

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None, add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation.

        Raises:
            ModelError: the template refuses the conversation or fails on it.
        """
        try:
            return self._apply(messages, tools, add_generation_prompt)
        except Exception as error:
            # A template is code that came with the model and raises what it likes: this is its boundary.
            roles = ", ".join(str(message["role"]) for message in messages)
            raise ModelError(
                f"the chat template of {tokenizer_name(self._tokenizer)!r} refuses a conversation with the roles "
                f"{roles}: {error}{self._hint(messages, tools, add_generation_prompt)}"
            ) from error

    @property
    def source(self) -> str:
        """The template itself, or all of them where the tokenizer has several."""
        template: Any = self._tokenizer.chat_template
        return template if isinstance(template, str) else "\n".join(map(str, template.values()))

    def shows_tools(self) -> bool:
        """Whether it tells the model which tools there are."""
        named = {"name": "probe_tool", "description": "", "parameters": {"type": "object", "properties": {}}}
        return self._shows("probe_tool", [_PROBE], [{"type": "function", "function": named}])

    def shows_results(self) -> bool:
        """Whether it has a place for what a tool said."""
        call = {"role": "assistant", "content": "probe_call"}
        return self._shows("probe_result", [_PROBE, call, {"role": "tool", "content": "probe_result"}], None)

    def _shows(self, text: str, messages: Sequence[Message], tools: Sequence[Any] | None) -> bool:
        try:
            return text in self._apply(messages, tools, True)
        except Exception:  # a template is code that came with the model; one that refuses shows nothing
            return False

    def _apply(self, messages: Sequence[Message], tools: Sequence[Any] | None, add_generation_prompt: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        return str(text)

    def _hint(self, messages: Sequence[Message], tools: Sequence[Any] | None, add_generation_prompt: bool) -> str:
        """What to change, found out by trying it."""
        attempts = [
            ("without the system message it is accepted: leave system_prompt out, or say it in the first user turn",
             [message for message in messages if message["role"] not in ("system", "developer")]),
            ("without the tool messages it is accepted: this template has no place for tool results",
             [message for message in messages if message["role"] != "tool"]),
        ]  # fmt: skip
        for hint, fewer in attempts:
            if not fewer or len(fewer) == len(messages):
                continue
            try:
                self._apply(fewer, tools, add_generation_prompt)
            except Exception:  # noqa: S112 - the conversation was refused already; a refused attempt is no hint
                continue
            return f" ({hint})"
        return ""


def checked(messages: Sequence[Message], *, first: int = 0) -> tuple[dict[str, Any], ...]:
    """Copies of the messages, each with a known role and encodable text.

    The role is checked because templates paste it between control characters (`<|` + role + `|>`).

    Args:
        messages: what to check.
        first: index of the first one in the conversation, for error messages.

    Raises:
        DataError: a message is no mapping, has an unknown role or no content, or holds text that is not valid Unicode.
    """
    copies = []
    for index, message in enumerate(messages, first):
        if not isinstance(message, Mapping):
            raise DataError(f'messages[{index}] must be a mapping such as {{"role": "user", "content": "Hi"}}, '
                            f"not {type(message).__name__}")  # fmt: skip
        role = message.get("role")
        if role not in ROLES:
            raise DataError(f"messages[{index}].role is {role!r}; allowed: {', '.join(ROLES)}")
        content = message.get("content")
        if not isinstance(content, str | list | tuple) and not (content is None and message.get("tool_calls")):
            raise DataError(f"messages[{index}].content must be text, not {type(content).__name__}")
        for text in strings_in(message):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise DataError(
                    f"messages[{index}] holds the lone surrogate {text[error.start]!a}, which is no character; "
                    "write the text as valid UTF-8"
                ) from error
        copies.append(dict(message))
    return tuple(copies)


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a message or tool definition, mapping keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_in(key)
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)
