"""`train_with_trl_grpo`: an agent, its environment and its reward under TRL's GRPO trainer."""

from __future__ import annotations

import copy
import sys
from typing import TypeVar

from ...agents.multi_turn import MultiTurnAgent, require_begun
from ...core.environment import Environment
from ...core.errors import ConfigError, is_out_of_memory
from ...core.reward import DEFAULT_NOTICE, RewardFunction, as_reward, default_reward
from ...tracking.progress import Progress
from ..exclusive import only_run_of, out_of_memory
from .config import TRLGRPOConfig
from .data import TrainData, scenarios_of
from .library import require_trl
from .machine import require_machine, wanted_device

AgentT = TypeVar("AgentT", bound=MultiTurnAgent)

MEMORY_ADVICE = (
    "use per_device_train_batch_size=1, gradient_checkpointing=True, use_lora=True, on a GPU use_8bit=True or\n"
    '  use_4bit=True, a smaller max_prompt_length and max_completion_length, or device_map="cpu" to train in the\n'
    "  machine's main memory"
)


async def train_with_trl_grpo(
    config: TRLGRPOConfig,
    agent: AgentT,
    environment: Environment,
    reward_model: RewardFunction | object | None = None,
    train_data: TrainData | None = None,
    *,
    quiet: bool = False,
) -> AgentT:
    """Train an agent with TRL's GRPOTrainer.

    Conversations of any number of turns are held by the agent and the environment as in `train`; TRL computes the loss
    and moves the weights.

    Args:
        config: every setting; see `config.validate()` for what to think about.
        agent: trained in place; initialized if it is not yet.
        environment: its scenarios are played, a group of conversations each.
        reward_model: a reward, an async function of (turns, context), or a list of rewards. Without one a stated
            default is used.
        train_data: conversations to play instead of the environment's scenarios: `{"messages": [...]}` records or the
            path of a JSONL file of them; see `data`.
        quiet: no progress and no report on the terminal.

    Returns:
        The same agent, with trained weights. `<output_dir>/final_model` holds it. Where rounded weights were trained on
        a GPU, an agent that was not initialized loads them at its next use.

    Raises:
        ConfigError: TRL is not installed, a setting is wrong, or this machine cannot do what is asked.
        DataError: the training data is malformed, or a scenario leaves no room for a reply.
        ModelError: the model cannot be loaded or does not fit.
        RunFolderError: the output folder cannot be written or holds a run already.
        TrainingStopped: the run cannot go on; the message says why.
        asyncio.CancelledError: the task was cancelled. The weights that adapters were put on are as they were;
            checkpoints that were written stay.
    """
    if not isinstance(config, TRLGRPOConfig):
        raise ConfigError(f"train_with_trl_grpo(config=...) got {config!r}; pass a TRLGRPOConfig")
    if not isinstance(agent, MultiTurnAgent):
        raise ConfigError(f"train_with_trl_grpo(agent=...) got {agent!r}; pass a MultiTurnAgent or a subclass of it")
    require_begun(agent)
    if not isinstance(environment, Environment):
        raise ConfigError(f"train_with_trl_grpo(environment=...) got {environment!r}; pass an Environment")
    reward = default_reward() if reward_model is None else as_reward(reward_model)
    if train_data is not None:
        scenarios = scenarios_of(train_data)
        environment = copy.copy(environment)
        environment.scenarios = scenarios
    require_trl()
    require_machine(config, _device_of(agent, config))
    if reward_model is None and not quiet:
        with Progress() as progress:
            progress.say(DEFAULT_NOTICE)
    from .run import TRLRun

    with only_run_of(agent):
        try:
            text = await TRLRun(config, agent, environment, reward, quiet).execute()
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, MEMORY_ADVICE) from error
            raise
    if not quiet:
        sys.stdout.write(text)
    return agent


def _device_of(agent: MultiTurnAgent, config: TRLGRPOConfig) -> str | None:
    """Where the model is, or is asked to be."""
    loaded = agent.runtime.model if agent.initialized else None
    return str(loaded.device) if loaded is not None else wanted_device(config) or agent.config.device
