"""The processes that make one optimizer step together.

Invariant: every rank holds the same scored conversations and the same float32 weights before a step, and byte-equal
weights after it. Advantages, token weights and counts are settled by each rank from the whole step; only forward and
backward passes are divided (`shares`), so gradients are added up and never averaged. Whatever a rank decides (to refuse
an update, to clip, to end a line search) it decides from numbers that all ranks have in common.

A learner is given `Ranks` where there are several processes:

    torch.distributed.init_process_group("gloo")          # under torchrun; "cpu:gloo,cuda:nccl" with GPUs
    learner = Learner(loaded, config, total_steps=..., temperature=..., ranks=Ranks())
    learner.step(groups, max_tokens=...)                  # the same groups on every rank

Equal bytes need processors of one kind and as many threads on each rank: norms and updates are computed by every rank
for itself, from the same numbers. Ranks that have drifted apart are refused at the next step, as are those that were
given other conversations.

All ranks call the same methods in the same order, one without work as well. Where memory runs out on one of them, all
begin again in smaller pieces (`micro_batches`). A rank that fails for another reason of its own leaves the others
waiting until their connection breaks or the group's timeout is over; torchrun ends them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import ConfigError, TrainingStopped
from .conversations import Conversation
from .packing import Sample
from .shares import shares

SAMPLED = 4096
"""Elements of each tensor that ranks compare: reading all weights would take as long as a small step."""


class Alone:
    """One process that computes a whole step.

    Attributes:
        rank: number of this process.
        size: of how many.
    """

    rank, size = 0, 1

    def share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """The rows that this rank computes."""
        return samples

    def gather(self, *numbers: float) -> list[tuple[float, ...]]:
        """The numbers of every rank, by rank; as many on each."""
        return [numbers]

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over the ranks in the place of each tensor."""

    def concatenate(self, columns: Tensor) -> Tensor:
        """The columns of all ranks side by side; as many rows on each, and any number of columns."""
        return columns

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum `grad` over the ranks; it stays None where it is None on all of them."""

    def require_same(self, weights: Iterable[Tensor], talks: Sequence[Conversation]) -> None:
        """Raise TrainingStopped on every rank if the ranks differ in weights or conversations."""


class Ranks(Alone):
    """A process group of torch.distributed.

    Args:
        group: None is all processes.

    Raises:
        ConfigError: there is no process group, or this process is not in it.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ConfigError("there is no process group: call torch.distributed.init_process_group before Ranks()")
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ConfigError("this process is not in the given group, which makes the step without it")

    def share(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """See `Alone`."""
        return shares(samples, self.size)[self.rank]

    def gather(self, *numbers: float) -> list[tuple[float, ...]]:
        """See `Alone`."""
        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own, group=self._group)
        return [tuple(row.tolist()) for row in found]

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """See `Alone`. Each element is added up in one place and sent to all, so that all have the same bits."""
        works = [dist.all_reduce(tensor, group=self._group, async_op=True) for tensor in tensors if tensor.numel()]
        for work in works:
            work.wait()

    def concatenate(self, columns: Tensor) -> Tensor:
        """See `Alone`."""
        counts = [int(count) for (count,) in self.gather(columns.shape[1])]
        begin = sum(counts[: self.rank])
        whole = columns.new_zeros(len(columns), sum(counts))
        whole[:, begin : begin + columns.shape[1]] = columns
        self.sum([whole])
        return whole

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """See `Alone`. A parameter without a gradient anywhere has none after it: an optimizer leaves it alone."""
        held = self.gather(*(float(parameter.grad is not None) for parameter in parameters))
        for parameter, somewhere in zip(parameters, map(any, zip(*held, strict=True)), strict=True):
            if somewhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum(parameter.grad for parameter in parameters if parameter.grad is not None)

    def require_same(self, weights: Iterable[Tensor], talks: Sequence[Conversation]) -> None:
        """See `Alone`. Of large tensors only `SAMPLED` elements are compared."""
        found = zip(*self.gather(_digest(map(_some, weights)), _digest(map(_words, talks))), strict=True)
        for name, digests in zip(("weights", "conversations"), found, strict=True):
            if len(set(digests)) > 1:
                differing = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
                raise TrainingStopped(
                    f"the {name} of rank {', '.join(map(str, differing))} are not those of rank 0, so the step was not "
                    "made: give all ranks the same model, checkpoint, config, threads and scored groups"
                )


def _digest(parts: Iterable[bytes]) -> float:
    """48 bits, which a float64 holds exactly."""
    found = hashlib.blake2b(digest_size=6)
    for part in parts:
        found.update(part)
    return float(int.from_bytes(found.digest()))


def _some(tensor: Tensor) -> bytes:
    elements = tensor.detach().reshape(-1)
    elements = elements[:: max(1, len(elements) // SAMPLED)].contiguous().cpu()
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + elements.view(torch.uint8).numpy().tobytes()


def _words(talk: Conversation) -> bytes:
    """All that a step takes from a conversation."""
    trajectory = talk.trajectory
    found = [repr((talk.group, talk.reward, trajectory.turn_rewards, trajectory.components)).encode()]
    for row, turns in zip(talk.rows, talk.turns, strict=True):
        found.append(array("q", [len(row), *row.ids, *row.mask, *turns]).tobytes())
        found.append(array("d", row.logprobs).tobytes())
    return b"".join(found)
