"""Messages to token ids and back, so that a conversation of many turns stays one row of tokens.

Invariant: **ids are the truth.** A row begins with the rendered prompt; each reply enters it as the very ids that were
sampled, and each later message as the tokens that the template puts after that reply. `extend` never changes, drops or
re-tokenises what the row already has. Where the template would (it drops the reasoning of earlier turns, or the
conversation was edited), `extend` says None and the caller opens another row.

The template's words and the messages' words are told apart by rendering twice, once with marks (`marks.py`), and
demanding that both renderings are the same text. A message can therefore never become a control token, whatever it
says, while an ordinary conversation has the ids that `apply_chat_template` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..core.errors import DataError, ModelError
from .control import ControlTokens
from .marks import Marks
from .template import ChatTemplate, Message, checked, strings_in
from .tokenizer import ChatTokenizer, tokenizer_name
from .tool_format import ToolFormat, format_of_template


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as the model will read it.

    Attributes:
        ids: every token, from the first of the prompt to the last of the generation prompt.
        text: what the template makes of `messages`; the ids of sampled replies may spell it in another way.
        messages: the conversation that it shows.
        added_ids: the tokens that the newest messages added: all of `ids` for an opened rendering, what follows the
            reply for an extended one.
        tools: tool definitions that the template was given.
        generation_prompt: whether it ends where a reply begins.
    """

    ids: tuple[int, ...]
    text: str = field(repr=False)
    messages: tuple[dict[str, Any], ...] = field(repr=False)
    added_ids: tuple[int, ...] = field(repr=False)
    tools: tuple[Any, ...] | None = field(default=None, repr=False)
    generation_prompt: bool = True

    def __len__(self) -> int:
        return len(self.ids)


