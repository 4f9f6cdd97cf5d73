"""Ready-made agents and programs, and the files that come with the package.

Each module is a program: `python -m stateset_agents.examples.quick_start`; docs/examples.md lists them. Importing this
room loads none of them: a name is fetched on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import fetched

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

__getattr__, __dir__ = fetched(__name__, _HOMES)
