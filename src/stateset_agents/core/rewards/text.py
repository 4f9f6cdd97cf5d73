"""Plain measures of a reply's text, shared by the built-in rewards.

Invariant: all of them are linear in the text, need no model, and are 0 for a text without words. They look at words,
not at meaning: they tell an answer from a platitude, from an echo and from a list of keywords, and cannot tell a true
sentence from a false one. For other languages than English the measures are coarser, never an error: polite phrases
are known in English alone, and a heap of keywords is seen for what it is in the languages of `vocabulary.py`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

from ..facts import stem
from ..tool_calls import TOOL, replies_at, spoken
from .base import Turns
from .vocabulary import FUNCTION_WORDS, LISTED_LETTERS, SERVICE_PHRASES

_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+(?:['\u2019][^\W_]+)*")
_END = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", "\u061f", "\u0964")
_CLOSERS = "\"'\u201d\u2019)]*_ \n\t"

_LETTERS_A_WORD = 12
_LONGEST_WORD = 30
_LONGEST_REPLY = 200


@dataclass(frozen=True)
class Exchange:
    """One reply in its conversation.

    Attributes:
        asked: the messages that it answers.
        reply: the assistant turn.
        heard: what the user said before those messages.
        said: the assistant's earlier replies.
    """

    asked: str
    reply: str
    heard: str = ""
    said: tuple[str, ...] = ()


def exchanges(turns: Turns) -> list[Exchange]:
    """A conversation as what was said to the assistant and what it answered, one for each reply."""
    found: list[Exchange] = []
    asked: list[str] = []
    answers = set(replies_at(turns))
    for place, turn in enumerate(turns):
        if place in answers:
            heard = "\n".join(f"{part.heard}\n{part.asked}" for part in found[-1:])
            said = tuple(part.reply for part in found)
            found.append(Exchange("\n".join(asked), spoken(turn), heard, said))
            asked = []
        elif turn.role not in ("assistant", TOOL):
            asked.append(turn.content)
    return found


def words(text: str) -> list[str]:
    """The words and numbers of a text, case-folded."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'"))


def length(text: str) -> int:
    """Words of a text; one of more than 12 letters counts once for each 12, so that nothing hides in a long word."""
    return sum(1 + (len(word) - 1) // _LETTERS_A_WORD for word in words(text))


def content_stems(text: str) -> set[str]:
    """What a text is about: its words without function words, stemmed."""
    return {stem(word) for word in words(text) if word not in FUNCTION_WORDS}


def substance(reply: str, *known: str) -> set[str]:
    """The content that a reply adds: neither polite phrases nor words of the `known` texts."""
    return content_stems(reply).difference(SERVICE_PHRASES, *(content_stems(text) for text in known))


def pick_up(reply: str, asked: str) -> float:
    """Share of the question's content words that the reply takes up, full from half of them on; 1 if it has none."""
    topics = content_stems(asked) - SERVICE_PHRASES
    if not topics:
        return 1.0
    return min(1.0, 2 * len(topics & content_stems(reply)) / len(topics))


def fluency(text: str) -> float:
    """How much a text reads like sentences, in [0, 1].

    Falls with repeated word pairs, with endless "words", with signs that are neither letters nor digits, with length
    beyond 200 words, and in Latin letters from 8 words on with a share of function words below that of a telegram. A
    word with a letter that no language of the lists has counts as one of these: it is of a language without a list.
    """
    found = words(text)
    if not found:
        return 0.0
    count = len(found)
    pairs = set(pairwise(found))
    variety = min(1.0, len(pairs) / (count - 1) / 0.8) ** 2 if count > 3 else len(set(found)) / count
    glue = min(1.0, sum(map(_is_glue, found)) / count / 0.2) if count >= 8 and _in_latin_letters(found) else 1.0
    letters = sum(len(word) for word in found)
    endless = sum(len(word) for word in found if len(word) > _LONGEST_WORD)
    visible = sum(not character.isspace() for character in text)
    legible = min(1.0, letters / visible / 0.6)
    return variety * glue * (1 - endless / letters) * legible * min(1.0, _LONGEST_REPLY / count)


def _is_glue(word: str) -> bool:
    return word in FUNCTION_WORDS or any(_is_latin(letter) and letter not in LISTED_LETTERS for letter in word)


def _in_latin_letters(found: list[str]) -> bool:
    """Whether at least half of the words that begin with a letter begin with a Latin one."""
    letters = [word[0] for word in found if word[0].isalpha()]
    return 2 * sum(map(_is_latin, letters)) >= len(letters)


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"


def finished(text: str) -> bool:
    """Whether a text ends like a sentence and has at least the three words that make one."""
    return text.rstrip(_CLOSERS).endswith(_END) and len(words(text)) >= 3


def similarity(one: str, other: str) -> float:
    """Overlap of the word pairs of two texts, in [0, 1]; 1 for the same text."""
    first, second = (set(zip(["", *found], [*found, ""], strict=True)) for found in (words(one), words(other)))
    return len(first & second) / len(first | second)
