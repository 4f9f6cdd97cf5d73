"""A customer-service agent that looks orders up and refunds them, and learns to.

    python -m stateset_agents.examples.customer_service_agent

Invariant: what the agent says of an order it has from a tool, and a task is done only if every call that it takes was
made with the right order, every fact was told to the customer, and nothing was refunded that nobody asked for.

The model begins with one example in its prompt, imitates a few recorded conversations (`data/order_demonstrations.jsonl`)
and then learns from its own (`data/order_tasks.json`). Held-out customers have other orders, things and words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..agents import AgentConfig, ToolAgent, ToolLimits
from ..core.environment.task import TaskEnvironment, load_tasks
from ..core.facts import provided_topics
from ..core.reward import CompositeReward, CorrectnessReward, RewardFunction, RewardResult
from ..core.rewards.task_completion import TaskCompletionReward
from ..core.scenario import Scenario
from ..core.shipped import shipped
from ..core.trajectory import ConversationTurn
from .shop import Shop

MODEL = "smollm2-135m-instruct"
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
