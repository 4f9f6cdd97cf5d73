"""One episode: a fork of the agent and an environment talk until one of them ends it, and the reward is asked.

Invariant: what the agent did not cause never becomes its reward. Whoever fails is named by the episode's outcome, the
reward stays None, and the text of the error is kept. A `StatesetError` is no episode's failure: it is meant for whoever
runs the program (bad data, a missing setting, a broken engine), so it passes through and stops the run.

The fork, its rows and the engine's cache are settled and released however the episode ends, cancellation included.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Any

from ..agents import Agent
from ..core.busy import during
from ..core.environment import Environment, EnvironmentState, EpisodeStatus
from ..core.errors import ContextFull, DataError, EnvironmentFailed, StatesetError, is_out_of_memory, raised_at
from ..core.outcome import Outcome, StopReason
from ..core.reward import GroupReward, RewardFunction, RewardResult, as_reward
from ..core.rewards.base import LARGEST_SCORE, is_score
from ..core.scenario import Scenario
from ..core.secrets import Redactor
from ..core.standstill import TimeLimit
from ..core.tool_calls import TOOL
from ..core.trajectory import ConversationTurn, MultiTurnTrajectory
from ..core.users import UserFailed, keep_unheard

logger = logging.getLogger(__name__)


class _EpisodeFailed(Exception):
    """Ends an episode as a failure of `outcome`."""

    def __init__(self, outcome: Outcome, error: str) -> None:
        super().__init__(error)
        self.outcome = outcome


async def play_episode(
    agent: Agent,
    environment: Environment,
    scenario: Scenario,
    reward: RewardFunction | object | None,
    *,
    key: str,
    environment_timeout: float | None = None,
    reward_timeout: float | None = None,
) -> MultiTurnTrajectory:
    """Play one conversation and score it.

    Args:
        agent: forked for the episode; itself left as it was.
        environment: shared by all episodes.
        scenario: what is played.
        reward: scores the turns: a reward function, or what `as_reward` makes one of; with None the environment's step
            rewards are all there is.
        key: opaque; with the weights and the scenario it decides every token.
        environment_timeout, reward_timeout: seconds for one call; None waits for ever.

    Returns:
        The episode, whatever happened in it. Its reward is None when it failed or the reward could not score it.

    Raises:
        ConfigError: `reward` is not a reward.
        DataError: the scenario's first prompt does not fit into the model's context.
        StatesetError: anything else that concerns the run and not this episode.
    """
    judge = None if reward is None else as_reward(reward)
    played = await play_unjudged(agent, environment, scenario, key=key, environment_timeout=environment_timeout)
    if judge is not None:
        await judge_together([played], judge, key=key, reward_timeout=reward_timeout)
    return played[0]


OF_ONE_EPISODE = ("state", "outcome", "completed_actions", "success")
"""What a reward is told that is no matter of the scenario: the judge of a whole group is not told it of one of them."""

Played = tuple[MultiTurnTrajectory, dict[str, Any] | None]
"""An episode, and what a reward is to know about it; None if it failed."""


async def play_unjudged(
    agent: Agent,
    environment: Environment,
    scenario: Scenario,
    *,
    key: str,
    environment_timeout: float | None = None,
) -> Played:
    """Play one conversation, of which the environment's step rewards are all the reward.

    Args:
        agent, environment, scenario, key, environment_timeout: as in `play_episode`.

    Returns:
        The episode; and what a reward is to know about it, None if it failed.

    Raises:
        DataError, StatesetError: as `play_episode`.
    """
    await agent.initialize()
    fork = agent.fork(key)
    context: dict[str, Any] | None = None
    episode = _Episode(fork, environment, scenario, MultiTurnTrajectory(scenario.id, key), environment_timeout)
    trajectory = episode.trajectory
    about: dict[str, Any] = {}
    with keep_unheard() as unheard:
        try:
            about = await _user_of(episode)
            state = await episode.play()
            context = await _finish(episode, state)
        except _EpisodeFailed as failure:
            _fail(trajectory, failure)
        finally:
            if about or unheard:
                trajectory.metadata["user"] = {**about, **({"unheard": unheard} if unheard else {})}
            trajectory.edited_turns = fork.settle(trajectory.turns)
            trajectory.rows = [row for row in fork.rows if row.trained_tokens]
            fork.release()
    return trajectory, context


async def judge_together(
    played: Sequence[Played],
    reward: RewardFunction,
    *,
    key: str,
    reward_timeout: float | None = None,
) -> None:
    """Ask the reward about episodes that did not fail; their rewards are changed.

    Args:
        played: one episode; or all of a group, for a `GroupReward`.
        reward: what is asked; if it fails, all of them failed.
        key: of the group.
        reward_timeout: seconds for one call; None waits for ever.
    """
    ended = [(episode, context) for episode, context in played if context is not None]
    try:
        if isinstance(reward, GroupReward) and ended:
            async with _blame(Outcome.REWARD, "compare", reward_timeout):
                shared = {name: value for name, value in ended[0][1].items() if name not in OF_ONE_EPISODE}
                results = await reward.evaluate_group([episode.turns for episode, _ in ended], shared, key)
        else:
            async with _blame(Outcome.REWARD, "compute_reward", reward_timeout):
                results = [await reward.evaluate(episode.turns, context) for episode, context in ended]
    except _EpisodeFailed as failure:
        for episode, _ in ended:
            _fail(episode, failure)
        return
    for (episode, _), result in zip(ended, results, strict=True):
        _add(episode, result)


def _fail(trajectory: MultiTurnTrajectory, failure: _EpisodeFailed) -> None:
    # What foreign code raises may hold anything, and the error goes into logs, reports and messages.
    error = Redactor.from_environment()(str(failure))
    trajectory.outcome, trajectory.error, trajectory.reward = failure.outcome, error, None


class _Episode:
    """The conversation itself."""

    def __init__(
        self,
        agent: Agent,
        environment: Environment,
        scenario: Scenario,
        trajectory: MultiTurnTrajectory,
        timeout: float | None,
    ) -> None:
        self.agent, self.environment, self.scenario = agent, environment, scenario
        self.trajectory = trajectory
        self.step_rewards: list[float] = []
        self._timeout = timeout

    async def play(self) -> EnvironmentState:
        """Talk until the environment says that it is over, a limit cuts it, or somebody fails."""
        environment, turns = self.environment, self.trajectory.turns
        state = _checked_state(await self.ask(environment.reset, self.scenario))
        opening = await self.ask(environment.get_initial_prompt, self.scenario)
        if not isinstance(opening, str):
            raise _environment("get_initial_prompt", f"it returned {opening!r}; it must return a text")
        turns.append(ConversationTurn("user", opening))
        told = {"agent_context": self.scenario.agent_context} if self.scenario.agent_context else {}
        while True:
            tools = await self.ask(environment.episode_tools, state)
            if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
                raise _environment("episode_tools", f"it returned {tools!r:.60}; it must return a list of tools")
            action = await self._act(turns, {**told, "tools": tools} if tools else told)
            full = action.stop_reason is StopReason.CONTEXT
            turns += action.steps
            if full and action.span is None:
                self._require_a_first_reply(action)
                if action.content:  # an override answered in the model's place
                    turns.append(action)
                cut_off = [*action.steps, *([action] if action.content else [])]
                if cut_off:
                    state = _checked_state(await self.ask(environment.unfinished, state, cut_off), "unfinished")
                while turns and turns[-1].role == "user":
                    turns.pop()  # a conversation that was cut ends with the agent's last word, or what a tool said
                return self._cut(state)
            turns.append(action)
            state, response, reward, done = _checked_step(await self.ask(environment.step, state, action))
            self.step_rewards += [0.0] * sum(turn.role == "assistant" for turn in action.steps) + [reward]
            if done:
                if response is not None:
                    turns.append(response)
                return self._cut(state) if full or state.status is EpisodeStatus.TIMEOUT else state
            if response is None:
                raise _environment("step", "it returned neither a response nor done=True, so nobody goes on")
            if full or self.trajectory.length >= environment.max_turns:
                return self._cut(state)
            turns.append(response)

    def _cut(self, state: EnvironmentState) -> EnvironmentState:
        """A limit ended the conversation: scored, and counted apart."""
        self.trajectory.outcome = Outcome.TRUNCATED
        if state.status is EpisodeStatus.ONGOING:
            state = copy.copy(state)
            state.status = EpisodeStatus.TIMEOUT
        return state

    async def _act(self, turns: list[ConversationTurn], told: dict[str, Any]) -> ConversationTurn:
        try:
            action = await self.agent.process_turn(turns[:-1], turns[-1].content, dict(told))
        except ContextFull as full:  # of an agent that asks its model by `generate_response`
            told_why = {"prompt_tokens": full.prompt_tokens, "max_context": full.max_context}
            return ConversationTurn("assistant", "", told_why, stop_reason=StopReason.CONTEXT)
        except StatesetError:
            raise
        except EnvironmentFailed as error:
            raise _failed(Outcome.ENVIRONMENT, "a tool", error) from error
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise _failed(Outcome.AGENT, "process_turn", error) from error
        if not _is_turn(action, "assistant"):
            raise _EpisodeFailed(
                Outcome.AGENT, f"process_turn returned {action!r}; it must be ConversationTurn(role='assistant', ...)"
            )
        roles = [step.role for step in action.steps]
        if roles[:1] not in ([], ["assistant"]) or roles[-1:] not in ([], [TOOL]) or {*roles} - {"assistant", TOOL}:
            raise _EpisodeFailed(
                Outcome.AGENT, f"the steps of the turn of process_turn are {roles}; they must be calls and tool results"
            )
        return action

    async def ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the environment; a method that somebody wrote without `async` does as well."""
        async with _blame(Outcome.ENVIRONMENT, method.__name__, self._timeout):
            result = method(*arguments)
            return await result if inspect.isawaitable(result) else result

    def _require_a_first_reply(self, action: ConversationTurn) -> None:
        if self.trajectory.assistant_turns or "prompt_tokens" not in action.metadata:
            return
        raise DataError(
            f"scenario {self.scenario.id!r}: its first prompt has {action.metadata['prompt_tokens']} tokens, but the "
            f"model's context is {action.metadata['max_context']}; shorten system_prompt, agent_context or the first "
            "user turn, or take a model with a longer context"
        )


