"""`train_customer_service_with_trl`: a customer-service agent from a model's name, in one call."""

from __future__ import annotations

from typing import Any

from ...agents import AgentConfig
from ...agents.multi_turn import MultiTurnAgent
from ...core.environment import ConversationEnvironment
from ...core.reward import (
    CompositeReward,
    ConcisenessReward,
    CorrectnessReward,
    EngagementReward,
    HelpfulnessReward,
    SafetyReward,
)
from ...core.scenario import load_scenarios
from ...core.shipped import shipped
from .config import TRLGRPOConfig
from .data import TrainData
from .train import train_with_trl_grpo

SYSTEM_PROMPT = (
    "You are a customer service agent. Answer the question in one short sentence. Use only the facts you are given."
)
SCENARIOS = "data/customer_service_scenarios.json"


async def train_customer_service_with_trl(
    model_name: str | None = None,
    num_episodes: int | None = None,
    output_dir: str | None = None,
    use_lora: bool | None = None,
    lora_r: int | None = None,
    *,
    train_data: TrainData | None = None,
    quiet: bool = False,
    **settings: Any,
) -> MultiTurnAgent:
    """Train a customer-service agent on the scenarios that come with the package.

    Args:
        model_name, num_episodes, output_dir, use_lora, lora_r: as in `TRLGRPOConfig`, whose defaults hold.
        train_data: conversations to play instead of those scenarios.
        quiet: no progress and no report on the terminal.
        **settings: any other field of `TRLGRPOConfig`.

    Returns:
        The trained agent.

    Raises:
        StatesetError: see `train_with_trl_grpo`.
    """
    named = {
        "model_name": model_name,
        "num_episodes": num_episodes,
        "output_dir": output_dir,
        "use_lora": use_lora,
        "lora_r": lora_r,
    }
    config = TRLGRPOConfig(**{name: value for name, value in named.items() if value is not None}, **settings)
    return await train_customer_service(config, train_data=train_data, quiet=quiet)


async def train_customer_service(
    config: TRLGRPOConfig, *, train_data: TrainData | None = None, quiet: bool = False
) -> MultiTurnAgent:
    """The same from a config, such as `TRLGRPOConfig.from_env()`."""
    agent = MultiTurnAgent(AgentConfig(config.model_name, system_prompt=SYSTEM_PROMPT, **config.sampling))
    environment = ConversationEnvironment(load_scenarios(shipped(SCENARIOS)))
    return await train_with_trl_grpo(config, agent, environment, customer_service_reward(), train_data, quiet=quiet)


def customer_service_reward() -> CompositeReward:
    """What a good answer is: the asked fact was stated, in a helpful, safe, short and friendly sentence."""
    return CompositeReward(
        [
            CorrectnessReward(weight=0.5),
            HelpfulnessReward(weight=0.2),
            SafetyReward(weight=0.1),
            ConcisenessReward(weight=0.1),
            EngagementReward(weight=0.1),
        ],
        name="customer_service",
    )
