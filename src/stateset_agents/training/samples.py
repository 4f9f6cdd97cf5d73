"""Conversations to training rows: the advantage and the weight of every trained token.

Invariant: everything that a step's conversations have in common (baselines, deviations, token counts) is settled here,
before the step is cut into micro-batches; so the cut cannot change the gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algorithms import (
    above_batch,
    generalized_advantages,
    group_relative,
    leave_one_out,
    normalize_then_sum,
    standardized,
    token_weights,
    turn_credit,
)
from ..algorithms.advantages import SAME_REWARD
from ..config.training import TrainingConfig
from ..core.errors import ConfigError
from ..core.trajectory import TrajectoryGroup
from .conversations import Conversation, conversations_of
from .packing import Sample


@dataclass(frozen=True)
class Measured:
    """What a pass before the update found about a row's trained tokens.

    Attributes:
        values: of the value head, before each token.
        kl: log-prob less that of the reference.
    """

    values: Sequence[float]
    kl: Sequence[float]


Measurements = Mapping[int, Measured]
"""By `id` of the row."""


def policy_samples(
    talks: Sequence[Conversation], config: TrainingConfig, max_tokens: int, measured: Measurements | None = None
) -> list[Sample]:
    """Rows with advantages and weights, for every algorithm that follows a policy gradient.

    Conversations without advantage count in the weights, and need no forward pass unless a term of the loss is there
    without one.

    Args:
        talks: of one optimizer step.
        config: algorithm settings.
        max_tokens: the most tokens that a conversation can have sampled, the divisor of the "constant" normalization.
        measured: values and KL of every row, for algorithms that need them.

    Returns:
        Samples in group order; empty if there is nothing to learn from: no trained token with an advantage.
    """
    lengths = torch.tensor([talk.tokens for talk in talks])
    if not len(lengths) or not int(lengths.sum()):
        return []
    weights = token_weights(lengths, config.loss_normalization, constant=max_tokens).tolist()
    if config.recipe.baseline == "value":
        columns = _estimated(talks, config, measured or {})
    else:
        columns = _compared(talks, config, measured or {})
    always = (config.beta != 0.0 and config.kl_in == "loss") or config.entropy_coef > 0.0
    always = always or config.top_entropy_share < 1.0  # a quantile is one of all tokens of the step
    samples = [
        Sample(row, advantage, weights[place], place, talk.group, values, returns)
        for place, (talk, parts) in enumerate(zip(talks, columns, strict=True))
        for row, (advantage, values, returns) in zip(talk.rows, parts, strict=True)
        if always or values is not None or _any(advantage)
    ]
    return samples if any(_any(sample.advantage) for sample in samples) else []


def samples_of(groups: Sequence[TrajectoryGroup], config: TrainingConfig, max_tokens: int) -> list[Sample]:
    """`policy_samples` of groups, for algorithms that need no pass before the update."""
    return policy_samples(conversations_of(groups, config), config, max_tokens)


def _any(advantage: float | Sequence[float]) -> bool:
    return any(advantage) if isinstance(advantage, Sequence) else advantage != 0.0


_Columns = list[tuple[float | Sequence[float], Sequence[float] | None, Sequence[float] | None]]
"""Advantages, values and returns of the trained tokens, for each row of a conversation."""


def _compared(talks: Sequence[Conversation], config: TrainingConfig, measured: Measurements) -> list[_Columns]:
    """Advantages from rewards alone: one for each conversation, or for each turn."""
    penalty = config.beta if config.kl_in == "reward" else 0.0
    penalties = [penalty * _total_kl(talk, measured) if penalty else 0.0 for talk in talks]
    rewards = torch.tensor([t.reward - p for t, p in zip(talks, penalties, strict=True)], dtype=torch.float64)
    if config.recipe.baseline == "batch":
        advantages = above_batch(rewards)
        if config.scale_rewards == "batch":
            advantages = standardized(advantages)
    elif config.reward_aggregation == "normalize_then_sum":
        advantages = _each_then_sum(talks)
    else:
        table, scored = _table(talks, rewards)
        if config.recipe.baseline == "leave_one_out":
            advantages = leave_one_out(table)[scored]
            if config.scale_rewards == "batch":
                advantages = standardized(advantages)
        else:
            advantages = group_relative(table, scale=config.scale_rewards)[scored]
    if config.credit != "turn":
        return [
            [(advantage, None, None)] * len(talk.rows)
            for talk, advantage in zip(talks, advantages.tolist(), strict=True)
        ]
    columns: list[_Columns] = []
    for _, members in _by_group(talks):
        lengths = [talks[place].turn_lengths for place in members]
        returns = [talks[place].returns(config.discount) for place in members]
        credit = turn_credit(advantages[members], returns, lengths, scale=config.scale_rewards != "none")
        for place, turns in zip(members, credit, strict=True):
            columns.append([([turns[turn] for turn in row], None, None) for row in talks[place].turns])
    return columns


def _estimated(talks: Sequence[Conversation], config: TrainingConfig, measured: Measurements) -> list[_Columns]:
    """Advantages from the value head, over tokens or over turns."""
    penalty = config.beta if config.kl_in == "reward" else 0.0
    columns: list[_Columns] = []
    flat: list[float] = []
    for talk in talks:
        found = [measured[id(row)] for row in talk.rows]
        turns = [turn for row in talk.turns for turn in row]
        order = sorted(range(len(turns)), key=turns.__getitem__)  # rows may alternate between turns
        values = [value for one in found for value in one.values]
        kl = [value for one in found for value in one.kl]
        earned = talk.earned()
        advantages, returns = [0.0] * len(turns), [0.0] * len(turns)
        if config.credit == "token":
            rewards = [-penalty * kl[place] for place in order]
            for at, place in enumerate(order):
                if at + 1 == len(order) or turns[order[at + 1]] != turns[place]:
                    rewards[at] += earned[turns[place]]
            steps = [[place] for place in order]
        else:
            steps = [[place for place in order if turns[place] == turn] for turn in sorted(set(turns))]
            rewards = [
                earned[turns[places[0]]] - penalty * math.fsum(kl[place] for place in places) for places in steps
            ]
        estimated = generalized_advantages(
            rewards, [values[places[0]] for places in steps], discount=config.discount, decay=config.gae_lambda
        )
        for places, advantage, target in zip(steps, *estimated, strict=True):
            for place in places:
                advantages[place], returns[place] = advantage, target
                values[place] = values[places[0]] if config.credit == "turn" else values[place]
        parts: _Columns = []
        at = 0
        for row in talk.turns:
            piece = slice(at, at + len(row))
            parts.append((advantages[piece], values[piece], returns[piece]))
            at += len(row)
        columns.append(parts)
        flat.extend(advantages)
    if config.scale_rewards == "batch":
        scaled = iter(standardized(torch.tensor(flat, dtype=torch.float64)).tolist())
        columns = [
            [(list(itertools.islice(scaled, len(values or ()))), values, returns) for _, values, returns in parts]
            for parts in columns
        ]
    return columns


def _total_kl(talk: Conversation, measured: Measurements) -> float:
    return math.fsum(value for row in talk.rows for value in measured[id(row)].kl)


def _by_group(talks: Sequence[Conversation]) -> list[tuple[int, list[int]]]:
    """Places of each group's conversations."""
    groups: dict[int, list[int]] = {}
    for place, talk in enumerate(talks):
        groups.setdefault(talk.group, []).append(place)
    return list(groups.items())


