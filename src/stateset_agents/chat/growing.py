"""The text of a reply that is under way.

Invariant: it is what `ChatCodec.parse` makes of the same ids, in time that does not grow with the reply. What was read
up to a whole character stays as it is: later tokens are decoded after a few of those before them, which decoders look
at (they drop a space that comes first), and add what they add there.
"""

from __future__ import annotations

from collections.abc import Sequence

from .codec import ChatCodec

_STEP = 32
"""Tokens after which what was read counts as settled; about twice as many are decoded at each call."""


class GrowingText:
    """Reads one reply.

    Args:
        codec: of its model.
    """

    def __init__(self, codec: ChatCodec) -> None:
        self._codec = codec
        self._settled = ""
        self._lead, self._known = 0, 0
        self._before = ""

    def of(self, ids: Sequence[int]) -> str:
        """The text of `ids`, which begin with those of the last call."""
        if self._codec.reply_header:  # the last header of several counts, wherever it comes
            return self._codec.parse(ids)
        window = self._codec.parse(ids[self._lead :])
        if not window.startswith(self._before):
            return self._codec.parse(ids)
        text = self._settled + window[len(self._before) :]
        whole = not text.endswith("\ufffd") and len(text) > len(self._settled)
        if len(ids) - self._known >= _STEP and whole:
            self._before = self._codec.parse(ids[self._known :])
            self._settled, self._lead, self._known = text, self._known, len(ids)
        return text
