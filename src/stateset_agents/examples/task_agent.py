"""An agent that has something to get done, and a TaskEnvironment that sees whether it did.

    python -m stateset_agents.examples.task_agent

The shipped `data/tasks.json` has three tasks. Each names `required_actions`, here by keywords: an action is done once a
reply has one of its words. A conversation ends as soon as all are done (success), or when the customer has nothing left
to say. TaskCompletionReward pays for the share that was done.

Keywords are easy to fool, and a policy that is trained for them learns to drop them: read the conversation at the end.
In earnest name a `tool` whose call has to succeed, or a `check`, a function of the turns; customer_service_agent does.
With three tasks there is nothing to hold out: what it shows is that training works, not that it carries over.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from ..agents import AgentConfig, MultiTurnAgent
from ..core.environment import TaskEnvironment, load_tasks, task_completion_function
from ..core.reward import TaskCompletionReward
from ..core.shipped import shipped
from ..evaluation import EvaluationResult
from .program import command_line, learn, run

TASKS = "data/tasks.json"
SYSTEM_PROMPT = (
    "You are an assistant. Ask the customer for what you need to know, one or two short sentences at a time."
)


def undone(result: EvaluationResult) -> str:
    """Which actions were missing, and how often."""
    missing = Counter(
        f"{episode.scenario_id}: {action}"
        for episode in result.episodes
        for action in (episode.metadata.get("reward") or {}).get("missing", ())
    )
    return "not done: " + (", ".join(f"{action} ({count}x)" for action, count in missing.most_common(5)) or "nothing")


async def task_agent(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt=SYSTEM_PROMPT, temperature=0.8, max_new_tokens=40)
    tasks = load_tasks(shipped(TASKS))
    for task in tasks:
        print(f"{task.id}: {', '.join(action['name'] for action in task.extra['required_actions'])}")
    environment = TaskEnvironment(tasks, success_criteria=task_completion_function, max_turns=4)
    await learn(MultiTurnAgent(config), environment, TaskCompletionReward(), options, also=undone)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(task_agent, command_line("task_agent", __doc__, episodes=48).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