def _table(talks: Sequence[Conversation], rewards: Tensor) -> tuple[Tensor, Tensor]:
    """(groups, samples) with NaN where a group has fewer than the largest one, and where the numbers are."""
    groups = _by_group(talks)
    table = torch.full((len(groups), max(len(places) for _, places in groups)), torch.nan, dtype=torch.float64)
    for index, (_, places) in enumerate(groups):
        table[index, : len(places)] = rewards[places]
    return table, ~table.isnan()


def _each_then_sum(talks: Sequence[Conversation]) -> Tensor:
    """See `normalize_then_sum`."""
    parts = [talk.trajectory.components for talk in talks]
    if any(len(part) < 2 or part.keys() != parts[0].keys() for part in parts):
        raise ConfigError(
            "reward_aggregation is 'normalize_then_sum', but the reward is no sum of several rewards: name several "
            "(under rewards, or in a CompositeReward that adds them up), or take 'sum_then_normalize'"
        )
    weights = torch.tensor([weight for _, weight in parts[0].values()], dtype=torch.float64)
    tables = [_table(talks, torch.tensor([part[name][0] for part in parts], dtype=torch.float64)) for name in parts[0]]
    return normalize_then_sum(torch.stack([table for table, _ in tables], dim=-1), weights)[tables[0][1]]


def _above(high: float, low: float) -> bool:
    """Whether two rewards differ by more than rounding."""
    return high - low > SAME_REWARD * max(1.0, abs(high), abs(low))


def preference_samples(talks: Sequence[Conversation]) -> list[Sample]:
    """The best and the worst conversation of each group, as a bundle: chosen first, then rejected.

    Groups without a difference give none. The pair's number is `bundle`; a chosen row has advantage 1, a rejected one
    -1, and each weighs 1 / (number of pairs).
    """
    pairs = []
    for _, places in _by_group(talks):
        held = [place for place in places if talks[place].tokens]
        if not held:
            continue
        best = max(held, key=lambda place: talks[place].reward)
        worst = min(held, key=lambda place: talks[place].reward)
        if _above(talks[best].reward, talks[worst].reward):
            pairs.append((best, worst))
    return [
        Sample(row, sign, 1.0 / len(pairs), place, talks[place].group, bundle=number)
        for number, pair in enumerate(pairs)
        for sign, place in zip((1.0, -1.0), pair, strict=True)
        for row in talks[place].rows
    ]


def likelihood_samples(talks: Sequence[Conversation], config: TrainingConfig, max_tokens: int) -> list[Sample]:
    """The conversations to imitate: of each group that has a difference, the best one of those with trained tokens.

    None if that is the worst of the group. Without a baseline, all that have trained tokens.
    """
    everything = config.recipe.baseline == "none"
    chosen = [place for place, talk in enumerate(talks) if everything and talk.tokens]
    for _, places in [] if everything else _by_group(talks):
        lowest = min(talks[place].reward for place in places)
        best = max((place for place in places if talks[place].tokens), key=lambda at: talks[at].reward, default=None)
        if best is not None and _above(talks[best].reward, lowest):
            chosen.append(best)
    if not chosen:
        return []
    lengths = torch.tensor([talks[place].tokens for place in chosen])
    weights = token_weights(lengths, config.loss_normalization, constant=max_tokens).tolist()
    return [
        Sample(row, 1.0, weight, place, talks[place].group)
        for place, weight in zip(chosen, weights, strict=True)
        for row in talks[place].rows
    ]
