"""Training: from conversations to new weights.

Invariant: importing this package loads nothing heavy; a name below is fetched from its home on first use.
`training.train` is a module; the function of that name in it is also `stateset_agents.train`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Fetch a public name from its home.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, fetched or not, beside what is loaded."""
    return sorted({*globals(), *__all__})
