"""What `auto_adjust` does: settings that move when the rows of a run show that something is wrong."""

from .adjuster import Adjuster
from .moves import ADJUSTMENTS, Move, told
from .rules import RULES, Rule
from .settings import Settings

__all__ = ["ADJUSTMENTS", "RULES", "Adjuster", "Move", "Rule", "Settings", "told"]
