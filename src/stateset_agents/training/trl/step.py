"""How large a step under TRL's trainer is, from below.

Invariant: conversations are held by this package's engine, and so counted as in any run. TRL reads every one of them
from its first token, whatever others of its group begin with, and computes in half precision without a copy of the
weights.
"""

from __future__ import annotations

from dataclasses import replace

from ...agents.config import AgentConfig
from ...core.environment import Environment
from ..step_size import StepSize, played
from .config import TRLGRPOConfig
from .machine import Precision
from .plan import make_plan

_IN_FLIGHT = 64
"""Conversations that `collect_groups` holds at once."""


def step_of(config: TRLGRPOConfig, agent: AgentConfig, environment: Environment, device: str) -> StepSize:
    """The size of a run's steps.

    Args:
        config, agent, environment: of the run.
        device: where the model is trained.
    """
    opening, rest = played(replace(agent, **config.sampling), environment)
    conversations = make_plan(config).conversations
    precision = Precision.of(config, device)
    return StepSize(
        opening=opening,
        rest=rest,
        in_flight=min(_IN_FLIGHT, conversations),
        group=1,
        per_pass=config.per_device_train_batch_size,
        per_step=conversations,
        half=precision.bf16 or precision.fp16,
        recomputes=config.gradient_checkpointing,
        dtype=agent.dtype,
        adapters=config.use_lora,
        reference=config.beta > 0,
        recasts=False,
    )
