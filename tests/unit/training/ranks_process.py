"""One rank of several: makes the steps that `test_ranks.py` looks at, and writes what came of them as JSON.

Usage: ranks_process.py RANK FOLDER SIZE

Two make steps in which memory runs out on one of them, and steps that one of them must give up. Three make some steps
together, the first two of them more in a group of their own. Rank 0 also makes each step alone, from the same weights
and optimizer state, and compares; that all ranks end alike is seen from digests.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from conftest import Kit
from stateset_agents.config.algorithms import RECIPES
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.errors import TrainingStopped
from stateset_agents.core.trajectory import TrajectoryGroup
from stateset_agents.models import LoadedModel, attach_lora
from stateset_agents.training.comparison import Comparison
from stateset_agents.training.giving_up import GivenUp
from stateset_agents.training.learner import Learner
from stateset_agents.training.measures import Pass
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.ranks import Alone, Ranks


class WatchedLearner(Learner):
    """Keeps each pass's gradient before clipping, and what this rank alone contributed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gradients: list[dict[str, Tensor]] = []
        self.own_loss = 0.0
        self.own_tokens = 0

    def _gradient(self, batches: Sequence[PackedBatch], old: list[Tensor | None], tokens: int) -> Pass:
        self.own_tokens = sum(len(batch.targets) for batch in batches)
        measured = super()._gradient(batches, old, tokens)
        held = self._trained()
        self.gradients.append({name: m.grad.clone() for name, m in held.items() if m.grad is not None})
        return measured

    def _accumulate(
        self, batch: PackedBatch, old: Tensor | None, measured: Pass, tokens: int, comparison: Comparison | None = None
    ) -> Tensor:
        before = super()._accumulate(batch, old, measured, tokens, comparison)
        self.own_loss = measured.loss
        return before

    def trained(self) -> dict[str, Tensor]:
        """A copy of all that is trained."""
        return {name: tensor.detach().clone() for name, tensor in self._trained().items()}


def learner(
    ranks: Alone | None = None, *, lora: bool = False, compute: str = "float32", **settings: Any
) -> WatchedLearner:
    """Over a model of its own. An epsilon that is large beside gradients, so that their size counts in the update."""
    loaded: LoadedModel = attach_lora(Kit.tiny(), r=4) if lora else Kit.tiny()
    values: dict[str, Any] = {
        "learning_rate": 1e-2,
        **({"data_file": "answers.jsonl"} if settings.get("algorithm") == "sft" else {"num_generations": 4}),
        "batch_size": 2,
        "adam_epsilon": 1e-2,
        "max_grad_norm": 0.05,
        "mixed_precision": False,
        **settings,
    }
    config = TrainingConfig.from_profile("balanced", **values)
    return WatchedLearner(loaded, config, total_steps=10, temperature=0.8, compute=compute, ranks=ranks)


def cases() -> dict[str, dict[str, Any]]:
    """Settings by name: every algorithm, with a reference and two passes where it can have them; and some others."""
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        found[name] = {"algorithm": name}
        if "value_learning_rate" in recipe.uses:
            found[name]["value_learning_rate"] = 0.2
        if "cg_iterations" in recipe.uses:
            found[name]["cg_iterations"] = 4
        if "beta" in recipe.uses:
            found[name]["beta"] = 0.1
        if "num_iterations" in recipe.uses and "num_iterations" not in recipe.fixed:
            found[name]["num_iterations"] = 2
    found["another cut"] = {"algorithm": "grpo", "batch_size": 3}
    found["entropy"] = {"algorithm": "grpo", "top_entropy_share": 0.4, "entropy_coef": 0.1, "num_iterations": 2}
    found["aot"] = {"algorithm": "dpo", "preference_loss": "aot", "num_iterations": 2, "beta": 0.1}
    found["aot_unpaired"] = {**found["aot"], "preference_loss": "aot_unpaired", "preference_sft_weight": 0.5}
    found["off_policy"] = {"algorithm": "grpo", "off_policy_threshold": 6.8, "num_iterations": 2}
    found["lora"] = {"algorithm": "grpo", "lora": True, "beta": 0.1}
    found["bfloat16"] = {"algorithm": "grpo", "compute": "bfloat16"}
    return found


def digest(tensors: dict[str, Tensor]) -> str:
    """Of every byte."""
    found = hashlib.sha256()
    for tensor in tensors.values():
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def compared(ranks: Ranks, groups: Sequence[TrajectoryGroup], settings: dict[str, Any]) -> dict[str, Any]:
    """The second step, after a first one alone: ratios, values and divergences are not those of a start."""
    alone, joined = learner(**settings), learner(ranks, **settings)
    Kit.step(alone, Kit.two_groups())
    weights, slots, counters = copy.deepcopy(alone.state())
    joined.load(weights, slots, counters)
    alone.gradients.clear()
    found = {
        "measured": Kit.step(joined, groups).to_dict(),
        "digest": digest(joined.trained()),
        "slots": digest(joined.state()[1]),
        "tokens": joined.own_tokens,
    }
    if ranks.rank:
        return found
    expected = Kit.step(alone, groups)
    pairs = zip(joined.gradients, alone.gradients, strict=True)
    return {
        **found,
        "gradients": [Kit.relative_gap(one, other) for one, other in pairs],
        "change": Kit.relative_gap(*(_change(one, weights) for one in (joined, alone))),
        "expected": expected.to_dict(),
    }


