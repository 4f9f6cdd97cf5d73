"""Keys that are known but have no effect in this run, each with the reason.

Invariant: a key that would change what the run means is refused when it cannot be honoured. One that would only make
it faster, or that belongs to another kind of agent, is listed once and the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

from .algorithms import OFF
from .profiles import COMMON
from .schema import AgentSection, EnvironmentSection
from .training import TrainingConfig

_ADAM = (
    "learning_rate",
    "lr_schedule",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)


def refused(agent: AgentSection, environment: EnvironmentSection) -> list[tuple[tuple[str, str], str]]:
    """(path, message) of choices that this version cannot honour."""
    found = []
    if agent.type == "tool" and not agent.tools and environment.type != "custom":
        found.append(
            (
                ("agent", "type"),
                'agent.type is "tool", and the agent has none.\n'
                "  tools: [{name: calculator, function: calculator_function}], or a dotted name of your own function",
            )
        )
    return found


def unused_keys(
    agent: AgentSection, environment: EnvironmentSection, training: TrainingConfig, origins: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(key, reason) of keys that were given and have no effect.

    Args:
        agent: the resolved section.
        environment: the resolved section.
        training: the resolved hyperparameters.
        origins: dotted key to origin, of the keys that the user gave.
    """
    of_tools = f'it belongs to agents of type "tool", and this one is "{agent.type}"'
    tasks, of_scenarios = environment.type == "task", 'an environment of type "task" plays tasks_file'
    useless = [
        *((f"agent.{name}", agent.type != "tool", of_tools) for name in ("tools", "tool_format", "tool_limits")),
        ("environment.tasks_file", not tasks, 'tasks belong to environments of type "task"'),
        ("environment.success_criteria", not tasks, 'it belongs to type "task"; scenarios have their own'),
        *((f"environment.{name}", tasks, of_scenarios) for name in ("scenarios", "scenarios_file")),
        ("training.multi_gpu", training.multi_gpu, "this version trains on one device"),
        (
            "training.lora.dropout",
            training.lora is not None and training.lora.dropout > 0,
            "dropout is off while training, so that sampler and learner are the same policy",
        ),
        (
            "training.patience",
            not training.early_stopping and training.patience != COMMON["patience"],
            "early_stopping is off",
        ),
        (
            "training.kl_estimator",
            training.beta == 0 and training.kl_estimator != COMMON["kl_estimator"],
            "beta is 0, so there is no KL term",
        ),
    ]
    useless += _idle(training)
    natural = training.recipe.kind == "natural"
    useless += [(f"training.{name}", natural, "the length of a natural step follows from max_kl") for name in _ADAM]
    if training.data_file is not None:
        useless += _beside_a_data_file(training)
    return [(key, reason) for key, holds, reason in useless if holds and key in origins]


def _idle(training: TrainingConfig) -> list[tuple[str, bool, str]]:
    """Settings of something that is switched off."""
    no_kl = "beta is 0, so there is no KL term"
    found = [
        ("discount", training.credit == "trajectory", "credit is trajectory: what its turns earned is added up"),
        ("overlong_penalty", training.overlong_share == 0, "overlong_share is 0"),
        ("sampler_correction_cap", training.sampler_correction == "none", "sampler_correction is none"),
        ("kl_correction", training.beta == 0, no_kl),
        ("kl_in", training.beta == 0, no_kl),
    ]
    return [(f"training.{name}", idle and getattr(training, name) != OFF[name], why) for name, idle, why in found]


def _beside_a_data_file(training: TrainingConfig) -> list[tuple[str, bool, str]]:
    """What belongs to conversations that are played: with `data_file` only evaluations play any."""
    never, elsewhere = training.eval_every == 0, training.eval_scenarios_file is not None
    why = "training reads data_file, and eval_every is 0, so that nothing is played"
    scenarios = "training reads data_file, and evaluations play eval_scenarios_file" if not never else why
    found = [(f"environment.{name}", never or elsewhere, scenarios) for name in ("scenarios", "scenarios_file")]
    evaluations = ("eval_scenarios_file", "eval_samples", "max_concurrent", "environment_timeout", "reward_timeout")
    others = ("environment.max_turns", "environment.persona", "environment.user.type", "rewards", "combination_method")
    rules = "training reads data_file, and its rules look at conversations that are played"
    found.append(("training.auto_adjust", training.auto_adjust, rules))
    return found + [(key, never, why) for key in (*others, *(f"training.{name}" for name in evaluations))]
