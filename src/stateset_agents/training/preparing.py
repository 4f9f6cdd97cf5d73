"""What a model needs before it can be trained: an engine in this process, its adapters, and a learner.

Invariant: what makes training impossible is refused before the model is changed.
"""

from __future__ import annotations

from ..agents.multi_turn import MultiTurnAgent
from ..config.training import TrainingConfig
from ..core.errors import ConfigError, ModelError
from ..engines.local import LocalEngine
from ..models import LoadedModel, attach_lora, has_lora
from .learner import Learner


def require_engine(agent: MultiTurnAgent, config: TrainingConfig, *, resumes: bool) -> LocalEngine:
    """The engine of an agent that can be trained.

    Args:
        agent: initialized.
        config: of the run.
        resumes: whether weights of an earlier part of the run follow.

    Raises:
        ConfigError: the agent resumes a run with a KL term and is not as it was at the run's beginning.
        ModelError: the agent's model is not in this process.
    """
    engine = agent.runtime.engine
    if not isinstance(engine, LocalEngine):
        raise ModelError("only a model in this process can be trained: the agent's engine is a remote one")
    if resumes and engine.version and config.beta and config.lora is None:
        raise ConfigError(
            "this agent was trained already, and beta needs the weights with which the run began: resume with an "
            "agent that is made anew"
        )
    return engine


def make_learner(loaded: LoadedModel, config: TrainingConfig, *, temperature: float, compute: str | None) -> Learner:
    """Attach adapters if there are to be any, and give the model its optimizer and its precision.

    Raises:
        ConfigError: the agent has adapters, and the settings say nothing of any.
    """
    settings = config.lora
    if settings is None and has_lora(loaded):
        raise ConfigError(
            "the agent has LoRA adapters from an earlier training: set lora to train them further, or load the "
            "agent from what was saved, where they are merged"
        )
    if settings is not None and not has_lora(loaded):
        attach_lora(
            loaded,
            r=settings.r,
            alpha=settings.alpha,
            target_modules=settings.target_modules or "all-linear",
            seed=config.seed,
        )
    return Learner(
        loaded,
        config,
        total_steps=config.plan.total_steps,
        warmup_steps=config.plan.warmup_steps,
        temperature=temperature,
        compute=compute,
    )