async def _user_of(episode: _Episode) -> dict[str, Any]:
    """Who answers the agent; nothing where that is the scenario's script."""
    async with _blame(Outcome.ENVIRONMENT, "describe_user", None):
        about = episode.environment.describe_user(episode.scenario)
    return {} if about is None or about == {"type": "scripted"} else about


async def _finish(episode: _Episode, state: EnvironmentState) -> dict[str, Any]:
    """Ask the environment how it went; returns what a reward is to know."""
    trajectory, environment = episode.trajectory, episode.environment
    async with _blame(Outcome.ENVIRONMENT, "success", None):
        trajectory.success = environment.success(trajectory.turns, state)
    async with _blame(Outcome.ENVIRONMENT, "reward_context", None):
        context = environment.reward_context(state, episode.scenario, trajectory.turns, trajectory.outcome)
        prompt = getattr(getattr(episode.agent, "config", None), "system_prompt", None)
        context = {"success": trajectory.success, **context}
        if prompt:
            context = {"system_prompt": prompt, **context}
    steps = episode.step_rewards
    trajectory.turn_rewards = list(steps) if any(steps) else []
    trajectory.reward = math.fsum(steps)
    return context


def _add(trajectory: MultiTurnTrajectory, result: RewardResult) -> None:
    """Put a judgement on top of the environment's step rewards."""
    steps = trajectory.reward or 0.0
    trajectory.breakdown = dict(result.breakdown)
    trajectory.components = {
        name: (part.score, part.weight) for name, part in result.components.items() if part.score is not None
    }
    if trajectory.components:
        trajectory.components["environment steps"] = (steps, 1.0)
    if result.metadata:
        trajectory.metadata["reward"] = result.metadata
    if result.score is None:
        trajectory.reward = None
        return
    if result.turn_rewards is not None:
        pairs = zip_longest(result.turn_rewards, trajectory.turn_rewards, fillvalue=0.0)
        trajectory.turn_rewards = [judged + step for judged, step in pairs]
    trajectory.reward = steps + result.score