class ChatCodec:
    """Renders conversations for one tokenizer, and reads replies.

    Attributes:
        stop_ids: tokens that end a reply, ascending: the one that the template ends a final assistant message with,
            the tokenizer's EOS, and the model's own.
        end_id: the first of these: with it a model says that its turn is over.
        end_of_turn: text of the control token that the template puts after an earlier assistant message, if any.
        reply_header: ids that the template puts between the generation prompt and a reply (gpt-oss: the final
            channel), which the model samples itself; usually none.
        opens_thought: whether the generation prompt ends in `<think>`, so that a reply begins inside a thought.

    Args:
        tokenizer: a Hugging Face fast tokenizer with a chat template, or anything that behaves like one.
        model_stop_ids: the EOS ids of the model's generation config.

    Raises:
        ModelError: the tokenizer has no chat template, or the template refuses even a greeting.
    """

    def __init__(self, tokenizer: ChatTokenizer, *, model_stop_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._controls = ControlTokens(tokenizer)
        greeting = {"role": "user", "content": "Hi"}
        marks = Marks(greeting)
        reply = {"role": "assistant", "content": marks.reply}
        before, _, after = self._template.render([greeting, reply, greeting]).partition(marks.reply)
        final = self._template.render([greeting, reply], add_generation_prompt=False).partition(marks.reply)[2]
        at_the_end = self._leading_control(final)
        # A template that shows no earlier replies at all is taken to end them as it ends the last one.
        in_history = self._leading_control(after) if after else at_the_end
        # What follows a reply in history only is the header of the next message (GLM), not the end of the reply.
        self.end_of_turn = self._controls.text_of(in_history) if at_the_end is not None else None
        # gpt-oss ends a message with <|end|> and the turn with <|return|>: only the latter may stop a reply.
        stop = in_history if at_the_end is None else at_the_end
        stops = {*model_stop_ids, tokenizer.eos_token_id, stop}
        self.stop_ids: tuple[int, ...] = tuple(sorted(stop for stop in stops if stop is not None))
        ends = (stop, tokenizer.eos_token_id, *self.stop_ids)
        self.end_id: int | None = next((end for end in ends if end is not None), None)
        prompt = self._template.render([greeting])
        header = before.removeprefix(prompt) if before.startswith(prompt) else ""
        has_header = self._leading_control(header) in self._controls.special_ids
        self.opens_thought = prompt.rstrip().endswith("<think>")
        self.reply_header: tuple[int, ...] = self._controls.encode(header, after="") if has_header else ()

    @cached_property
    def tool_format(self) -> ToolFormat:
        """The form of tool calls that the template teaches."""
        return format_of_template(self._template.source, renders_tools=self.shows_tools)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template tells the model which tools there are."""
        return self._template.shows_tools()

    @cached_property
    def shows_results(self) -> bool:
        """Whether the template has a place for messages with the role "tool"."""
        return self._template.shows_results()

    def open(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None, add_generation_prompt: bool = True
    ) -> Rendering:
        """Render a whole conversation.

        Args:
            messages: `{"role", "content"}` mappings, with whatever else the template understands.
            tools: tool definitions for templates that show them.
            add_generation_prompt: end where the assistant's reply begins.

        Raises:
            DataError: a message is malformed, or holds a control string in a place from which the template does not
                render it in one piece.
            ModelError: the template refuses the conversation.
        """
        conversation = checked(messages)
        if not conversation:
            raise DataError("there is no message to render: a conversation has at least one")
        definitions = tuple(tools) if tools else None
        marks = Marks((conversation, definitions))
        text, cuts = self._take_apart(conversation, definitions, marks, 0, add_generation_prompt)
        ids = self._controls.encode(text, cuts)
        return Rendering(ids, text, conversation, ids, definitions, add_generation_prompt)

    def extend(
        self,
        rendering: Rendering,
        *,
        reply_ids: Sequence[int],
        reply_text: str,
        new_messages: Sequence[Message],
        closed: bool,
    ) -> Rendering | None:
        """Continue a row with a sampled reply and the messages that follow it.

        Args:
            rendering: what the reply was sampled from.
            reply_ids: the sampled ids; with `closed`, the last one is the token that ended the reply, and it stands
                for the template's end-of-turn token.
            reply_text: the reply as it stands in the conversation, normally `parse(reply_ids)`.
            new_messages: user and tool messages that follow.
            closed: whether the model ended its reply. If not (it was cut by length), the end-of-turn token is added.

        Returns:
            A rendering whose ids are `rendering.ids`, `reply_ids` and `added_ids`, in this order; or None if the
            conversation, as the template renders it, does not begin with what the row holds.

        Raises:
            ValueError: `rendering` has no generation prompt, or a closed reply has no ids.
            DataError, ModelError: as in `open`.
        """
        if not rendering.generation_prompt:
            raise ValueError("this rendering was opened without a generation prompt: no reply can follow it")
        if closed and not reply_ids:
            raise ValueError("a closed reply has at least the id that closed it")
        old = rendering.messages
        new = checked(new_messages, first=len(old) + 1)
        conversation = (*old, *checked([{"role": "assistant", "content": reply_text}], first=len(old)), *new)
        text = self._template.render(conversation, tools=rendering.tools)
        if not text.startswith(rendering.text):
            return None
        marks = Marks((conversation, rendering.tools))
        stand_in = (*old, {"role": "assistant", "content": marks.reply}, *new)
        apart, cuts = self._take_apart(stand_in, rendering.tools, marks, len(old) + 1)
        reply_end = apart.find(marks.reply) + 1
        suffix = apart[reply_end:]
        rest = text[len(rendering.text) :]
        if not rest.endswith(suffix):
            return None
        body = reply_ids[:-1] if closed else reply_ids
        if not self._same_words(rest[: len(rest) - len(suffix)], self._plain(body)):
            return None
        suffix_cuts = tuple(cut - reply_end for cut in cuts if cut >= reply_end)
        added = self._encode_suffix(suffix, suffix_cuts, reply_ids[-1] if closed else None)
        return Rendering((*rendering.ids, *reply_ids, *added), text, conversation, added, rendering.tools)

    def parse(self, ids: Sequence[int]) -> str:
        """The text of a reply, without the token that ended it and without special tokens.

        Text in tokens that were added but are no special ones (`<think>`, `<tool_call>`) stays, for those who parse it.
        The text begins after the last `reply_header`, if the reply has one.
        """
        body = list(ids[:-1] if ids and ids[-1] in self.stop_ids else ids)
        header = list(self.reply_header)
        for start in range(len(body) - len(header), -1, -1) if header else ():
            if body[start : start + len(header)] == header:
                body = body[start + len(header) :]
                break
        return self._plain(body)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that was written rather than sampled: scripted engines and `probe` need them.

        Control strings in it become control tokens, as if a model had sampled them. Never for messages.
        """
        return tuple(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def record_reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that is to be learned from its text: what a model samples that says it and ends its turn.

        The string of a special token in it stays plain words. An added token that is no special one (`<think>`) is that
        token, as `parse` leaves it in the text of a reply.

        Raises:
            DataError: the tokenizer has no plain form for a special token's string.
            ModelError: nothing is known that would end a turn.
        """
        if self.end_id is None:
            raise ModelError(
                f"the tokenizer of {tokenizer_name(self._tokenizer)!r} has no token that ends a turn, so that a "
                "recorded reply cannot be told from the beginning of a longer one"
            )
        return (*self.reply_header, *self._controls.encode_words(text), self.end_id)

    def _plain(self, ids: Sequence[int]) -> str:
        visible = [token_id for token_id in ids if token_id not in self._controls.special_ids]
        return str(self._tokenizer.decode(visible, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _same_words(self, shown: str, sampled: str) -> bool:
        """Equal up to white space and special tokens: templates trim a content, and what they trim is in the ids."""
        return self._words(shown) == self._words(sampled)

    def _words(self, text: str) -> str:
        return "".join(self._controls.without_specials(text).split())

    def _leading_control(self, text: str, cuts: tuple[int, ...] = ()) -> int | None:
        """Id of the control token that `text` begins with, white space aside, if the template wrote it."""
        first = next(iter(self._controls.own(text, cuts)), None)
        return first.token_id if first and not text[: first.start].strip() else None

    def _encode_suffix(self, suffix: str, cuts: tuple[int, ...], closing_id: int | None) -> tuple[int, ...]:
        """Ids of what follows a reply; the sampled token that closed it stands for the one that the template writes."""
        leading = self._leading_control(suffix, cuts)
        text = self._controls.text_of(leading)
        if closing_id is None or text is None or (text != self.end_of_turn and leading != closing_id):
            return self._controls.encode(suffix, cuts, after="")
        end = suffix.index(text) + len(text)
        return self._controls.encode(suffix[end:], [cut - end for cut in cuts if cut >= end], after=text)

    def _take_apart(
        self,
        messages: Sequence[Message],
        tools: tuple[Any, ...] | None,
        marks: Marks,
        first: int,
        add_generation_prompt: bool = True,
    ) -> tuple[str, tuple[int, ...]]:
        """The rendered text and its cuts. Messages before `first` are in the row already and need none."""

        def render(*, ends: bool, roles_left_alone: tuple[str, ...] = ()) -> tuple[str, tuple[int, ...]]:
            marked = [
                message
                if index < first or message["role"] in roles_left_alone
                else marks.put_into(message, self._controls, ends=ends)
                for index, message in enumerate(messages)
            ]
            definitions = marks.put_into(tools, self._controls, ends=False)
            return marks.take_out(
                self._template.render(marked, tools=definitions, add_generation_prompt=add_generation_prompt)
            )

        plain = self._template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)
        exact = render(ends=True)
        if exact[0] == plain:
            return exact
        disarmed = render(ends=False)
        if disarmed[0] == plain:
            return disarmed
        # The template reacts to control strings in replies (it drops or moves <think> blocks). If it lets none of
        # them through, its own rendering stands; else it is shown a conversation in which they are plain words.
        through = render(ends=False, roles_left_alone=("assistant",))
        if through[0] == plain:
            own = [found.token_id for found in self._controls.own(*through)]
            return through if own == [found.token_id for found in self._controls.own(*disarmed)] else disarmed
        raise DataError(self._inseparable(messages[first:], tools))

    def _inseparable(self, messages: Sequence[Message], tools: tuple[Any, ...] | None) -> str:
        strings = (text for text in strings_in([*messages, tools]))
        found = next((text[at.start : at.end] for text in strings for at in self._controls.find(text)), None)
        return (
            f"a message holds {found!r}, a control token of {tokenizer_name(self._tokenizer)!r}, and the model's chat "
            "template does not render messages in one piece, so that text cannot be kept apart from the template's own "
            "control tokens; take it out of the message, or use a template that pastes contents as they are"
        )
