"""Marks that tell a rendered conversation's own words from those that the template wrote.

Invariant: a mark is a private-use character that occurs nowhere in the conversation, so taking the marks out again
gives back exactly the text that was rendered, and each mark becomes a cut: an offset that the template did not write
across.

Two kinds of places are marked. After the first character of a control string in a message, so that neither the template
nor the tokenizer takes it for one. And at both ends of a content, inside its white space (which templates strip), so
that no control string can be put together from pieces of two contents, or of a content and the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .control import ControlTokens
from .template import strings_in

_FIRST_PRIVATE = 0x100000
_TEXT_FIELDS = frozenset({"content", "text", "reasoning_content", "reasoning", "thinking"})
_WORDS_OF_THE_FORMAT = frozenset({"role", "type"})


class Marks:
    """Two private-use characters that do not occur in `values`: one marks, one stands in for a reply.

    Args:
        values: messages, tool definitions, strings: everything that will be rendered.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        used = set().union(*(text for value in values for text in strings_in(value)))
        free = (chr(code) for code in range(_FIRST_PRIVATE, 0x110000) if chr(code) not in used)
        self._mark = next(free)
        self.reply = next(free)

    def put_into(self, value: Any, controls: ControlTokens, *, ends: bool) -> Any:
        """A copy of a message or tool definition with marks in it.

        Args:
            value: mapping, list, string, or anything else, which is left alone.
            controls: what to break.
            ends: mark the ends of text fields too.
        """
        return self._walk(value, lambda text, field: self._marked(text, controls, ends and field in _TEXT_FIELDS))

    def take_out(self, marked: str) -> tuple[str, tuple[int, ...]]:
        """The text without its marks, and where they were."""
        pieces = marked.split(self._mark)
        cuts = []
        offset = 0
        for piece in pieces[:-1]:
            offset += len(piece)
            cuts.append(offset)
        return "".join(pieces), tuple(cuts)

    def _walk(self, value: Any, change: Callable[[str, str], str], field: str = "") -> Any:
        if isinstance(value, str):
            return change(value, field)
        if isinstance(value, Mapping):
            return {
                change(key, ""): item if key in _WORDS_OF_THE_FORMAT else self._walk(item, change, key)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._walk(item, change, field) for item in value]
        return value

    def _marked(self, text: str, controls: ControlTokens, ends: bool) -> str:
        places = set()
        for start, end, _ in controls.find(text):
            places |= {start + 1} if end - start > 1 else {start, end}
        if ends and text.strip():
            places |= {len(text) - len(text.lstrip()), len(text.rstrip())}
        pieces = []
        done = 0
        for place in sorted(places):
            pieces.append(text[done:place])
            done = place
        return self._mark.join((*pieces, text[done:]))
