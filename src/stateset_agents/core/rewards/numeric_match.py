"""Numeric match: the last reply ends in the right number.

Invariant: one number is judged. Where the judged words hold several different numbers the answer is wrong, so that
naming many earns nothing.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from .against_answer import AnswerReward
from .ground_truth import GroundTruth

_GROUPED_BY_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")
_MINUS = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2212": "-"})
_UNITS = {
    "%": "%", "percent": "%", "per cent": "%", "$": "$", "dollar": "$", "dollars": "$", "usd": "$", "€": "€",
    "euro": "€", "euros": "€", "eur": "€", "£": "£", "pound": "£", "pounds": "£", "gbp": "£", "¥": "¥", "yen": "¥",
    "jpy": "¥", "₹": "₹", "rupee": "₹", "rupees": "₹", "inr": "₹",
}  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NUMBER = re.compile(
    rf"""
    (?<![^\W_]) (?:(?P<sign>(?<![\w)%])[-+])(?=[$€£¥₹\d]))? (?P<before>[$€£¥₹])? (?P<inner>(?<=[$€£¥₹])[-+])? [ ]?
    (?P<digits>\d+(?:[.,:/-]\d+)*) (?P<power>e[-+]?\d{{1,3}}(?![^\W_]))?
    (?:[ ]?(?P<scale>{"|".join(_SCALES)})\b)?
    (?:[ ]?(?P<after>[%$€£¥₹]|(?:{"|".join(unit for unit in _UNITS if unit.isascii() and unit[0].isalpha())})\b))?
    """,
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DOTTED_THOUSANDS = re.compile(r"\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)")
_PLAIN = re.compile(r"\d+(?:[.,]\d+)?")
_FRACTION = re.compile(r"(\d+)/(\d+)")
_LONGEST = 100
_LONGEST_TEXT = 20_000
_STATEMENT = re.compile(r"\n|(?<=[.!?])\s")
_ITEM = re.compile(r"\s*\d{1,3}[.)]\s+(?=.*\d)")


@dataclass(frozen=True)
class Number:
    """A number in a text.

    Attributes:
        value: as written: 50 for "50%", 2000 for "2 thousand".
        unit: "%", a currency sign, or "".
    """

    value: Decimal
    unit: str = ""


class NumericMatchReward(AnswerReward):
    """1 if the number that the last reply ends in, or what follows its last `marker`, is the right one; otherwise 0.

    With `number: last` the judged words are the last sentence or line that has a number, from its last "=" on; with
    `only` they are the whole reply. They must hold one number: the same one twice is one, two different ones are wrong.
    Thousands separators (1,000; 1.000.000,5), decimal commas (3,14), fractions (1/2), powers (5e3), "2 million",
    percent and currencies are read. A sign that is missing in the reply is forgiven, a different one is not; "0.5" is
    "50%", and "50" is "50%" where the right answer has the sign.

    It cannot see how the number was found, nor whether it is about the question: "Your order has 49 items" is right
    where $49 is. Numbers in words ("seven") are not read, nor is more than the last 20,000 characters. Units other than
    percent and currency are not compared (49 kg is 49 g). A sentence that gives the right number next to another ("$49
    for 2 months") is wrong: use `marker`.

    Args:
        weight: see `RewardFunction`.
        ground_truth: as in `AnswerReward`, or a number for every scenario. An answer that is not one number cannot be
            compared with.
        ground_truth_file: as in `AnswerReward`.
        tolerance: the largest difference that is still right.
        relative_tolerance: the same as a share of the right number; the more generous of both counts.
        number: "last" or "only".
        marker: as in `AnswerReward`.
        name: see `RewardFunction`.

    Raises:
        ConfigError: as `AnswerReward`; a tolerance is negative or no number; number is unknown.
        DataError: as `AnswerReward`.
    """

    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    number: str = "last"

    def __init__(
        self,
        weight: float = 1.0,
        ground_truth: str | float | Mapping[str, GroundTruth] | None = None,
        ground_truth_file: str | Path | None = None,
        tolerance: float = 0.0,
        relative_tolerance: float = 0.0,
        number: Literal["last", "only"] = "last",
        marker: str | None = None,
        name: str = "",
    ) -> None:
        super().__init__(weight, _as_texts(ground_truth), ground_truth_file, marker, name)
        for key, value in {"tolerance": tolerance, "relative_tolerance": relative_tolerance}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"{key} is {value!r}; it must be a number, at least 0")
        if number not in ("last", "only"):
            raise ConfigError(f"number is {number!r}; it must be last or only")
        self.tolerance, self.relative_tolerance, self.number = tolerance, relative_tolerance, number

    def agrees(self, said: str, answer: str) -> bool:
        """Whether the one number of what was said is the answer's."""
        if self.number == "last":
            said = _last_statement(said[-_LONGEST_TEXT:])
        given = the_number(said) if len(said) <= _LONGEST_TEXT else None
        wanted = the_number(answer)
        if given is None or wanted is None or (given.unit and wanted.unit and given.unit != wanted.unit):
            return False
        targets = [wanted.value]
        if wanted.unit == "%" and not given.unit:
            targets.append(wanted.value / 100)
        value = given.value / 100 if given.unit == "%" and not wanted.unit else given.value
        return any(self._near(value, target) for target in targets)

    def is_answer(self, text: str) -> bool:
        """Whether it holds exactly one number."""
        return the_number(text) is not None

    def _near(self, value: Decimal, target: Decimal) -> bool:
        allowed = max(Decimal(str(self.tolerance)), Decimal(str(self.relative_tolerance)) * abs(target))
        return abs(value - target) <= allowed


def the_number(text: str) -> Number | None:
    """The number of a text; None if it has none, or different ones."""
    found = numbers(text)
    if len({number.value for number in found}) != 1 or len({number.unit for number in found if number.unit}) > 1:
        return None
    return next((number for number in found if number.unit), found[0])


def numbers(text: str) -> list[Number]:
    """All numbers of a text, in order; dates, times, versions and ranges give each of their parts."""
    plain = unicodedata.normalize("NFKC", _GROUPED_BY_SPACE.sub("", text)).translate(_MINUS).casefold()
    found: list[Number] = []
    for match in _NUMBER.finditer(plain):
        signs = {match["sign"], match["inner"]}
        factor = Decimal(_SCALES.get(match["scale"] or "", 1)) * (-1 if "-" in signs else 1)
        factor *= Decimal(f"1{match['power']}") if match["power"] else 1
        unit = _UNITS.get(match["before"] or "") or _UNITS.get(match["after"] or "", "")
        found += [Number(value * factor, unit) for value in _values(match["digits"])]
    return found


def _values(digits: str) -> list[Decimal]:
    """One value; of what is no single number, such as a date, each part; none of an endless row of digits."""
    if len(digits) > _LONGEST:
        return []
    fraction = _FRACTION.fullmatch(digits)
    if fraction and int(fraction[2]):
        return [Decimal(fraction[1]) / Decimal(fraction[2])]
    if _THOUSANDS.fullmatch(digits):
        digits = digits.replace(",", "")
    elif _DOTTED_THOUSANDS.fullmatch(digits):
        digits = digits.replace(".", "")
    if _PLAIN.fullmatch(digits):
        return [Decimal(digits.replace(",", "."))]
    return [Decimal(part) for part in re.split(r"[.,:/-]", digits)]


def _last_statement(text: str) -> str:
    """The last sentence or line that has a number, from its last "=" on if a number follows that."""
    parts = [_ITEM.sub("", part, count=1) for part in _STATEMENT.split(text)]
    last = next((part for part in reversed(parts) if numbers(part)), "")
    _, _, after = last.rpartition("=")
    return after if numbers(after) else last


def _as_texts(given: Any) -> Any:
    """Answers with numbers as texts; whatever else is no answer is left for `Answers` to refuse."""
    if isinstance(given, Mapping):
        return {scenario: _as_texts(answer) for scenario, answer in given.items()}
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return str(given) if number else given
