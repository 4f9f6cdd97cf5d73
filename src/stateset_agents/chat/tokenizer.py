"""What this room asks of a tokenizer: a Hugging Face fast tokenizer has it, and so may anything else.

Invariant: nothing here imports transformers. The codec calls these few methods and reads these few attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class ChatTokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that chat uses."""

    chat_template: Any
    eos_token_id: int | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Added tokens by id; each has `content`, `special`, `lstrip`, `rstrip` and `single_word`."""
        ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render messages through the chat template."""
        ...

    def encode(self, text: str, **kwargs: Any) -> Sequence[int]:
        """Text to ids; strings that equal an added token become that token.

        `verbose=False` keeps a warning off the terminal: what a model's context holds is checked where it matters.
        """
        ...

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> Any:
        """Ids to text."""
        ...


def tokenizer_name(tokenizer: ChatTokenizer) -> str:
    """How error messages call the tokenizer: the name it was loaded by, else its class."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
