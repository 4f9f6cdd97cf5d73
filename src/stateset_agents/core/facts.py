"""Whether a text states a fact: the checkable half of every shipped reward.

Invariant: a fact is stated if and only if its tokens stand in the text side by side and in order. Both sides are cut
into tokens in the same way, so only spelling is forgiven, never content: letter case, Unicode forms, articles and
fillers ("$49 a month" is "$49 per month"), number formats ("1,000.00" is "1000", "two" is "2", "3:00 pm" is "3 pm"),
where the currency stands ("49 dollars" is "$49") and plural endings ("2-year" is "2 years"). Digits are exact: "$49" is
neither in "$490" nor in "149", nor in "$49.50", and "5 days" is not in "3-5 days". Time is linear in the text.

What it cannot see: meaning. "It is not $49", "is it $49?" and "$49 or $59" all state "$49", "a week" does not state
"7 days" (list both as accepted alternatives), and irony passes as fact. In scripts written without spaces, Chinese,
Japanese and Thai are matched character by character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .tool_calls import replies, spoken

Fact = str | Sequence[str]
"""One accepted wording, or several of which any will do."""


class Message(Protocol):
    """What is read of a turn."""

    role: str
    content: str


_NO_SPACE_SCRIPTS = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f"
_TOKEN = re.compile(
    rf"""
    (?P<number>
        (?:(?<![\w.])-)?                        # a minus sign, but not the dash of "3-5"
        (?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)    # 1,000,000 or 1000000
        (?:[.:,/-]\d+)*                         # decimals, times, dates, versions, phone numbers, ranges
        (?:(?:st|nd|rd|th)\b)?
    )
    | (?P<currency>[$€£¥₹%] | \b(?:usd|eur|gbp|jpy|inr)(?=\d))
    | [{_NO_SPACE_SCRIPTS}]
    | [^\W\d_{_NO_SPACE_SCRIPTS}]+ (?:\d+ [^\W_]*)?    # a word, or a model name like "hx49"
    """,
    re.VERBOSE,
)
_FILLERS = frozenset("a an the per of is are was were be it its at on in for from each every s".split())
_CURRENCIES = {
    "dollar": "$", "usd": "$", "buck": "$", "euro": "€", "eur": "€", "pound": "£", "gbp": "£",
    "yen": "¥", "jpy": "¥", "rupee": "₹", "inr": "₹", "percent": "%",
}  # fmt: skip
_SPELLINGS = {
    "monthly": "month", "yearly": "year", "annually": "year", "weekly": "week", "daily": "day", "nightly": "night",
    "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "color": "colour", "gray": "grey",
    "kilogram": "kg", "kilo": "kg", "gram": "g", "gigabyte": "gb", "megabyte": "mb",
}  # fmt: skip
_ONES = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_MONTHS = frozenset(
    "january february march april may june july august september october november december".split()
)  # fmt: skip
_GROUPED_BY_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s?m\b")
_CHARACTERS = str.maketrans(
    {"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2212": "-", "'": None, "\u2019": None, "`": None}
)
_GROUPED_BY_COMMA = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d\d")
_DECIMAL = re.compile(r"-?\d+\.\d+")
_FIGURE = re.compile(r"-?\d")
_PARTS = re.compile(r"[-/:,]|(?:st|nd|rd|th)$")


def states_fact(text: str, fact: Fact) -> bool:
    """Whether a text states a fact.

    Args:
        text: what was said.
        fact: the wording, or a list of accepted wordings.

    Returns:
        True if any wording stands in the text; False for a wording without a single letter, digit or currency sign.
    """
    return bool(stated_topics([_Said(text)], {"": fact}))


def stated_topics(turns: Iterable[Message], facts: Mapping[str, Fact]) -> dict[str, list[int]]:
    """Which facts the assistant states, and where.

    Args:
        turns: the conversation; only the turns with role "assistant" are read.
        facts: topic to fact.

    Returns:
        For each topic that is stated, the indices of the assistant turns (0 is the first one) that state it.
    """
    wordings = {topic: [_joined(wording) for wording in accepted_wordings(fact)] for topic, fact in facts.items()}
    stated: dict[str, list[int]] = {}
    for index, text in enumerate(assistant_texts(turns)):
        said = _joined(text)
        for topic, accepted in wordings.items():
            if any(wording.strip() and wording in said for wording in accepted):
                stated.setdefault(topic, []).append(index)
    return stated


def provided_topics(
    turns: Iterable[Message], facts: Mapping[str, Fact] | None, topics: Iterable[str]
) -> dict[str, bool]:
    """Whether the assistant provided each topic.

    A topic with a fact is provided when an assistant turn states the fact. A topic without one is a keyword check
    (each word of its name, "pricing" counting as "price", occurs in one assistant turn), which is easy to fool.

    Args:
        turns: the conversation; only assistant turns are read.
        facts: topic to fact, possibly empty or None.
        topics: the topics to look for, as in `success_criteria.information_provided`.
    """
    facts = facts or {}
    turns = list(turns)
    stated = stated_topics(turns, facts)
    spoken = [{stem(word) for word in fact_tokens(text)} for text in assistant_texts(turns)]
    provided = {}
    for topic in topics:
        keywords = {stem(word) for word in fact_tokens(topic.replace("_", " "))}
        by_keyword = bool(keywords) and any(keywords <= words for words in spoken)
        provided[topic] = topic in stated if topic in facts else by_keyword
    return provided


def unmatchable_facts(facts: Mapping[str, Fact]) -> list[str]:
    """The topics whose fact has a wording that no text can state, because nothing in it is a word or a number."""
    return [
        topic
        for topic, fact in facts.items()
        if not accepted_wordings(fact) or not all(_joined(wording).strip() for wording in accepted_wordings(fact))
    ]


def accepted_wordings(fact: Fact) -> tuple[str, ...]:
    """A fact as the tuple of its accepted wordings."""
    return (fact,) if isinstance(fact, str) else tuple(fact)


def implies(stated: Fact, other: Fact) -> bool:
    """Whether stating any wording of `stated` also states `other` ("$49 a month" implies "$49")."""
    return all(states_fact(wording, other) for wording in accepted_wordings(stated))


def assistant_texts(turns: Iterable[Message]) -> list[str]:
    """The contents of the assistant's replies, in order. What it said to a tool, it did not say to the user."""
    return [spoken(turn) for turn in replies(turns)]


