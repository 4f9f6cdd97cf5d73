"""Training: from conversations to new weights.

Invariant: importing this package loads nothing heavy; a name below is fetched from its home on first use.
`training.train` is a module; the function of that name in it is also `stateset_agents.train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import fetched

if TYPE_CHECKING:
    from .trl.config import TRLGRPOConfig
    from .trl.customer_service import train_customer_service_with_trl
    from .trl.train import train_with_trl_grpo

_HOMES = {
    "TRLGRPOConfig": "trl.config",
    "train_customer_service_with_trl": "trl.customer_service",
    "train_with_trl_grpo": "trl.train",
}

__all__ = ["TRLGRPOConfig", "train_customer_service_with_trl", "train_with_trl_grpo"]

__getattr__, __dir__ = fetched(__name__, _HOMES)
