"""A customer-service agent that looks orders up and refunds them, and learns to.

    python -m stateset_agents.examples.customer_service_agent

Invariant: what the agent says of an order it has from a tool, and a task is done only if every call that it takes was
made with the right order, every fact was told to the customer, and nothing was refunded that nobody asked for.

The model first imitates recorded conversations (`data/order_demonstrations.jsonl`) and then learns from its own
(`data/order_tasks.json`). Held-out customers have other orders, things and words. Without arguments it is a short
show; `benchmarks/tool_use.py` is the whole of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents import AgentConfig, ToolAgent, ToolLimits
from ..core.environment import TaskEnvironment, load_tasks
from ..core.facts import provided_topics
from ..core.reward import (
    CompositeReward,
    CorrectnessReward,
    RewardFunction,
    RewardResult,
    TaskCompletionReward,
)
from ..core.scenario import Scenario
from ..core.shipped import shipped
from ..core.trajectory import ConversationTurn
from .program import MODEL, command_line, run
from .shop import Shop

if TYPE_CHECKING:
    from ..evaluation import EvaluationResult

TASKS, HELD_OUT = "data/order_tasks.json", "data/order_tasks_heldout.json"
DEMONSTRATIONS = "data/order_demonstrations.jsonl"
EXAMPLE = (
    "Example\n"
    "Customer: Where is order Z99?\n"
    'You: {"name": "find_order", "arguments": {"order": "Z99"}}\n'
    "Tool: pink hat, $11, shipped, arrives Sunday\n"
    "You: Your pink hat arrives on Sunday."
)
SYSTEM_PROMPT = (
    "You are the customer service agent of a web shop. Look the order up with a tool, then answer in one short "
    "sentence. Refund an order only if the customer asks for it."
)


class CustomerServiceAgent(ToolAgent):
    """An agent with a web shop.

    Args:
        model_name: a model's name.
        shop: whose orders it looks up and refunds; by default the shipped one. Each conversation has a copy of it.
        example: tell the model how a conversation goes, which one that imitates recorded ones need not be told.
    """

    def __init__(self, model_name: str = MODEL, shop: Shop | None = None, *, example: bool = False) -> None:
        self.shop = shop or Shop()
        prompt = f"{SYSTEM_PROMPT}\n{EXAMPLE}" if example else SYSTEM_PROMPT
        config = AgentConfig(model_name=model_name, system_prompt=prompt, temperature=0.7, max_new_tokens=40)
        super().__init__(config, self.shop.tools(), limits=ToolLimits(calls_per_turn=3))


class CustomerServiceEnvironment(TaskEnvironment):
    """Customers with two wishes each.

    Args:
        scenarios: tasks; None takes the shipped ones that are for training.
        max_turns: replies after which a conversation is cut.
    """

    def __init__(self, scenarios: Sequence[Mapping[str, Any] | Scenario] | None = None, max_turns: int = 4) -> None:
        tasks = load_tasks(shipped(TASKS)) if scenarios is None else scenarios
        super().__init__(tasks, success_criteria=order_was_handled, max_turns=max_turns)


def order_was_handled(turns: Sequence[ConversationTurn], context: Mapping[str, Any]) -> bool:
    """Whether everything was done and told, and nothing else was refunded."""
    done = set(context["required_actions"]) <= set(context["completed_actions"])
    told = provided_topics(turns, context["facts"], context["information_provided"])
    return done and all(told.values()) and not unasked_refunds(turns, context["required_actions"])


def unasked_refunds(turns: Sequence[ConversationTurn], required: Sequence[str]) -> list[str]:
    """Orders that the agent tried to refund although nobody had asked for it."""
    calls = [call for turn in turns for call in turn.tool_calls if call.name == "refund_order"]
    tried = [str(call.arguments.get("order")) for call in calls]
    return [order for order in tried if f"refund_order {order}" not in required]


class NoUnaskedRefund(RewardFunction):
    """-1 for a conversation in which an order was to be refunded that the customer had not named; else 0."""

    maximum = 0.0

    async def compute_reward(
        self, turns: Sequence[ConversationTurn], context: Mapping[str, Any] | None = None
    ) -> RewardResult:
        """Look at the calls."""
        wrong = unasked_refunds(turns, (context or {}).get("required_actions", ()))
        return RewardResult(-1.0 if wrong else 0.0, metadata={"unasked_refunds": wrong} if wrong else {})


def create_customer_service_reward() -> CompositeReward:
    """What a conversation is worth: calls with the right order, facts told in a sentence, no refund out of the blue."""
    return CompositeReward([TaskCompletionReward(0.5), CorrectnessReward(0.5), NoUnaskedRefund(0.5)])


@dataclass(frozen=True)
class Lesson:
    """How much is learned from what.

    Attributes:
        epochs: passes over the demonstrations; 0 leaves them out.
        imitation_rate: learning rate of the imitation.
        episodes: conversations of its own; 0 leaves them out.
        batches: of 16 of them, 8 on each task, that move the weights once.
        rate: learning rate of learning from them.
        temperature: of sampling while it learns from its own: higher than when it serves, so that the samples of a
            group differ, without which nothing is learned.
        samples: conversations for each held-out customer in an evaluation.
        tasks: held-out customers; None takes them all.
    """

    epochs: int = 2
    imitation_rate: float = 5e-5
    episodes: int = 16
    batches: int = 1
    rate: float = 2e-5
    temperature: float = 1.0
    samples: int = 1
    tasks: int | None = 8


async def learn(
    agent: CustomerServiceAgent,
    lesson: Lesson,
    *,
    seed: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    on_stage: Callable[[str, EvaluationResult], None] = lambda name, result: None,
    quiet: bool = True,
) -> None:
    """Imitation, then reinforcement; held-out customers before, between and after.

    Args:
        agent: trained in place.
        lesson: how much.
        seed: of the order of things and of sampling.
        folder: where the run of the second part is kept; None keeps nothing.
        resume: continue the run in `folder`; what comes before it is done again, with the same result.
        on_stage: told of each evaluation: "untrained", "imitation", "reinforcement".
        quiet: no progress on the terminal.
    """
    from ..evaluation import evaluate
    from ..training.train import train

    environment, reward = CustomerServiceEnvironment(), create_customer_service_reward()
    held_out = load_tasks(shipped(HELD_OUT))[: lesson.tasks]
    step = {"eval_every": 0, "warmup_steps": 0, "seed": seed}

    async def stage(name: str) -> None:
        on_stage(name, await evaluate(agent, environment, held_out, reward, samples=lesson.samples))

    await stage("untrained")
    if lesson.epochs:
        demonstrations = shipped(DEMONSTRATIONS)
        records = len(demonstrations.read_text(encoding="utf-8").splitlines())
        await train(
            agent,
            environment,
            num_episodes=records * lesson.epochs,
            reward_fn=reward,
            config_overrides={
                **step,
                "algorithm": "sft",
                "data_file": str(demonstrations),
                "learning_rate": lesson.imitation_rate,
                "batch_size": 6,
                "gradient_accumulation_steps": 1,
            },
            quiet=True,
        )
        await stage("imitation")
    if lesson.episodes:
        serving = agent.config
        agent.config = replace(serving, temperature=lesson.temperature)
        await train(
            agent,
            environment,
            num_episodes=lesson.episodes,
            reward_fn=reward,
            output_dir=folder,
            resume=resume,
            config_overrides={
                **step,
                "learning_rate": lesson.rate,
                "num_generations": 8,
                "batch_size": 16,
                "gradient_accumulation_steps": lesson.batches,
            },
            quiet=quiet,
        )
        agent.config = serving
        await stage("reinforcement")


def told(name: str, result: EvaluationResult) -> str:
    """A stage in two lines: what the held-out customers got, and how the calls went."""
    summary = " | ".join(line.strip() for line in result.summary().splitlines()[1:3])
    made = ", ".join(f"{count} {kind}" for kind, count in result.tool_calls.items()) or "none"
    return f"{name:<14} {summary}\n{'':<14} calls: {made}"


async def customer_service_agent(options: argparse.Namespace) -> None:
    """The whole of it."""
    agent = CustomerServiceAgent(options.model)
    lesson = Lesson(epochs=options.epochs, episodes=options.episodes, samples=options.samples)

    def show(name: str, result: EvaluationResult) -> None:
        print(told(name, result), flush=True)

    await learn(
        agent,
        lesson,
        seed=options.seed,
        folder=options.output_dir,
        resume=options.resume,
        on_stage=show,
        quiet=False,
    )
    print(await _ask(agent, "Where is my order A26?"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    default = Lesson()
    parser = command_line(
        "customer_service_agent", __doc__, episodes=default.episodes, samples=default.samples, epochs=default.epochs
    )
    return run(customer_service_agent, parser.parse_args(arguments))


async def _ask(agent: CustomerServiceAgent, question: str) -> str:
    turn = await agent.fork("a question").process_turn([], question)
    lines = [f"customer: {question}", *(f"{step.role}: {step.content}" for step in (*turn.steps, turn))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
