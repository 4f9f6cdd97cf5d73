"""How good an agent is: episodes in, numbers with intervals and comparisons out."""

from .compare import Comparison, compare, side_by_side
from .evaluate import evaluate
from .metrics import SuccessCriterion, group_metrics, part_means
from .result import EvaluationResult
from .statistics import Estimate, PairedDifference, mean_interval, paired_difference

__all__ = [
    "Comparison",
    "Estimate",
    "EvaluationResult",
    "PairedDifference",
    "SuccessCriterion",
    "compare",
    "evaluate",
    "group_metrics",
    "mean_interval",
    "paired_difference",
    "part_means",
    "side_by_side",
]