@asynccontextmanager
async def _blame(outcome: Outcome, name: str, seconds: float | None) -> AsyncIterator[None]:
    """Whatever foreign code raises inside ends the episode as `outcome`; so does its not being done in time."""
    limit = TimeLimit(seconds)
    try:
        async with limit:
            with during("reward" if outcome is Outcome.REWARD else "environment"):
                yield
        if limit.overdue:  # it never awaited, so nothing could end it
            blocked = f"took longer than {seconds:g} s, and all other conversations waited: use await or a thread"
            raise _EpisodeFailed(outcome, f"{name}: {blocked}")
    except ContextFull as error:  # of a model that judges or plays the user
        raise _failed(outcome, name, error) from error
    except (StatesetError, _EpisodeFailed):
        raise
    except UserFailed as error:
        raise _failed(Outcome.USER, name, error) from error
    except SystemExit as error:  # foreign code that calls `exit` means its own program
        raise _failed(outcome, name, error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _failed(outcome, name, error) from error  # nobody cancelled this episode: something inside it was
    except TimeoutError as error:
        if not limit.expired():
            raise _failed(outcome, name, error) from error
        raise _EpisodeFailed(outcome, f"{name}: took longer than {seconds:g} s") from None
    except Exception as error:
        raise _failed(outcome, name, error) from error


def _failed(outcome: Outcome, name: str, error: BaseException) -> _EpisodeFailed:
    logger.debug("%s failed", name, exc_info=error)
    text = str(error) if isinstance(error, UserFailed) else f"{type(error).__name__}: {error}"
    source = error.__cause__ if isinstance(error, UserFailed) and error.__cause__ else error
    place = raised_at(source)
    details = ", ".join([*getattr(error, "__notes__", ()), *([place] if place else [])])
    return _EpisodeFailed(outcome, f"{name}: {text}" + (f" ({details})" if details else ""))


def _environment(name: str, problem: str) -> _EpisodeFailed:
    return _EpisodeFailed(Outcome.ENVIRONMENT, f"{name}: {problem}")


def _checked_state(state: Any, method: str = "reset") -> EnvironmentState:
    if not isinstance(state, EnvironmentState):
        raise _environment(method, f"it returned {state!r}; it must return an EnvironmentState")
    return state


def _checked_step(result: Any) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
    if not isinstance(result, tuple) or len(result) != 4 or not isinstance(result[0], EnvironmentState):
        raise _environment("step", f"it returned {result!r}; it must return (state, response, reward, done)")
    state, response, reward, done = result
    if response is not None and not _is_turn(response, "user"):
        raise _environment("step", f"its response is {response!r}; it must be ConversationTurn(role='user', ...)")
    if not _is_score(reward):
        raise _environment(
            "step", f"its reward is {reward!r}; it must be a finite number, of size {LARGEST_SCORE:g} at most"
        )
    return state, response, float(reward), bool(done)


def _is_turn(value: Any, role: str) -> bool:
    return isinstance(value, ConversationTurn) and value.role == role and isinstance(value.content, str)


def _is_score(value: Any) -> bool:
    try:
        return is_score(value)
    except (TypeError, ValueError, OverflowError):
        return False


FOREIGN_CALLS = {
    judge_together.__code__: Outcome.REWARD,
    _Episode.ask.__code__: Outcome.ENVIRONMENT,
    _finish.__code__: Outcome.ENVIRONMENT,
}
"""Code in whose frames somebody else's runs: what blocks there is theirs."""
