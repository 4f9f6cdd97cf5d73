"""What a chat template does to a conversation that goes on: found by trying, for logs and for tests.

Invariant: the report is about behaviour, never about a model's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import StatesetError
from .codec import ChatCodec
from .template import Message

Keeping = Literal["kept", "rewritten", "refused"]
SystemRole = Literal["taken", "taken, and one is added when none is given", "refused"]

_SYSTEM, _USER = "\ue000", "\ue001"


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """How one template treats what a row already has.

    "kept": the conversation stays one row. "rewritten": a new row begins. "refused": the template raises.

    Attributes:
        user_turns: when a user message follows a reply.
        tool_turns: when two tool messages follow a reply.
        thinking: when a user message follows a reply that holds a `<think>` block.
        system: what becomes of a system message.
        end_of_turn: the token that ends an earlier assistant message, None if that is no control token.
        stop_ids: token ids that end a reply.
    """

    user_turns: Keeping
    tool_turns: Keeping
    thinking: Keeping
    system: SystemRole
    end_of_turn: str | None
    stop_ids: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"chat template: user turns {self.user_turns}, tool turns {self.tool_turns}, thinking {self.thinking}, "
            f"system message {self.system}, end of turn {self.end_of_turn!r}, stop ids {list(self.stop_ids)}"
        )


def probe(codec: ChatCodec) -> TemplateReport:
    """Try the codec's template on short conversations."""
    user: Message = {"role": "user", "content": "And then?"}
    tool: Message = {"role": "tool", "content": "42"}
    return TemplateReport(
        user_turns=_after(codec, "A word.", [user]),
        tool_turns=_after(codec, "A word.", [tool, tool]),
        thinking=_after(codec, "<think>\nA thought.\n</think>\n\nA word.", [user]),
        system=_system(codec),
        end_of_turn=codec.end_of_turn,
        stop_ids=codec.stop_ids,
    )


def _after(codec: ChatCodec, reply: str, new_messages: list[Message]) -> Keeping:
    try:
        rendering = codec.open([{"role": "user", "content": "Hi"}])
        extended = codec.extend(
            rendering,
            reply_ids=(*codec.reply_header, *codec.encode_reply(reply)),
            reply_text=reply,
            new_messages=new_messages,
            closed=False,
        )
    except StatesetError:
        return "refused"
    return "rewritten" if extended is None else "kept"


def _system(codec: ChatCodec) -> SystemRole:
    user: Message = {"role": "user", "content": _USER}
    try:
        with_system = codec.open([{"role": "system", "content": _SYSTEM}, user]).text
    except StatesetError:
        return "refused"
    opening = with_system.partition(_SYSTEM)[0]
    before_user = codec.open([user]).text.partition(_USER)[0]
    added = before_user.startswith(opening) and before_user != opening
    return "taken, and one is added when none is given" if added else "taken"
