"""A trained agent evaluated beside what it is to be compared with: what `grpo-evaluate` does.

Invariant: whatever is compared plays the same scenarios under the same keys and is judged by the same reward, so that
agents are all that differs. What can be wrong is found before a model is loaded; what somebody stops is kept.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..agents.config import AgentConfig
from ..agents.multi_turn import MultiTurnAgent
from ..agents.tool_agent import ToolAgent
from ..config.training import count
from ..core.errors import DataError, ModelError
from ..core.reward import RewardFunction
from ..core.trajectory import MultiTurnTrajectory
from ..evaluation import EvaluationResult, compare, evaluate
from ..evaluation.beside import BESIDE, with_built_ins
from ..evaluation.evaluate import evaluated_so_far
from ..evaluation.plan import Plan, plan_of
from ..evaluation.report import METRICS, Floor, Report
from ..models.names import is_stub
from ..models.sources import lies_here
from ..tracking.counting import Counting
from .beforehand import require_tools
from .signals import StopSignals
from .trained import Trained, open_trained

NOTHING = "..."
"""What an agent says that does nothing."""
STOPPING = "stopping: what was measured will be printed. Once more leaves at once"

OnEpisode = Callable[[MultiTurnTrajectory, int, int], None]
"""Told of each episode of the checkpoint as it ends: the episode, how many are over, and of how many."""


@dataclass(frozen=True)
class Asked:
    """What somebody wants to know.

    Attributes:
        checkpoint: as they named it.
        compare_with: another one.
        config_file, scenarios_file, device: see `open_trained`.
        num_episodes: of the checkpoint; None: 100, or what `samples` makes of all scenarios.
        samples: of each scenario; None: as many as `num_episodes` asks for.
        key: names the sampling noise.
        metrics: of `METRICS`.
        floors: whether agents that have learned nothing are measured too.
    """

    checkpoint: str
    compare_with: str | None = None
    config_file: Path | None = None
    scenarios_file: Path | None = None
    device: str | None = None
    num_episodes: int | None = None
    samples: int | None = None
    key: str = "evaluation"
    metrics: tuple[str, ...] = METRICS
    floors: bool = True


async def evaluate_trained(asked: Asked, on_episode: OnEpisode | None = None) -> Report:
    """Evaluate a checkpoint, and beside it what was asked for.

    Args:
        asked: what to measure.
        on_episode: watches the checkpoint's own episodes.

    Raises:
        StatesetError: something is wrong with a checkpoint, a config or the scenarios; see `open_trained` and
            `evaluate`. The first Ctrl-C is no error: the report says that it was interrupted. Nor is what goes wrong
            once the checkpoint itself was played: it is the report's `failure`.
    """
    trained = open_trained(
        asked.checkpoint, config_file=asked.config_file, scenarios_file=asked.scenarios_file, device=asked.device
    )
    plan = plan_of(trained.scenarios, asked.num_episodes, asked.samples)
    trained.reward.require([scenario.to_dict() for scenario in plan.scenarios])
    reward = with_built_ins(trained.reward, [name for name in asked.metrics if name in BESIDE])
    other = None
    if asked.compare_with is not None:
        other = open_trained(asked.compare_with, config_file=asked.config_file, device=asked.device)
    notes = tuple(_notes(asked, trained, other, plan))
    agents = 1 + asked.floors + (other is not None)
    with Counting(agents * plan.episodes + asked.floors * len(plan.scenarios)) as counting:
        for note in notes:
            counting.say(note)
        player = _Player(trained, reward, plan, asked.key, counting)
        # Not at once: cancelled in the midst of its last lines, the task would take the report along.
        stop = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, player.stop)
        with StopSignals(stop, lambda _: counting.say(STOPPING)):
            result = await player.play(asked.checkpoint, trained.agent, on_episode)
            report = Report(asked.checkpoint, trained.step, result, plan.episodes, asked.metrics, notes=notes)
            try:
                await trained.agent.aclose()
                if other is not None and not player.stopped:
                    before = await player.play(str(asked.compare_with), other.agent)
                    report = _compared(report, before, str(asked.compare_with))
                    await other.agent.aclose()
                if asked.floors and not player.stopped:
                    report = replace(report, floors=await _floors(trained, player))
            except asyncio.CancelledError:
                if not player.stopped:
                    raise
            except Exception as error:  # whatever it is, what was measured before it is not thrown away
                report = replace(report, failure=error)
        if not player.stopped and report.failure is None:
            return report
        missing = [str(asked.compare_with)] if other is not None and report.comparison is None else []
        missing += ["the floors"] if asked.floors and not report.floors else []
        how = "interrupted" if player.stopped else "ended by an error"
        why = f"it was {how} before {' and '.join(missing)} had been played" if missing else ""
        return replace(report, interrupted=player.stopped, notes=(*report.notes, *([why] if why else [])))


class _Player:
    """Plays the same episodes with one agent after the other."""

    def __init__(self, trained: Trained, reward: RewardFunction, plan: Plan, key: str, counting: Counting) -> None:
        self.counting = counting
        self.stopped = False
        self._trained, self._reward, self.plan, self._key = trained, reward, plan, key
        self._task = asyncio.current_task()
        self._first = True

    def stop(self) -> None:
        """End what is being played. Of the first agent, the episodes that are over are kept."""
        self.stopped = True
        if self._task is not None:
            self._task.cancel()

    async def play(
        self, name: str, agent: MultiTurnAgent, on_episode: OnEpisode | None = None, *, samples: int | None = None
    ) -> EvaluationResult:
        """The plan's episodes with this agent.

        Raises:
            asyncio.CancelledError: it was stopped, and is not the first one.
        """
        plan, trained, first = self.plan, self._trained, self._first
        self._first = False
        ended: list[MultiTurnTrajectory] = []

        def told(episode: MultiTurnTrajectory) -> None:
            ended.append(episode)
            self.counting.one()
            if on_episode is not None:
                on_episode(episode, len(ended), plan.episodes)

        each = samples or plan.samples
        environment_timeout, reward_timeout = trained.timeouts
        self.counting.begin(name)
        begun = time.monotonic()
        try:
            await agent.initialize()
            self.counting.loaded()
            begun = time.monotonic()
            return await evaluate(
                agent,
                trained.environment,
                plan.scenarios,
                self._reward,
                on_episode=told,
                environment_timeout=environment_timeout,
                reward_timeout=reward_timeout,
                samples=each,
                key=self._key,
            )
        except asyncio.CancelledError:
            if not (self.stopped and first):
                raise
            seconds = time.monotonic() - begun
            return evaluated_so_far(
                ended,
                trained.environment,
                plan.scenarios,
                self._reward,
                samples=each,
                key=self._key,
                seconds=seconds,
            )


async def _floors(trained: Trained, player: _Player) -> tuple[Floor, ...]:
    """What agents get that have learned nothing: one that says nothing, and the model before the run."""
    # Whatever tools the environment offers, it calls none of them.
    silent = ToolAgent(AgentConfig(model_name=f"stub://{NOTHING}"))
    about = f'an agent that answers "{NOTHING}" to everything'
    floors = [Floor("do nothing", about, await player.play("do nothing", silent, samples=1))]
    name = trained.model_name
    if is_stub(name):
        why = f"{name} has no weights that could have been trained"
    elif not lies_here(name):
        why = f"{name} is not on this machine, and nothing is downloaded for it"
    elif not trained.may_load_untrained:
        why = f"the checkpoint names the folder {name}, and its word is not enough: name it in a --config-file too"
    else:
        try:
            untrained = trained.untrained()
            await untrained.initialize()
        except ModelError as error:
            why = str(error).splitlines()[0]
        else:
            result = await player.play(f"untrained ({name})", untrained)
            await untrained.aclose()
            return (*floors, Floor("untrained", f"{name} as it was before the run", result))
    player.counting.skip(player.plan.episodes)
    return (*floors, Floor("untrained", f"{name} as it was before the run", why_not=why))


def _compared(report: Report, before: EvaluationResult, name: str) -> Report:
    try:
        return replace(report, comparison=compare(before, report.result), compared_with=name)
    except ValueError as error:  # nothing was scored; what was measured stays worth printing
        return replace(report, notes=(*report.notes, f"not compared with {name}: {error}"))


def _notes(asked: Asked, trained: Trained, other: Trained | None, plan: Plan) -> Iterator[str]:
    yield from trained.notes
    if plan.note:
        yield plan.note
    yield from trained.environment.notices()
    yield from trained.reward.notices([scenario.to_dict() for scenario in plan.scenarios])
    for name, one in ((asked.checkpoint, trained), (str(asked.compare_with), other)):
        seen = 0 if one is None else one.seen(plan.scenarios)
        if one is not None:
            try:
                require_tools(one.agent, trained.environment)
            except DataError as error:
                first, *more = str(error).splitlines()
                yield f"{name}: {first}" + (f", and {len(more)} more" if more else "")
        if seen and (one is other or asked.scenarios_file or asked.config_file):
            yield f"{name} was trained on {seen} of the {count(len(plan.scenarios), 'scenario')}"
    if other is None:
        return
    if _tools(trained) != _tools(other):
        yield f"{asked.checkpoint} has {_tools(trained)}, {asked.compare_with} has {_tools(other)}"
    if trained.agent.config.system_prompt != other.agent.config.system_prompt:
        yield f"{asked.checkpoint} and {asked.compare_with} have different system prompts"
    if trained.trained_for != other.trained_for:
        yield (
            f"{asked.checkpoint} and {asked.compare_with} were trained for different rewards, and are judged by "
            f"that of {asked.checkpoint if trained.judged_as_trained else asked.config_file}"
        )


def _tools(trained: Trained) -> str:
    agent = trained.agent
    names = [tool.name for tool in agent.tools] if isinstance(agent, ToolAgent) else []
    return f"the tools {', '.join(names)}" if names else "no tools"
