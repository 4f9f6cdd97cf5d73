"""The settings that `AutoTrainer` picks from what an untrained agent does, each with its reason.

Invariant: a pure function of the baseline. What the caller named stays as it was named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.profiles import COMMON
from ..tracking.health import NEAR_MAXIMUM
from ..tracking.health.of_rewards import SAME_REWARD_SHARE
from .baseline import Baseline

WEAK = 0.05
"""Share of the attainable reward below which the samples of a group hardly differ."""
CUT = 0.3
"""Share of replies that may be cut."""
LONG = 1024
"""Tokens of a conversation from which on fewer of them go through the model at once."""
EVALUATED = 4
"""Conversations that are trained on for each one that is evaluated, at least."""
RATES = ((10**7, 1e-3), (10**9, 2e-5), (8 * 10**9, 1e-5))
"""Parameters up to which a learning rate is taken; larger models bear less of it."""
SMALLEST_RATE = 5e-6
LARGE_GROUPS = 16
CONVERSATIONS = 32
"""Of a step: a mean over fewer is mostly luck."""


@dataclass(frozen=True)
class Choice:
    """One setting of the run, or of the agent ("temperature", "max_new_tokens")."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value}: {self.reason}"


Rule = Callable[[Baseline, Mapping[str, Any]], Sequence[Choice]]
"""(what was seen, the agent's settings) -> what follows from it."""


def choose(seen: Baseline, agent: Mapping[str, Any], given: Collection[str] = ()) -> list[Choice]:
    """Everything that follows from a baseline.

    Args:
        seen: before training.
        agent: its `temperature` and `max_new_tokens`.
        given: settings that the caller named.
    """
    if seen.reward is None:
        return []
    rules = RULES if "data_file" not in given else (_rate, _evaluations)  # the others are about what is played
    return [choice for rule in rules for choice in rule(seen, agent) if choice.name not in given]


def _profile(seen: Baseline, _: Mapping[str, Any]) -> list[Choice]:
    most = seen.attainable if seen.attainable is not None and seen.attainable > 0 else 1.0
    if seen.diversity is not None and 0 < seen.diversity < WEAK * most:
        reason = f"rewards inside a group differ by {seen.diversity:.3f} only, which takes small steps"
        return [Choice("profile", "conservative", reason)]
    return [Choice("profile", "balanced", "a good first choice, and nothing speaks for another")]


def _rate(seen: Baseline, _: Mapping[str, Any]) -> list[Choice]:
    if seen.parameters is None:
        return []
    rate = next((rate for most, rate in RATES if seen.parameters <= most), SMALLEST_RATE)
    return [Choice("learning_rate", rate, f"the model has {seen.parameters / 1e6:.3g} million parameters")]


def _temperature(seen: Baseline, agent: Mapping[str, Any]) -> list[Choice]:
    if seen.alike is None or seen.alike <= SAME_REWARD_SHARE or agent["temperature"] >= 1:
        return []
    reason = f"at {agent['temperature']:g} all conversations of {seen.alike:.0%} of the groups are the same"
    return [Choice("temperature", 1.0, reason)]


def _replies(seen: Baseline, agent: Mapping[str, Any]) -> list[Choice]:
    if seen.cut is None or seen.cut <= CUT:
        return []
    return [Choice("max_new_tokens", 2 * agent["max_new_tokens"], f"{seen.cut:.0%} of the replies are cut")]


def _step(seen: Baseline, _: Mapping[str, Any]) -> list[Choice]:
    """Size of the groups, and conversations of a step: 32 of them, in passes that fit."""
    found = []
    per_pass, why = 8, "32 conversations a step"
    if seen.tokens is not None and seen.tokens > LONG:
        per_pass, why = 2, f"32 conversations a step, of {seen.tokens:.0f} tokens each, in passes that need less memory"
    if seen.equal is not None and seen.equal > SAME_REWARD_SHARE and not _solved(seen):
        found.append(Choice("num_generations", LARGE_GROUPS, f"{seen.equal:.0%} of groups of 4 have equal rewards"))
    found.append(Choice("batch_size", per_pass, why))
    found.append(Choice("gradient_accumulation_steps", CONVERSATIONS // per_pass, why))
    return found


def _evaluations(seen: Baseline, _: Mapping[str, Any]) -> list[Choice]:
    played = COMMON["eval_samples"] * seen.scenarios
    if EVALUATED * played <= COMMON["eval_every"]:
        return []
    return [Choice("eval_every", EVALUATED * played, f"an evaluation plays {played} conversations")]


RULES: Sequence[Rule] = (_profile, _rate, _temperature, _replies, _step, _evaluations)


def remarks(seen: Baseline) -> list[str]:
    """What no setting mends."""
    found = []
    if seen.reward is None:
        found.append("the settings of the profile are kept, as nothing could be measured")
    if _solved(seen):
        found.append("the agent has nearly all of the attainable reward already: there is little left to learn")
    if seen.conversations and seen.failed / seen.conversations > 0.05:
        found.append(f"{seen.failed} of {seen.conversations} conversations failed or had no score: mend that first")
    if seen.truncated is not None and seen.truncated > CUT:
        found.append(f"{seen.truncated:.0%} of the conversations were cut by a limit: raise max_turns or the context")
    return found


def _solved(seen: Baseline) -> bool:
    return seen.attainable is not None and seen.reward is not None and seen.reward >= NEAR_MAXIMUM * seen.attainable
