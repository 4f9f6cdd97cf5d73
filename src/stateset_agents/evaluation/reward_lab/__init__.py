"""The reward lab: where a reward is fooled.

Invariant: the lab looks and changes nothing. A reward is asked as in a run, about conversations that are written down.
"""

from .cases import CATEGORIES, Attack, Case, Reply
from .choose import Candidate, every_built_in, named, parts_of
from .measure import MARGIN, Findings, Pair, Score, Tally, Verdict, measure
from .reading import HALVES, load_cases, shipped_cases
from .replay import Staged, stage
from .report import as_json, as_markdown, as_text

__all__ = [
    "CATEGORIES",
    "HALVES",
    "MARGIN",
    "Attack",
    "Candidate",
    "Case",
    "Findings",
    "Pair",
    "Reply",
    "Score",
    "Staged",
    "Tally",
    "Verdict",
    "as_json",
    "as_markdown",
    "as_text",
    "every_built_in",
    "load_cases",
    "measure",
    "named",
    "parts_of",
    "shipped_cases",
    "stage",
]
