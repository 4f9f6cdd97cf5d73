"""Several users, each for a share of the scenarios.

Invariant: who plays a scenario is a hash of the seed and the scenario's id. So all conversations on a scenario have the
same user: they open with the same words, and the rewards that a group compares are those of the agent alone, not those
of the luck to have met an easy user. Adding, dropping or reordering scenarios changes nobody's user.

What it costs: shares are shares of many scenarios. With a few they are rough, and `describe` says for each scenario who
it was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.scenario import Scenario
from ..core.trajectory import ConversationTurn
from ..core.users import User, described, require_user


class MixedUser:
    """One of several users, chosen by scenario.

    Args:
        members: (share, user). Shares are divided by their sum.
        seed: another seed, another choice.

    Raises:
        ConfigError: there are no members, one is not (share, user), or a share is no number above 0.
    """

    def __init__(self, members: Sequence[tuple[float, User]], *, seed: int = 0) -> None:
        if not isinstance(members, Sequence) or isinstance(members, str) or not members:
            raise ConfigError(f"MixedUser: members is {members!r:.60}; it must be a list of at least one (share, user)")
        for place, member in enumerate(members):
            if not isinstance(member, tuple | list) or len(member) != 2:
                raise ConfigError(f"MixedUser: members[{place}] is {member!r:.60}; it must be (share, user)")
            share, user = member
            require_user(user, f"MixedUser: the user of members[{place}]")
            if isinstance(share, bool) or not isinstance(share, int | float) or not (0 < share < math.inf):
                raise ConfigError(f"MixedUser: a share is {share!r}; it must be a number above 0")
        whole = math.fsum(share for share, _ in members)
        self._members = [(share / whole, user) for share, user in members]
        self._seed = seed

    @property
    def users(self) -> list[User]:
        """All of them."""
        return [user for _, user in self._members]

    def chosen(self, scenario: Scenario) -> User:
        """Who plays a scenario."""
        return self._choose(scenario)[1]

    async def opening(self, scenario: Scenario, persona: str | None = None) -> str:
        """See `User.opening`."""
        return await self.chosen(scenario).opening(scenario, persona)

    async def reply(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> str | None:
        """See `User.reply`."""
        return await self.chosen(scenario).reply(scenario, turns, persona)

    def describe(self, scenario: Scenario | None = None) -> dict[str, Any]:
        """The member that plays a scenario with its share; all of them without one."""
        if scenario is not None:
            share, user = self._choose(scenario)
            return {**described(user, scenario), "share": share}
        users = [{**described(user), "share": share} for share, user in self._members]
        return {"type": "mixture", "seed": self._seed, "users": users}

    def require(self, scenarios: Sequence[Scenario], *, where: str = "scenarios") -> None:
        """Check that each member can play the scenarios that are its own.

        Raises:
            DataError: a scripted member has a scenario without lines.
        """
        for _, user in self._members:
            own = [scenario for scenario in scenarios if self.chosen(scenario) is user]
            require = getattr(user, "require", None)
            if own and callable(require):
                require(own, where=f"{where} of the {described(user)['type']} user")

    def _choose(self, scenario: Scenario) -> tuple[float, User]:
        digest = hashlib.blake2b(f"{self._seed}\0{scenario.id}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "little") / 2**64
        for share, user in self._members[:-1]:
            if point < share:
                return share, user
            point -= share
        return self._members[-1]
