"""Charts as SVG text.

Invariant: pure functions of numbers and labels; every label is escaped, and colours are classes that the page's style
sheet names, so that no chart brings a style or a script of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
_LABEL = 200
_RIGHT = 40
_ROW = 20
_TOP = 38
_BARS = 150
_WIDEST = 120


@dataclass(frozen=True)
class Row:
    """One line of a strip chart.

    Attributes:
        label: what it is about.
        values: a dot each.
        mean: a bar across.
        low, high: ends of an interval around the mean, where there is one.
    """

    label: str
    values: Sequence[float]
    mean: float
    low: float | None = None
    high: float | None = None


def strip_chart(title: str, rows: Sequence[Row], marks: Mapping[str, float]) -> str:
    """Values as dots, one row for each label, with a line down for each mark.

    Args:
        title: what is shown, for who cannot see it.
        rows: at least one.
        marks: name to place of a line through all rows.
    """
    ends = [end for row in rows for end in (row.low, row.high) if end is not None]
    scale = _Scale.over([*(value for row in rows for value in (row.mean, *row.values)), *ends, *marks.values()])
    height = _TOP + _ROW * len(rows) + 22
    parts = [_axis(scale, height)]
    for place, (name, value) in enumerate(marks.items()):
        at = scale.at(value)
        parts.append(f'<line class="mark mark{place}" x1="{at}" y1="{_TOP - 6}" x2="{at}" y2="{height - 18}"/>')
        parts.append(
            f'<text class="mark{place}" x="{at}" y="{12 + 13 * place}" text-anchor="middle">{escape(name)}</text>'
        )
    for place, row in enumerate(rows):
        y = _TOP + _ROW * place + _ROW / 2
        parts.append(f'<text class="label" x="{_LABEL - 8}" y="{y + 4:g}" text-anchor="end">{_short(row.label)}</text>')
        if row.low is not None and row.high is not None:
            left, right = scale.at(row.low), scale.at(row.high)
            parts.append(f'<line class="interval" x1="{left}" y1="{y:g}" x2="{right}" y2="{y:g}"/>')
        parts += [f'<circle class="value" cx="{scale.at(value)}" cy="{y:g}" r="3"/>' for value in row.values]
        at = scale.at(row.mean)
        parts.append(f'<line class="mean" x1="{at}" y1="{y - 7:g}" x2="{at}" y2="{y + 7:g}"/>')
    return _svg(title, height, parts)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], form: str) -> str:
    """One bar for each label.

    Args:
        title: what is shown.
        bars: label and height, at least one.
        form: of the number above a bar.
    """
    highest = max((value for _, value in bars), default=0.0) or 1.0
    wide = min(WIDTH / len(bars), _WIDEST)
    parts = []
    for place, (label, value) in enumerate(bars):
        tall = (_BARS - 20) * value / highest
        x = place * wide
        middle = f"{x + wide / 2:.1f}"
        parts.append(
            f'<rect class="bar" x="{x + 2:.1f}" y="{_BARS - tall:.1f}" width="{wide - 4:.1f}" height="{tall:.1f}"/>'
        )
        parts.append(f'<text x="{middle}" y="{_BARS - tall - 4:.1f}" text-anchor="middle">{value:{form}}</text>')
        parts.append(f'<text x="{middle}" y="{_BARS + 16}" text-anchor="middle">{escape(label)}</text>')
    return _svg(title, _BARS + 24, parts)


def histogram(values: Sequence[float], bins: int = 12) -> list[tuple[str, float]]:
    """How many values lie in each of some spans of equal width, by where the span begins."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return [(f"{low:.3g}", float(len(values)))]
    width = (high - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    return [(f"{low + place * width:.3g}", float(count)) for place, count in enumerate(counts)]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        spare = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - spare, high + spare)

    def at(self, value: float) -> str:
        return f"{_LABEL + (WIDTH - _LABEL - _RIGHT) * (value - self.low) / (self.high - self.low):.1f}"

    def ticks(self) -> list[float]:
        """About five round numbers between the ends."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(step * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        first = math.ceil(self.low / step)
        return [place * step for place in range(first, math.floor(self.high / step) + 1)]


def _axis(scale: _Scale, height: int) -> str:
    parts = []
    for tick in scale.ticks():
        at = scale.at(tick)
        parts.append(f'<line class="grid" x1="{at}" y1="{_TOP - 6}" x2="{at}" y2="{height - 18}"/>')
        parts.append(f'<text x="{at}" y="{height - 4}" text-anchor="middle">{tick:.4g}</text>')
    return "".join(parts)


def _short(label: str) -> str:
    """A label in the room that there is, the whole of it for who points at it."""
    cut = label if len(label) <= 30 else label[:29] + "…"
    return f"{escape(cut)}<title>{escape(label)}</title>"


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'