def fact_tokens(text: str) -> tuple[str, ...]:
    """Cut a text into the tokens that are compared: spelling is gone, content and order are kept."""
    text = _normal(text)
    tokens: list[str] = []
    after_tens = -1
    for match in _TOKEN.finditer(text):
        token = match.group()
        currency = token if match["currency"] in set("$€£¥₹%") else _CURRENCIES.get(_singular(token))
        if match["number"]:
            _append_number(tokens, _number(token))
        elif currency:
            _append_currency(tokens, currency, before_amount=text[match.end() : match.end() + 1].isdecimal())
        elif token in _ONES and after_tens == len(tokens) and 0 < _ONES[token] < 10:
            tokens[-1] = str(int(tokens[-1]) + _ONES[token])
            after_tens = -1
        elif token in _ONES:
            _append_number(tokens, str(_ONES[token]))
        elif token in _TENS:
            _append_number(tokens, str(_TENS[token]))
            after_tens = len(tokens)
        else:
            tokens.append(_SPELLINGS.get(token, _SPELLINGS.get(_singular(token), _singular(token))))
    return tuple(token for token in tokens if token not in _FILLERS)


def figures(text: str) -> set[str]:
    """The numbers in a text, in digits or words; a range, date or time gives each of its parts.

    The words "one" and "zero" are left out: mostly they are no numbers.
    """
    found = {part for token in fact_tokens(text) if _FIGURE.match(token) for part in _PARTS.split(token) if part}
    in_digits = {_number(match.group()) for match in _TOKEN.finditer(_normal(text)) if match["number"]}
    return found - ({"0", "1"} - in_digits)


class _Said:
    """A text on its own, as an assistant's turn."""

    role = "assistant"

    def __init__(self, content: str) -> None:
        self.content = content


def _normal(text: str) -> str:
    text = unicodedata.normalize("NFKC", _GROUPED_BY_SPACE.sub("", text)).casefold()
    return unicodedata.normalize("NFKC", _HALF_OF_DAY.sub(r"\1m", text.translate(_CHARACTERS)))


def _joined(text: str) -> str:
    """Tokens between single spaces, so that a substring is a run of whole tokens (fillers alone are kept)."""
    tokens = fact_tokens(text)
    return f" {' '.join(tokens)} " if tokens else ""


def _number(token: str) -> str:
    """One spelling for each number; anything with more than one separator (dates, versions, ranges) stays whole."""
    if not token.isascii():
        token = "".join(str(unicodedata.decimal(character, character)) for character in token)
    if _GROUPED_BY_COMMA.fullmatch(token):
        token = token.replace(",", "")
    elif _DECIMAL_COMMA.fullmatch(token):
        token = token.replace(",", ".")
    if _DECIMAL.fullmatch(token):
        return token.rstrip("0").removesuffix(".")
    return token.removesuffix(":00") if token.count(":") == 1 else token


def _append_number(tokens: list[str], number: str) -> None:
    """Append a number; "3 to 5" becomes the range "3-5", "$3 to $5" becomes "$3-5", and "March 3rd" is "March 3"."""
    if tokens and tokens[-1] in _MONTHS:
        number = number.rstrip("stndrh")
    if len(tokens) >= 4 and tokens[-2] == "to" and tokens[-4] == tokens[-1] and tokens[-3].isdecimal():
        tokens[-3:] = [f"{tokens[-3]}-{number}"]
    elif len(tokens) >= 2 and tokens[-1] == "to" and tokens[-2].isdecimal() and number.isdecimal():
        tokens[-2:] = [f"{tokens[-2]}-{number}"]
    else:
        tokens.append(number)


def _append_currency(tokens: list[str], sign: str, *, before_amount: bool) -> None:
    """Put the sign before its amount, whether it was written before it, after it or both."""
    if before_amount or not tokens or not tokens[-1][-1].isdecimal():
        tokens.append(sign)
    elif len(tokens) < 2 or tokens[-2] != sign:
        tokens.insert(-1, sign)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def stem(word: str) -> str:
    """A word without its English ending, roughly: "pricing", "priced" and "prices" are one."""
    word = _singular(word)
    for ending in ("ing", "ed", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
