"""Fits a reward to preferences.

Invariant: a pair has one part only. Most pairs are fitted, some say when to stop, and the accuracy that is reported is
that of pairs that did neither; pairs of the same prompt are in the same part, so that what was learned of a prompt is
never tested on it. The same pairs, settings and seed give the same reward, to the bit.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..algorithms.bradley_terry import fit_linear
from ..core.errors import ConfigError, DataError, ModelError
from ..core.messages import refuse
from ..core.records import Record, read_records
from ..core.tool_calls import replies_at
from ..core.trajectory import ConversationTurn
from ..evaluation.statistics import share_interval, wilson
from ..rewards.backbone import Backbone, Pooling
from ..rewards.learned import LearnedReward
from ..rewards.preference_model import FitReport, PreferenceModel

Conversation = Sequence[ConversationTurn | Mapping[str, str]]
Pairs = str | Path | Sequence[Record] | Sequence[tuple[Conversation, Conversation]]
Messages = tuple[Mapping[str, str], ...]

LEAST_PAIRS = 20
"""With fewer, the interval of the accuracy on the held-out fifth always has a toss of a coin in it."""
LEAST_PROMPTS = 10
"""With fewer, no prompts are held out but pairs of them."""
HELD_OUT, WATCHED = 0.2, 0.15
"""Shares of the prompts (or pairs)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pair:
    place: str
    chosen: Messages
    rejected: Messages

    @property
    def prompt(self) -> str:
        """What the better conversation begins with, up to the first reply."""
        return str(self.chosen[: next(at for at, message in enumerate(self.chosen) if message["role"] == "assistant")])

    @property
    def told(self) -> bool:
        return self.chosen[0]["role"] == "system" or self.rejected[0]["role"] == "system"


