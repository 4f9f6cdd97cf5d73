"""Whether every conversation can begin, asked before the first one does.

Invariant: a scenario whose opening leaves no room for a reply ends a run before its first step, not in the middle. What
cannot be known beforehand (an agent or an environment with code of its own, a simulated user) is left to the episode.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..agents.multi_turn import MultiTurnAgent
from ..core.environment import ConversationEnvironment, Environment
from ..core.errors import DataError
from ..core.scenario import Scenario
from ..core.users import ScriptedUser

_TEMPLATE_TOKENS = 1024
"""More than any chat template adds by itself."""


def require_room(
    agent: MultiTurnAgent, environments: Iterable[Environment], *, max_prompt_length: int | None = None
) -> None:
    """Check the opening of each scripted conversation.

    Args:
        agent: initialized.
        environments: for training and for evaluation.
        max_prompt_length: tokens that an opening may have; None: what the model's context holds.

    Raises:
        DataError: some openings are too long; the first of them is named with its length.
    """
    if agent.runtime.model is None or type(agent).process_turn is not MultiTurnAgent.process_turn:
        return
    limit = agent.runtime.max_context if max_prompt_length is None else max_prompt_length + 1
    scenarios = [scenario for environment in environments for scenario in _scripted(environment)]
    lengths = [(scenario, _length(agent, scenario, limit)) for scenario in scenarios]
    long = [(scenario, length) for scenario, length in lengths if length >= limit]
    if long:
        scenario, length = long[0]
        if max_prompt_length is not None:
            raise DataError(
                f"{len(long)} of {len(scenarios)} scenarios begin with more than max_prompt_length tokens: the first "
                f'prompt of "{scenario.id}" has {length}, and max_prompt_length is {max_prompt_length}.\n'
                "  raise it, or shorten system_prompt, agent_context or the first user turn"
            )
        raise DataError(
            f"{len(long)} of {len(scenarios)} scenarios leave no room for a reply: the first prompt of "
            f'"{scenario.id}" has {length} tokens, but the model\'s context is {limit}.\n'
            "  shorten system_prompt, agent_context or the first user turn, or take a model with a longer context"
        )


def _scripted(environment: Environment) -> list[Scenario]:
    if not isinstance(environment, ConversationEnvironment) or not isinstance(environment.user, ScriptedUser):
        return []
    if type(environment).get_initial_prompt is not ConversationEnvironment.get_initial_prompt:
        return []
    return environment.episode_scenarios()


def _length(agent: MultiTurnAgent, scenario: Scenario, limit: int) -> int:
    """Tokens of the first prompt; an upper bound where that is short enough."""
    opening = scenario.user_responses[0]
    words = (agent.config.system_prompt or "", scenario.agent_context or "", opening)
    bound = sum(len(text.encode()) for text in words) + _TEMPLATE_TOKENS  # no token is shorter than a byte
    if bound < limit:
        return bound
    return agent.prompt_tokens(opening, {"agent_context": scenario.agent_context})
