"""What must hold at the first update of a run, looked at before anything is lost by it.

Invariant: nothing here changes an update or costs a forward pass: log-probs, ratio, KL and gradient are those that the
learner's first pass measures anyway. A run that fails ends before it records the step.

The first update of a run is looked at in full. The second one, and the first two after a resume, show whether the
sampler follows the weights: its log-probs and versions. A run that learns from a file has no sampler; the rest holds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ..core.errors import TrainingStopped
from ..core.trajectory import TrajectoryGroup
from ..tracking.layout import SELF_TEST
from ..tracking.logging_setup import FILE_ONLY
from .mask_text import mask_text
from .parts import RunParts
from .weight_check import WeightCheck

if TYPE_CHECKING:
    from .learner import Learner
    from .measures import Pass

ALLOWED_GAP = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Mean size of a token's difference between sampled and learned log-prob, by precision; a temperature below 1 makes it
larger, so it is divided by that. A cache against a whole pass gives 3e-5 at most in float32 and 0.04 in bfloat16
(SmolLM2 at 0.7); a shifted mask gives 1.9, a temperature of 0.7 that only one of them knows 0.6."""
ALLOWED_RATIO = 1e-3
"""How far the mean ratio of a first pass may be from 1, which it is by definition."""
ALLOWED_KL = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""KL of a token to a reference with the same weights, computed in the same way: nearly 0."""
UPDATES_WATCHED = 2
"""In each process. The first update shows whether sampler and learner agree, the second one whether they stay so."""

log = logging.getLogger(__name__)


class StepCheck:
    """The looks at one update. The learner tells it what it measures; it raises where that cannot be.

    Args:
        learner: that makes the update.
        whole: whether it is the first update of the run; otherwise only sampler and learner are compared.
    """

    def __init__(self, learner: Learner, *, whole: bool) -> None:
        config = learner.config
        self.found: dict[str, str] = {}
        """What was looked at and is right, by what it is about."""
        self._whole = whole
        self._sampled = config.data_file is None
        self._temperature = learner.policy.temperature
        self._from_reference = whole and learner.from_reference
        self._allowed_gap = ALLOWED_GAP[learner.compute] / min(1.0, learner.policy.temperature)
        self._allowed_kl = ALLOWED_KL[learner.compute] / min(1.0, learner.policy.temperature)
        self._weights = WeightCheck(config.adam_epsilon, config.max_grad_norm, self._fail)

    def conversations(self, groups: Sequence[TrajectoryGroup], version: int) -> None:
        """Look at who sampled what is trained.

        Raises:
            TrainingStopped: a trained token that nobody sampled, or one of other weights.
        """
        if not self._sampled:
            return
        rows = [row for group in groups for episode in group.trajectories for row in episode.rows]
        versions = {number for row in rows for number, kept in zip(row.versions, row.mask, strict=True) if kept}
        if -1 in versions:
            self._fail(
                "the mask marks tokens that nobody sampled: it does not lie where the replies are",
                f"{SELF_TEST} shows a conversation with its mask; what writes token rows (an agent's process_turn) "
                "must add replies with append_sampled, and everything else with append_context",
            )
        if versions - {version}:
            old = ", ".join(map(str, sorted(versions - {version})))
            self._fail(
                f"conversations were sampled with weights of version {old}, and those of version {version} are "
                "trained: the sampler has old weights",
                "the engine must take the new weights whenever it is told of them (weights_changed)",
            )

    def reference(self, differences: Sequence[float]) -> None:
        """Look at log-prob less reference of every token, where that is measured before the first pass.

        Raises:
            TrainingStopped: they differ, although the weights are the same.
        """
        if self._from_reference and differences:
            self._compare_reference(math.fsum(map(abs, differences)) / len(differences))

    def first_pass(
        self,
        measured: Pass,
        tokens: int,
        trained: Mapping[str, Tensor],
        frozen: Mapping[str, Tensor],
        rate: float | None,
    ) -> None:
        """Look at the first pass, after its backward pass and before the update.

        Args:
            measured: sums over all ranks.
            tokens: that are trained.
            trained: weights with their gradients, by name.
            frozen: weights that must not move.
            rate: see `WeightCheck.before`.

        Raises:
            TrainingStopped: something that must hold does not.
        """
        if self._sampled:
            self._compare_sampler(measured.mismatch_size / tokens)
        if measured.ratio:
            ratio = measured.ratio / tokens
            if not abs(ratio - 1) <= ALLOWED_RATIO:
                self._fail(
                    f"the ratio of the first pass is {ratio:.4f} and not 1: the policy is compared with something else "
                    "than itself",
                    "the log-probs at the start of a step must be those of its first pass, with dropout off",
                )
            self.found["ratio"] = "ratio 1"
        if self._from_reference and measured.kl is not None:
            self._compare_reference(abs(measured.kl) / tokens)
        if self._whole:
            self.found["gradient"] = self._weights.before(trained, frozen, rate)

    def updated(self, trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor]) -> None:
        """Look at the weights after the first update.

        Raises:
            TrainingStopped: a trained weight stayed, or a frozen one moved.
        """
        if self._whole:
            self.found["weights"] = self._weights.after(trained, frozen)

    def _compare_sampler(self, gap: float) -> None:
        if not gap <= self._allowed_gap:
            what = (
                f"sampler and learner disagree: a token's log-prob differs by {gap:.3g} on average "
                f"({self._allowed_gap:.2g} allowed)"
            )
            if self._whole:
                self._fail(
                    f"{what}, so what is trained is not what was sampled",
                    f"compare the temperatures (the learner's is {self._temperature:g}), look in {SELF_TEST} where the "
                    "mask lies, and at the engine: its precision, its weights",
                )
            self._fail(
                f"{what}; if they agreed before, the sampler has not got the new weights",
                "the engine must sample with the very weights that are trained, and forget what it kept of old ones",
            )
        self.found["sampler"] = f"log-probs of sampler and learner {gap:.1g} apart ({self._allowed_gap:.2g} allowed)"

    def _compare_reference(self, size: float) -> None:
        if not size <= self._allowed_kl:
            self._fail(
                f"the KL to the reference is {size:.3g} a token before anything was learned ({self._allowed_kl:.2g} "
                "allowed): the reference is not the policy with which the run began",
                "the reference must be a copy from before the first update, or the model with its adapters off",
            )
        self.found["kl"] = "KL 0"

    def _fail(self, means: str, look: str) -> NoReturn:
        which = "the first update" if self._whole else "an update"
        raise TrainingStopped(f"the self-test of {which} failed: {means}. Nothing of this step was saved.\n  {look}")


class SelfTest:
    """The checks of a run, as long as there are any to make.

    Args:
        parts: whom to tell, and the folder to write to.
    """

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._left = UPDATES_WATCHED
        self._told = False

    def begin(
        self,
        learner: Learner,
        groups: Sequence[TrajectoryGroup],
        version: int,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any,
    ) -> StepCheck | None:
        """The check of a step; None when enough was seen.

        Args:
            learner: that makes the step.
            groups: that it learns from.
            version: of the weights that it learns with.
            rows: of all steps before; those with an update say whether this is the first one.
            tokenizer: spells tokens.

        Raises:
            TrainingStopped: the conversations are not those of the weights.
        """
        if not self._left:
            return None
        whole = not any(row.get("updated") for row in rows)
        check = StepCheck(learner, whole=whole)
        if whole:
            self._show(groups, tokenizer)
        check.conversations(groups, version)
        return check

    def end(self, check: StepCheck | None, *, updated: bool) -> None:
        """Say what is right. A step that taught nothing was no test."""
        if check is None or not updated:
            return
        self._left -= 1
        line = f"self-test: {', '.join(check.found.values())}"
        if self._told:
            log.info("%s", line, extra=FILE_ONLY)
        else:
            self._parts.tell(line)
        self._told = True

    def _show(self, groups: Sequence[TrajectoryGroup], tokenizer: Any) -> None:
        """The mask of the first conversation that is trained, for the run's folder."""
        trained = (episode for group in groups for episode in group.trajectories if episode.trained_tokens)
        first = next(trained, None)
        if first is None:
            return
        text = f"the first conversation of the run as it is trained ({first.scenario_id}):\n" + mask_text(
            first, lambda ids: str(tokenizer.decode(ids))
        )
        log.info("%s", text, extra=FILE_ONLY)
        if self._parts.folder is not None:
            self._parts.folder.write_text(SELF_TEST, f"{text}\n")
