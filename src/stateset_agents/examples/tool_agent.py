"""An agent that calculates with a tool instead of in its head.

    python -m stateset_agents.examples.tool_agent

Customers ask for sums that a small model gets wrong. The agent may call `calculator`, which parses an expression and
never runs it. Two rewards: NumericMatchReward pays for the right number at the end of the reply, ToolSuccessReward for
one call that worked. What the model sampled is trained, calls included; what the tool said is context (mask 0).

The embedded model makes no right call by itself, and where every conversation is worth 0 nothing can be learned from
the difference between them. So it first imitates the 24 recorded conversations of `data/sum_demonstrations.jsonl`
(`algorithm: sft`), about other things. `--epochs 0` leaves that out, for a model that calls tools as it comes.

Three times over, they are enough: measured once, 1 of 12 held-out answers was right before and 12 after, and its own
conversations had nothing left to teach, which the program says. With `--epochs 1` (8 of 12) there is something left.

Any function is a tool: the model is told its name, its docstring and its parameters. Never give it `eval`, nor a
function that runs what a model wrote: its arguments are text that anybody in the conversation can steer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..agents import AgentConfig, ToolAgent, ToolLimits
from ..core.calculator import calculator
from ..core.environment import ConversationEnvironment
from ..core.reward import CompositeReward, NumericMatchReward, ToolSuccessReward
from ..core.scenario import Scenario
from ..core.shipped import shipped
from ..evaluation import EvaluationResult
from .program import command_line, learn, look, run

DEMONSTRATIONS = "data/sum_demonstrations.jsonl"
SYSTEM_PROMPT = "You are the cashier of a shop. Calculate with the tool, then answer in one short sentence."
SALES = {"lamps": (4, 35), "chairs": (6, 80), "clocks": (7, 24), "radios": (3, 59), "tables": (2, 145), "cups": (12, 9)}
HELD_OUT = {"pots": (5, 29), "rugs": (3, 175), "spoons": (24, 4), "benches": (4, 118), "nails": (90, 3), "cans": (8, 6)}


def sales(articles: dict[str, tuple[int, int]]) -> list[Scenario]:
    """A customer for each article, and the right answer, which the agent never sees."""
    return [
        Scenario(
            id=article,
            user_responses=(f"What do {count} {article} at ${price} cost?",),
            ground_truth=calculator(f"{count} * {price}"),
        )
        for article, (count, price) in articles.items()
    ]


def calls(result: EvaluationResult) -> str:
    """How the calls of an evaluation went."""
    return "calls: " + (", ".join(f"{count} {kind}" for kind, count in result.tool_calls.items()) or "none")


async def imitate(agent: ToolAgent, environment: ConversationEnvironment, options: argparse.Namespace) -> None:
    """Learn from recorded conversations, several times over."""
    from ..training.train import train

    demonstrations = shipped(DEMONSTRATIONS)
    records = len(demonstrations.read_text(encoding="utf-8").splitlines())
    print(f"\nIt imitates {records} recorded conversations, {options.epochs} times over", flush=True)
    settings = {"learning_rate": 5e-5, "warmup_steps": 0, "batch_size": 6, "gradient_accumulation_steps": 1}
    await train(
        agent,
        environment,
        num_episodes=records * options.epochs,
        config_overrides={
            **settings,
            "algorithm": "sft",
            "data_file": str(demonstrations),
            "eval_every": 0,
            "seed": options.seed,
        },
        quiet=True,
    )


async def tool_agent(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt=SYSTEM_PROMPT, temperature=0.7, max_new_tokens=40)
    agent = ToolAgent(config, [calculator], limits=ToolLimits(calls_per_turn=2))
    environment = ConversationEnvironment(sales(SALES), max_turns=1)
    reward = CompositeReward([NumericMatchReward(0.7), ToolSuccessReward(0.3, needed_calls=1)])
    if options.epochs:
        untrained = await look(agent, environment, reward, options, sales(HELD_OUT))
        print(f"\n0. {options.model}, untrained\n{untrained.summary()}\n{calls(untrained)}", flush=True)
        await imitate(agent, environment, options)
    so_far = "after imitation" if options.epochs else "untrained"
    await learn(agent, environment, reward, options, sales(HELD_OUT), so_far=so_far, rate=2e-5, also=calls)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(tool_agent, command_line("tool_agent", __doc__, episodes=32, epochs=3).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
