"""Control tokens: which strings the tokenizer would read as one, and encoding that decides it by origin, not by looks.

Invariant: after `encode(text, cuts)` the control ids are exactly those that the template itself wrote, in order, or a
`DataError` is raised. A control string with a cut inside did not come from the template: it is encoded as plain text.

How: an added token that stands in a text splits it before anything else is tokenised, so a separator token is put after
the first character of each foreign control string, the whole text is encoded in one call, and the separator ids
are taken out again. Texts without foreign control strings are encoded as they are, so their ids are the canonical ones.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..core.errors import DataError
from .tokenizer import ChatTokenizer


class ControlString(NamedTuple):
    """A control token's text, found at `[start, end)`."""

    start: int
    end: int
    token_id: int


class ControlTokens:
    """The added tokens of a tokenizer, special or not.

    Tokens of white space alone (some vocabularies add runs of newlines) are ordinary text, and so are single characters
    that were added without being special (some vocabularies add letters or emoji).

    Attributes:
        ids: ids of all control tokens.
        special_ids: those that the tokenizer marks special; they never belong to the text of a reply.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        added = {
            int(token_id): token
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.content and not token.content.isspace() and (token.special or len(token.content) > 1)
        }
        self._text_of = {token_id: str(token.content) for token_id, token in added.items()}
        self._id_of = {text: token_id for token_id, text in self._text_of.items()}
        self.ids = frozenset(added)
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        longest_first = sorted(added.values(), key=lambda token: len(token.content), reverse=True)
        self._any = re.compile("|".join(map(_pattern, longest_first)) or "(?!)")
        self._specials = re.compile("|".join(_pattern(token) for token in longest_first if token.special) or "(?!)")
        # The id for what the vocabulary lacks comes out of plain text, and says nothing unless it has a second job.
        unknown = getattr(tokenizer, "unk_token_id", None)
        jobs = (tokenizer.eos_token_id, getattr(tokenizer, "bos_token_id", None))
        self._counted = self.ids if unknown in jobs else self.ids - {unknown}
        self._separator = self._choose_separator(added)

    def _choose_separator(self, added: dict[int, Any]) -> str:
        """A control string that takes no notice of what stands beside it; "" if there is none."""
        indifferent = {
            token_id: str(token.content)
            for token_id, token in added.items()
            if token_id in self._counted and not (token.lstrip or token.rstrip or token.single_word)
        }
        eos = self._tokenizer.eos_token_id
        return indifferent[eos] if eos in indifferent else next(iter(indifferent.values()), "")

    def text_of(self, token_id: int | None) -> str | None:
        """The string of a control token, None for any other id."""
        return None if token_id is None else self._text_of.get(token_id)

    def find(self, text: str) -> Iterator[ControlString]:
        """Every control string in `text`, overlapping ones too, the longest at each place."""
        match = self._any.search(text)
        while match:
            yield ControlString(match.start(), match.end(), self._id_of[match.group()])
            match = self._any.search(text, match.start() + 1)

    def own(self, text: str, cuts: Sequence[int]) -> list[ControlString]:
        """The control strings without a cut inside: those that the template wrote. `cuts` ascend."""
        return [found for found, foreign in self._sorted_out(text, cuts) if not foreign]

    def without_specials(self, text: str) -> str:
        """`text` without the strings of special tokens."""
        return self._specials.sub("", text)

    def encode(self, text: str, cuts: Sequence[int] = (), *, after: str | None = None) -> tuple[int, ...]:
        """Token ids of `text`, in which only uncut control strings are control tokens.

        Args:
            text: what to encode.
            cuts: ascending offsets into `text` that the template did not write across.
            after: control string that precedes `text` in the row, or "" for text that follows sampled tokens. It gives
                the first token its context, and is not part of the result. None: `text` begins the row.

        Raises:
            DataError: the tokenizer would make a control token out of plain text even so.
        """
        pieces: list[str] = []
        expected: list[tuple[int, bool]] = []
        lead = None if after is None else after or self._separator
        if lead:
            pieces.append(lead)
            expected.append((self._id_of[lead], False))
        done = 0
        for found, foreign in self._sorted_out(text, cuts):
            if foreign and (found.end - found.start == 1 or not self._separator):
                continue  # cannot be split: whether it has a plain form shows in the ids
            if foreign:
                pieces += (text[done : found.start + 1], self._separator)
                expected.append((self._id_of[self._separator], False))
                done = found.start + 1
            elif found.token_id in self._counted:
                expected.append((found.token_id, True))
        pieces.append(text[done:])
        return self._filtered("".join(pieces), expected)

    def encode_words(self, text: str) -> tuple[int, ...]:
        """Token ids of a reply's text, in which no special token's string is that token.

        Raises:
            DataError: see `encode`.
        """
        cuts: set[int] = set()
        for start, end, token_id in self.find(text):
            if token_id in self.special_ids:
                cuts |= {start + 1} if end - start > 1 else {start, end}
        return self.encode(text, sorted(cuts), after="")

    def _sorted_out(self, text: str, cuts: Sequence[int]) -> Iterator[tuple[ControlString, bool]]:
        end_of_own = 0
        for found in self.find(text):
            if found.start < end_of_own:
                continue
            foreign = _is_cut(cuts, found)
            if not foreign:
                end_of_own = found.end
            yield found, foreign

    def _filtered(self, text: str, expected: list[tuple[int, bool]]) -> tuple[int, ...]:
        kept: list[int] = []
        met = 0
        for token_id in self._tokenizer.encode(text, add_special_tokens=False, verbose=False):
            if token_id not in self._counted:
                kept.append(token_id)
                continue
            if met == len(expected) or expected[met][0] != token_id:
                raise DataError(
                    f"a message holds text that the tokenizer turns into its control token {self.text_of(token_id)!r}; "
                    "there is no way to write that text plainly with this tokenizer, so take it out of the message"
                )
            if expected[met][1]:
                kept.append(token_id)
            met += 1
        if met != len(expected):
            wanted = self.text_of(expected[met][0])
            raise DataError(
                f"the chat template writes the control token {wanted!r}, but text next to it keeps the tokenizer from "
                "reading it; take out what surrounds it in the messages"
            )
        return tuple(kept)


def _is_cut(cuts: Sequence[int], found: ControlString) -> bool:
    """Whether a cut lies inside the string, or, where it has no inside, on both sides of it."""
    place = bisect_right(cuts, found.start)
    if place < len(cuts) and cuts[place] < found.end:
        return True
    return found.end - found.start == 1 and found.start in cuts and found.end in cuts


def _pattern(token: Any) -> str:
    text = re.escape(token.content)
    return rf"(?<!\w){text}(?!\w)" if token.single_word else text
