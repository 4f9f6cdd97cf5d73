"""What the models say before the first update of a step: values of its tokens, and the KL that rewards have in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from .conversations import Conversation
from .micro_batches import MicroBatchSize
from .packing import PackedBatch, Sample
from .policy_model import PolicyModel
from .ranks import Alone
from .samples import Measured


@torch.no_grad()
def measured_before(
    talks: Sequence[Conversation], policy: PolicyModel, size: MicroBatchSize, ranks: Alone, *, kl: bool
) -> dict[int, Measured]:
    """Values and KL of every trained token, by `id` of its row.

    Args:
        talks: of the step.
        policy: with the weights before the update.
        size: cuts them.
        ranks: each measures its share.
        kl: whether the reference is asked too.
    """
    plain = [Sample(row, 0.0, 0.0, place, t.group) for place, t in enumerate(talks) for row in t.rows]
    ends = list(itertools.accumulate(sample.row.trained_tokens for sample in plain))
    places = {id(s.row): slice(end - s.row.trained_tokens, end) for s, end in zip(plain, ends, strict=True)}
    # values and KL; zeros where another rank measures
    table = torch.zeros(2, ends[-1] if ends else 0, device=policy.device)
    with size.fitting():
        for part in size.cut(ranks.share(plain)):
            batch = PackedBatch.of(part, policy.device)
            forward = policy.forward(batch, None, reference=kl)
            for owner, sample in enumerate(part):
                own, at = batch.owners == owner, places[id(sample.row)]
                if forward.values is not None:
                    table[0, at] = forward.values[own]
                if forward.reference is not None:
                    table[1, at] = (forward.logprobs - forward.reference)[own]
    ranks.sum([table])
    return {row: Measured(*table[:, at].tolist()) for row, at in places.items()}
