"""How the server is: loading, ready, draining, and what is wrong with its parts.

Invariant: it is ready only if every check finds nothing, so that whoever sends requests here by `/readyz` never meets
one that is refused for a reason that was known.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["loading", "ready", "draining"]
Check = Callable[[], Awaitable[str | None]]


@dataclass
class Condition:
    """What `/health`, `/livez` and `/readyz` tell.

    Attributes:
        model: name under which the agent is served.
        phase: of the server's life.
        version: step after which the served checkpoint was saved; None where it does not say.
        reloads: checkpoints that took the place of the first one.
        last_reload: how the last attempt went.
        checks: each gives what is wrong with a part, in words for everybody, or None. "engine" is also what `/livez`
            looks at.
    """

    model: str
    phase: Phase = "loading"
    version: int | None = None
    reloads: int = 0
    last_reload: str | None = None
    checks: dict[str, Check] = field(default_factory=dict)
    since: float = field(default_factory=time.time)

    async def findings(self) -> Mapping[str, str]:
        """What each check says now."""
        return {name: await check() or "ok" for name, check in self.checks.items()}

    async def alive(self) -> bool:
        """Whether a restart would not help."""
        engine = self.checks.get("engine")
        return engine is None or await engine() is None

    def ready(self, findings: Mapping[str, str]) -> bool:
        """Whether, if these are the findings, requests should come here."""
        return self.phase == "ready" and all(found == "ok" for found in findings.values())
