"""Training rows to packed batches: the prompt that a group's rows share is computed once.

Invariant: every token of a row sees exactly the tokens before it in that row, whatever it is packed with. The shared
prefix ends before the first trained token, so a trained token belongs to one row only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.trajectory import TokenRow


@dataclass(frozen=True)
class Sample:
    """One training row with what the algorithm says about it.

    Attributes:
        row: ids and mask.
        advantage: of every trained token of the row, or one for each.
        weight: of every trained token of the row in the step's loss.
        conversation: index of the conversation in the step.
        group: rows of the same group share their prompt.
        values, returns: of each trained token, for algorithms with a value head.
        bundle: rows of one bundle go through the model together; -1: those of the conversation.
    """

    row: TokenRow
    advantage: float | Sequence[float]
    weight: float
    conversation: int
    group: int
    values: Sequence[float] | None = None
    returns: Sequence[float] | None = None
    bundle: int = -1

    def column(self, numbers: float | Sequence[float] | None) -> Sequence[float]:
        """One number for each trained token."""
        if isinstance(numbers, Sequence):
            return numbers
        return [numbers or 0.0] * self.row.trained_tokens


@dataclass(frozen=True)
class PackedBatch:
    """Rows laid end to end.

    Attributes:
        ids, positions: (T,) tokens that go through the model, each once.
        pieces: for each shared prefix `(start, end, [(start, end) of each branch])`.
        predictors: (N,) place in the pack whose hidden state predicts each trained token.
        targets: (N,) the trained tokens.
        advantages, weights: (N,) float32.
        sampled_logprobs: (N,) log-probs that the sampler recorded.
        conversations: (N,) conversation of each trained token.
        owners: (N,) index of each trained token's sample; the tokens of one sample are in order.
        bundles: (N,) bundle of each trained token.
        values, returns: (N,) float32; zeros where no sample has any.
    """

    ids: Tensor
    positions: Tensor
    pieces: list[tuple[int, int, list[tuple[int, int]]]]
    predictors: Tensor
    targets: Tensor
    advantages: Tensor
    weights: Tensor
    sampled_logprobs: Tensor
    conversations: Tensor
    owners: Tensor
    bundles: Tensor
    values: Tensor
    returns: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return len(self.ids)

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> PackedBatch:
        """Pack rows; samples of one group share their prefix.

        Args:
            samples: each with at least one trained token.
            device: of the batch.

        Raises:
            ValueError: there is no row, or one that begins with a trained token (which nothing predicts) or has none.
        """
        if any(sample.row.mask[:1] == [1] for sample in samples):
            raise ValueError("a training row must begin with context: nothing predicts its first token")
        if not samples or any(1 not in sample.row.mask for sample in samples):
            raise ValueError("a batch needs rows, and each of them a trained token")
        ids: list[int] = []
        positions: list[int] = []
        pieces = []
        trained: list[tuple[float, ...]] = []
        places = {id(sample): place for place, sample in enumerate(samples)}
        for family in _families(samples):
            prefix, start = family.prefix, len(ids)
            ids.extend(family.members[0].row.ids[:prefix])
            positions.extend(range(prefix))
            branches = []
            for sample in family.members:
                row, begin = sample.row, len(ids)
                last = len(row) - 1 - row.mask[::-1].index(1)
                columns = map(sample.column, (sample.advantage, sample.values, sample.returns))
                annotated = zip(*columns, strict=True)
                for place in range(prefix, last + 1):
                    if row.mask[place]:
                        before = start + prefix - 1 if place == prefix else begin + place - prefix - 1
                        advantage, value, earned = next(annotated)
                        trained.append(
                            (
                                before,
                                row.ids[place],
                                advantage,
                                sample.weight,
                                row.logprobs[place],
                                sample.conversation,
                                places[id(sample)],
                                sample.bundle,
                                value,
                                earned,
                            )
                        )
                # the last trained token is predicted, never read
                ids.extend(row.ids[prefix:last])
                positions.extend(range(prefix, last))
                branches.append((begin, len(ids)))
            pieces.append((start, start + prefix, branches))
        numbers = list(zip(*trained, strict=True))

        def column(index: int, dtype: torch.dtype) -> Tensor:
            return torch.tensor(numbers[index], dtype=dtype, device=device)

        return cls(
            ids=torch.tensor(ids, device=device),
            positions=torch.tensor(positions, device=device),
            pieces=pieces,
            predictors=column(0, torch.long),
            targets=column(1, torch.long),
            advantages=column(2, torch.float32),
            weights=column(3, torch.float32),
            sampled_logprobs=column(4, torch.float32),
            conversations=column(5, torch.long),
            owners=column(6, torch.long),
            bundles=column(7, torch.long),
            values=column(8, torch.float32),
            returns=column(9, torch.float32),
        )


@dataclass
class _Family:
    """Rows whose first `prefix` tokens are the same and not trained."""

    members: list[Sample]
    prefix: int

    def common(self, sample: Sample) -> int:
        """Length of the prefix with this sample in the family; 0 for a sample of another group."""
        if self.members[0].group != sample.group:
            return 0
        limit = min(self.prefix, sample.row.mask.index(1))
        own, other = self.members[0].row.ids[:limit], sample.row.ids[:limit]
        if own == other:
            return limit
        return next(place for place, pair in enumerate(zip(own, other, strict=True)) if pair[0] != pair[1])


def _families(samples: Sequence[Sample]) -> list[_Family]:
    """Samples of one group whose rows begin alike (a row with a rewritten history begins otherwise).

    A row that shortens the prefix makes every member compute the difference for itself, so it joins only if that is
    less than what sharing saves.
    """
    families: list[_Family] = []
    for sample in samples:
        for family in families:
            common = family.common(sample)
            if max(2, len(family.members)) * (family.prefix - common) < family.prefix:
                family.members.append(sample)
                family.prefix = common
                break
        else:
            families.append(_Family([sample], sample.row.mask.index(1)))
    return families


class SharedPrefixPlan:
    """The learner's attention plan: causal inside a prefix; a branch sees its prefix and itself.

    The branches of a prefix share one masked call where that wastes little (their keys are few beside the prefix's),
    and have a call each otherwise.
    """

    def __init__(self, batch: PackedBatch) -> None:
        self._pieces = batch.pieces
        self._device = batch.ids.device
        self._sizes = [size for start, end, branches in batch.pieces for size in (end - start, _extent(branches))]
        self._masks: dict[tuple[int | None, ...], Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """See `AttentionPlan.attend`."""
        parts = list(zip(*(tensor.split(self._sizes, dim=2) for tensor in (query, key, value)), strict=True))
        outputs = []
        for index, (_, _, branches) in enumerate(self._pieces):
            prefix, rest = parts[2 * index], parts[2 * index + 1]
            lengths = [end - begin for begin, end in branches]
            if prefix[0].shape[2]:
                outputs.append(self._part(prefix, [prefix], [prefix[0].shape[2]], scale, window))
            if self._joint(prefix[0].shape[2], lengths):
                outputs.append(self._part(rest, [prefix, rest], lengths, scale, window))
                continue
            outputs.extend(
                self._part(branch, [prefix, branch], [branch[0].shape[2]], scale, window)
                for branch in zip(*(tensor.split(lengths, dim=2) for tensor in rest), strict=True)
                if branch[0].shape[2]
            )
        return torch.cat(outputs, dim=2).transpose(1, 2)

    @staticmethod
    def _joint(prefix: int, lengths: list[int]) -> bool:
        total = sum(lengths)
        return total > 0 and total * (prefix + total) <= 2 * sum(length * (prefix + length) for length in lengths)

    def _part(
        self,
        queries: tuple[Tensor, ...],
        seen: list[tuple[Tensor, ...]],
        lengths: list[int],
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Attention of `queries` over everything in `seen`, whose last entry are the queries' own keys."""
        key = seen[0][1] if len(seen) == 1 else torch.cat([part[1] for part in seen], dim=2)
        value = seen[0][2] if len(seen) == 1 else torch.cat([part[2] for part in seen], dim=2)
        causal = len(seen) == 1 and not (window and key.shape[2] > window)
        return torch.nn.functional.scaled_dot_product_attention(
            queries[0],
            key,
            value,
            attn_mask=None if causal else self._mask(key.shape[2] - sum(lengths), lengths, window),
            is_causal=causal,
            scale=scale,
            enable_gqa=True,
        )

    def _mask(self, prefix: int, lengths: list[int], window: int | None) -> Tensor:
        """(sum of lengths, prefix + sum of lengths): each branch sees the prefix and, causally, itself."""
        shape = (prefix, *lengths, window)
        if shape not in self._masks:
            own = [torch.ones(n, n, dtype=torch.bool, device=self._device).tril() for n in lengths]
            before = torch.ones(sum(lengths), prefix, dtype=torch.bool, device=self._device)
            mask = torch.cat([before, torch.block_diag(*own).bool()], dim=1)
            if window:
                ahead = torch.arange(prefix, device=self._device)
                places = torch.cat([torch.arange(n, device=self._device) + prefix for n in lengths])
                columns = torch.cat([ahead, places])
                mask &= places[:, None] - columns[None] < window
            self._masks[shape] = mask
        return self._masks[shape]


def _extent(branches: Sequence[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in branches)