def _change(one: WatchedLearner, before: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: master - before[name] for name, master in Kit.masters(one).items()}


def stopped(one: WatchedLearner, groups: Sequence[TrajectoryGroup]) -> dict[str, Any]:
    """What a step says that is refused."""
    before = digest(one.trained())
    try:
        Kit.step(one, groups)
    except TrainingStopped as problem:
        return {"message": str(problem), "unmoved": digest(one.trained()) == before, "own_loss": repr(one.own_loss)}
    return {"message": "", "unmoved": False, "own_loss": repr(one.own_loss)}


def refused(ranks: Ranks) -> dict[str, Any]:
    """Steps that must end on all ranks alike, though there is a reason on one of them only."""
    groups = Kit.two_groups()
    bad = copy.deepcopy(groups)
    bad[0].trajectories[0].rows[0].logprobs[13] = float("nan")
    other = copy.deepcopy(groups)
    if ranks.rank == 1:
        other[0].trajectories[0].reward = 0.75
    found = {
        "not finite": stopped(learner(ranks, sampler_correction="token_truncate"), bad),
        "conversations": stopped(learner(ranks), other),
    }
    moved = learner(ranks, algorithm="ppo")
    if ranks.rank == 1:
        with torch.no_grad():
            next(iter(moved.policy.value_head.parameters()))[0, 0] += 1e-6
    found["weights"] = stopped(moved, groups)
    return found


def gradients(ranks: Ranks) -> list[list[float] | None]:
    """Of three parameters: one has a gradient everywhere, one on rank 1 only, one nowhere."""
    parameters = [torch.zeros(2) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    if ranks.rank == 1:
        parameters[1].grad = torch.tensor([3.0, 4.0])
    ranks.sum_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def short(ranks: Ranks, skip: int, **settings: Any) -> dict[str, Any]:
    """A step in which memory runs out on rank 1 alone, after so many passes; and one that began with the half."""
    pairs = settings["algorithm"] == "dpo"
    groups = [group for _ in range(2 if pairs else 1) for group in Kit.two_groups()]
    whole, half = (learner(ranks, **settings, batch_size=size) for size in (4, 2))
    shortage = (
        Kit.Shortage(whole, 50, skip=skip) if ranks.rank == 1 else None
    )  # four conversations there have 63 tokens
    rows = [Kit.step(one, groups).to_dict() for one in (whole, half)]
    return {
        "met": 0 if shortage is None else shortage.met,
        "size": whole.micro_batch.size,
        "rows": rows,
        "digests": [digest(one.trained()) + digest(one.state()[1]) for one in (whole, half)],
    }


def given_up(ranks: Ranks, **settings: Any) -> dict[str, Any]:
    """A step that one rank must give up, at each place where it looks; then one that nobody gives up."""
    disturbed, free = (learner(ranks, **settings) for _ in range(2))
    found: dict[str, Any] = {"given up": [0, 0]}
    for one in range(2):
        for number in itertools.count(1):
            over = Kit.Over(number if ranks.rank == one else 0)
            before = digest(disturbed.trained()) + digest(disturbed.state()[1])
            try:
                disturbed.step(Kit.two_groups(), max_tokens=20, is_over=over)
            except GivenUp:
                found["given up"][one] += digest(disturbed.trained()) + digest(disturbed.state()[1]) == before
            else:
                break
        Kit.step(free)
        found[f"digests {one}"] = [digest(each.trained()) + digest(each.state()[1]) for each in (disturbed, free)]
    return found


def of_three(ranks: Ranks) -> dict[str, Any]:
    """A group of two conversations, which leaves at least one rank without work."""
    groups = [Kit.group(Kit.ids(12, 1), [1.0, 0.0], [2, 9], 1)]
    settings = cases()
    names = ("grpo", "rloo", "ppo", "trpo", "dpo", "rft", "entropy", "aot")
    return {name: compared(ranks, groups, {**settings[name], "batch_size": 1}) for name in names}


def of_two(ranks: Ranks) -> dict[str, Any]:
    """Two groups of four conversations."""
    mixed = learner(ranks, compute=["bfloat16", "float32"][ranks.rank])
    return {
        **{name: compared(ranks, Kit.two_groups(), settings) for name, settings in cases().items()},
        "refused": refused(ranks),
        "flat": Kit.step(learner(ranks), [Kit.flat_group()]).to_dict(),
        "gradients": gradients(ranks),
        "precision": [str(mixed.compute), mixed.note],
    }


def shortages(ranks: Ranks) -> dict[str, Any]:
    """See `short`; for a natural step at one pass of each kind."""
    plain = [(name, 0) for name in ("grpo", "ppo", "sft", "aot", "entropy")]
    natural = [("trpo", skip) for skip in (0, 1, 4, 5, 6)]
    return {f"{name} {skip}": short(ranks, skip, **cases()[name]) for name, skip in (*plain, *natural)}


def main() -> None:
    rank, folder, size = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=wait)
    if size == 2:
        ranks = Ranks()
        names = {name: cases()[name] for name in ("grpo", "ppo", "trpo", "entropy")}
        found = {name: given_up(ranks, **settings) for name, settings in names.items()}
        result = {"short": shortages(ranks), "given up": found}
    else:
        pair = dist.new_group([0, 1], timeout=wait)
        result = {"three": of_three(Ranks()), "two": of_two(Ranks(pair)) if rank < 2 else {}}
    (folder / f"rank-{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
