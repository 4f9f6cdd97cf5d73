"""Exact match: the last reply is the right answer and nothing else."""

from __future__ import annotations

import re
import unicodedata

from .against_answer import AnswerReward

_MARKUP = re.compile(r"[*_`\u201c\u201d\"]+")
_CHARACTERS = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2212": "-"})


class ExactMatchReward(AnswerReward):
    """1 if the last reply, or what follows its last `marker`, is an accepted answer word for word; otherwise 0.

    Both sides are compared without letter case, Unicode forms (NFKC), double quotes and the Markdown signs `*`, `_` and
    "`", with single spaces, and without spaces and `.`, `!`, `,`, `;`, `:` at the ends. Nothing else is forgiven: "The
    answer is Paris" is not "Paris", "1,000" is not "1000". For these there are `marker`, lists of accepted answers,
    `CorrectnessReward` and `NumericMatchReward`.

    It cannot see how an answer was found: a guess among two counts half of the time. With `marker`, whatever stands
    before it is free, be it nonsense. Where a question has few possible answers, always giving the most frequent one
    earns its share.
    """

    def agrees(self, said: str, answer: str) -> bool:
        """Whether both are the same after normalisation."""
        return normalised(said) == normalised(answer)

    def is_answer(self, text: str) -> bool:
        """Whether anything is left of it to compare with."""
        return bool(normalised(text))


def normalised(text: str) -> str:
    """The form in which answers are compared; see `ExactMatchReward`."""
    plain = unicodedata.normalize("NFKC", _MARKUP.sub("", text)).translate(_CHARACTERS).casefold()
    return " ".join(plain.split()).strip(" .!,;:")