class NeuralRewardTrainer:
    """Fits a linear head on a frozen language model to pairs of a better and a worse conversation.

    The loss is that of Bradley and Terry, -log sigmoid(r_chosen - r_rejected). Vectors of conversations are computed
    once and kept, so that fitting again with other settings costs no pass through the model.

    Args:
        model: name of the frozen model: any that `models.load_model` takes, other than a stub's.
        pooling: which of its hidden states are used; see `rewards.backbone.Backbone`.
        l2: weight of the penalty on the head, whose inputs have deviation 1; above 0.
        seed: of the split into fitted, watched and held-out pairs; the fit itself draws no random numbers.
        dtype: of the model.
        device: of the model; None: the first CUDA GPU if there is one, else the CPU.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        model: str,
        *,
        pooling: Pooling = "both",
        l2: float = 0.1,
        seed: int = 0,
        dtype: str = "auto",
        device: str | None = None,
    ) -> None:
        if not (math.isfinite(l2) and l2 > 0):
            problem = "it must be a number above 0: without it, pairs that can all be told apart have no finite answer"
            raise ConfigError(f"l2 is {l2}; {problem}")
        try:
            self.backbone = Backbone(model, pooling, dtype=dtype, device=device)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.l2 = l2
        self.seed = seed
        self._vectors: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def fit(self, pairs: Pairs) -> LearnedReward:
        """Fit a reward, whose `model.report` says how well it orders pairs that had no part in it.

        Args:
            pairs: a JSONL file of pairs as `training.data_file` takes it, its records, or conversations as lists of
                turns or messages, the better one first.

        Raises:
            DataError: there are too few different pairs, some cannot be read, or nothing can be learned from them.
            ModelError: the model cannot be loaded, or gives numbers that are not finite.
        """
        known = _read(pairs)
        chosen, rejected, kept = self._vectors_of(known)
        parts, unit = _split([known[place].prompt for place in kept], self.seed)
        fitted, watched, held = (torch.tensor(part) for part in parts)
        both = torch.cat([chosen[fitted], rejected[fitted]])
        spread = both.std(dim=0)
        # What is the same in every conversation says nothing, and dividing by next to nothing would make much of it.
        spread = torch.where(spread > 1e-9 * spread.max(), spread, math.inf)
        differences = (chosen - rejected) / spread
        if not bool(differences[fitted].any()):
            raise DataError(
                f"{self.backbone.name} sees no difference between the chosen and the rejected conversation of any pair"
            )
        found = fit_linear(differences[fitted], differences[watched], l2=self.l2)
        if not found.steps:
            raise DataError(
                f"nothing was learned: whatever tells the {len(fitted)} fitted pairs apart says no more than a toss of "
                f"a coin about the {len(watched)} others that were watched. Give more pairs, or ones that agree"
            )
        weight = found.weight / spread
        values = both @ weight
        report = FitReport(
            *_accuracy(differences[held] @ found.weight > 0, [known[kept[place]].prompt for place in parts[2]], unit),
            held_out=len(held),
            fitted=len(fitted),
            watched=len(watched),
            prompts=len({known[place].prompt for place in kept}),
            unit=unit,
            steps=found.steps,
            loss=found.loss,
            watched_loss=found.watched_loss,
            l2=self.l2,
            seed=self.seed,
        )
        scale = values.std()
        told = any(known[place].told for place in kept)
        model = PreferenceModel(self.backbone, weight / scale, float(-values.mean() / scale), told, report)
        log.info("learned reward on %s: it %s", self.backbone.name, report.text())
        return LearnedReward.of(model)

    def _vectors_of(self, pairs: Sequence[_Pair]) -> tuple[Tensor, Tensor, list[int]]:
        """Vectors of the better and the worse conversations, and the places of the pairs, each pair once.

        Raises:
            DataError: pairs that cannot be read, several at once; or too few.
        """
        problems: list[str] = []
        places: dict[tuple[object, object], int] = {}
        for place, pair in enumerate(pairs):
            try:
                sides = self.backbone.read(pair.chosen), self.backbone.read(pair.rejected)
            except (DataError, ModelError) as error:
                problems.append(f"{pair.place}: {error}")
                continue
            if sides[0] == sides[1]:
                problems.append(f"{pair.place}: chosen and rejected are the same, so there is nothing to prefer")
            places.setdefault(sides, place)
        refuse(problems)
        if len(places) < LEAST_PAIRS:
            raise DataError(
                f"there are {len(places)} different pairs; a reward is fitted to at least {LEAST_PAIRS}, and hundreds "
                "are better"
            )
        vectors = [[self._vector(*side) for side in sides] for sides in places]  # type: ignore[misc]
        chosen, rejected = (torch.stack([pair[side] for pair in vectors]) for side in (0, 1))
        return chosen, rejected, list(places.values())

    def _vector(self, ids: tuple[int, ...], start: int) -> Tensor:
        if (ids, start) not in self._vectors:
            self._vectors[ids, start] = self.backbone.vector(ids, start)
        return self._vectors[ids, start]


def _read(pairs: Pairs) -> list[_Pair]:
    read, problems = [], []
    for number, pair in enumerate(_given(pairs)):
        place, sides = _sides(number, pair)
        if len(sides) != 2:
            problems.append(f"{place} has {len(sides)} conversations; a pair has two, the better one first")
            continue
        ends = [replies_at([ConversationTurn(message["role"], "") for message in side]) for side in sides]
        if not all(ends):
            problems.append(f"{place}: a conversation of it has no reply of the assistant")
            continue
        chosen, rejected = (side[: end[-1] + 1] for side, end in zip(sides, ends, strict=True))
        read.append(_Pair(place, chosen, rejected))
    refuse(problems)
    return read


def _given(pairs: Pairs) -> Sequence[Record | tuple[Conversation, Conversation]]:
    if isinstance(pairs, (str, Path)):
        return read_records(Path(pairs), pairs=True)
    return pairs


def _sides(number: int, pair: Record | tuple[Conversation, Conversation]) -> tuple[str, list[Messages]]:
    if isinstance(pair, Record):
        return pair.place, [(*pair.prompt, *answer) for answer in pair.answers]
    return f"pairs[{number}]", [tuple(_message(turn) for turn in side) for side in pair]


def _message(turn: ConversationTurn | Mapping[str, str]) -> Mapping[str, str]:
    return turn.to_message() if isinstance(turn, ConversationTurn) else turn


def _split(prompts: Sequence[str], seed: int) -> tuple[tuple[list[int], list[int], list[int]], str]:
    """Places of the pairs to fit, to watch and to hold out, and what was drawn: prompts, or pairs if they are few."""
    by_prompt: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(place)
    many = len(by_prompt) >= LEAST_PROMPTS
    units = list(by_prompt.values()) if many else [[place] for place in range(len(prompts))]
    random.Random(seed).shuffle(units)
    held = math.ceil(HELD_OUT * len(units))
    watched = held + math.ceil(WATCHED * len(units))
    parts = units[watched:], units[held:watched], units[:held]
    fitted, watch, hold = (sorted(_flat(part)) for part in parts)
    return (fitted, watch, hold), "prompt" if many else "pair"


def _flat(units: Iterable[Sequence[int]]) -> list[int]:
    return [place for unit in units for place in unit]


def _accuracy(right: Tensor, prompts: Sequence[str], unit: str) -> tuple[float, float, float]:
    """Share of the pairs that are ordered right, and its 95 % interval.

    Wilson's, where the pairs are independent. Pairs of one prompt are not: then whole prompts are drawn again, and each
    weighs the same.
    """
    if unit == "pair" or len(set(prompts)) == len(prompts):
        successes, trials = int(right.sum()), len(right)
        return (successes / trials, *wilson(successes, trials))
    by_prompt: dict[str, list[bool]] = {}
    for prompt, one in zip(prompts, right.tolist(), strict=True):
        by_prompt.setdefault(prompt, []).append(one)
    estimate = share_interval(by_prompt)
    return estimate.mean, estimate.low or 0.0, 1.0 if estimate.high is None else estimate.high
