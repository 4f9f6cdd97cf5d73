"""Ready-made agents and programs, and the files that come with the package.

Each module is a program: `python -m stateset_agents.examples.quick_start`; docs/examples.md lists them. Importing this
room loads none of them: a name is fetched on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .customer_service_agent import (
        CustomerServiceAgent,
        CustomerServiceEnvironment,
        create_customer_service_reward,
    )

_HOMES = {
    "CustomerServiceAgent": "customer_service_agent",
    "CustomerServiceEnvironment": "customer_service_agent",
    "create_customer_service_reward": "customer_service_agent",
}

__all__ = ["CustomerServiceAgent", "CustomerServiceEnvironment", "create_customer_service_reward"]


def __getattr__(name: str) -> Any:
    """Fetch a name from its home.

    Raises:
        AttributeError: the room has no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
