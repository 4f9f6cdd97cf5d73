"""Groups of conversations with known ids, learners over the tiny model, and the stock model to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.models import LoadedModel, load_model
from stateset_agents.training import learner as learner_module
from stateset_agents.training import objective as objective_module
from stateset_agents.training.learner import Learner
from stateset_agents.training.measures import StepMetrics

Pieces = Sequence[tuple[list[int], bool]]


class WatchedLearner(Learner):
    """A learner that keeps a copy of each gradient that it applies, before clipping."""

    gradients: list[dict[str, Tensor]]

    def _update(self, learning_rate: float) -> float:
        kept = {name: m.grad.clone() for name, m in self.weights.state().items() if m.grad is not None}
        self.gradients = [*getattr(self, "gradients", []), kept]
        return super()._update(learning_rate)


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")


class Shortage:
    """Fails as torch does when more than `room` tokens are put through the model; not yet in the first `skip` calls."""

    def __init__(self, learner, room, *, error=OUT_OF_MEMORY, skip=0, backward=False):
        self.room, self.error, self.skip, self.backward, self.met = room, error, skip, backward, 0
        learner.policy.packed._backbone.register_forward_hook(self, with_kwargs=True)

    def __call__(self, module, arguments, named, output):
        if self.skip:
            self.skip -= 1
        elif named["input_ids"].shape[1] > self.room:
            self.met += 1
            if not self.backward:
                raise self.error
            output.last_hidden_state.register_hook(self.fail)

    def fail(self, gradient):
        raise self.error


class Over:
    """Says that a step must be given up, at one of the looks."""

    def __init__(self, number=0):
        self.number, self.looks = number, 0

    def __call__(self):
        self.looks += 1
        return self.looks == self.number


class Kit:
    """What the tests of the learner share."""

    Shortage, Over = Shortage, Over

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    @staticmethod
    def ids(count: int, seed: int) -> list[int]:
        """Some token ids."""
        return torch.randint(2, 512, (count,), generator=torch.Generator().manual_seed(seed)).tolist()

    @staticmethod
    def row(*pieces: tuple[list[int], bool]) -> TokenRow:
        """A row of (ids, whether they were sampled)."""
        made = TokenRow()
        for ids, sampled in pieces:
            if sampled:
                made.append_sampled(ids, [-1.0] * len(ids), 0)
            else:
                made.append_context(ids)
        return made

    @classmethod
    def group(cls, prompt: list[int], rewards: Sequence[float], lengths: Sequence[int], seed: int) -> TrajectoryGroup:
        """Conversations of two turns on one prompt; `lengths` are those of the second replies."""
        trajectories = []
        for place, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
            own = 100 * seed + 10 * place
            pieces = (
                (prompt, False),
                (cls.ids(3, own), True),
                (cls.ids(4, own + 1), False),
                (cls.ids(length, own + 2), True),
            )
            trajectories.append(MultiTurnTrajectory("s", rows=[cls.row(*pieces)], reward=reward))
        return TrajectoryGroup("s", trajectories)

    @classmethod
    def two_groups(cls) -> list[TrajectoryGroup]:
        """Eight conversations of unequal length; the last one is in two rows, because its history was rewritten."""
        groups = [
            cls.group(cls.ids(12, 1), [1.0, 0.0, 0.5, 0.25], [1, 6, 3, 9], 1),
            cls.group(cls.ids(9, 2), [0.0, 0.0, 1.0, 0.0], [5, 2, 8, 4], 2),
        ]
        groups[1].trajectories[-1].rows.append(cls.row((cls.ids(7, 3), False), (cls.ids(5, 4), True)))
        return groups

    @staticmethod
    def flat_group(seed: int = 5) -> TrajectoryGroup:
        """Four conversations with the same reward."""
        return Kit.group(Kit.ids(10, seed), [0.3, 0.3, 0.1 + 0.2, 0.3], [2, 3, 4, 5], seed)

    @staticmethod
    def tiny() -> LoadedModel:
        """A tiny float32 model of one's own."""
        return load_model("tiny", dtype="float32", device="cpu")

    def learner(
        self,
        loaded: LoadedModel | None = None,
        *,
        total_steps: int = 10,
        warmup_steps: int = 0,
        temperature: float = 1.0,
        compute: torch.dtype = torch.float32,
        **settings: Any,
    ) -> WatchedLearner:
        """A learner that computes in `compute`, whatever this machine is faster with."""
        self.monkeypatch.setattr(learner_module, "compute_dtype", lambda *_, **__: (compute, None))
        values: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 8, **settings}
        if settings.get("algorithm") == "sft":
            values["data_file"] = "answers.jsonl"
        elif "data_file" not in settings:
            values.setdefault("num_generations", 4)
        config = TrainingConfig.from_profile("balanced", **values)
        return WatchedLearner(
            loaded or self.tiny(),
            config,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            temperature=temperature,
        )

    @staticmethod
    def step(learner: Learner, groups: Sequence[TrajectoryGroup] | None = None) -> StepMetrics:
        """One step, on `two_groups` unless others are given."""
        return learner.step(Kit.two_groups() if groups is None else groups, max_tokens=20)

    @staticmethod
    def masters(learner: Learner) -> dict[str, Tensor]:
        """A copy of the trained weights."""
        return {name: tensor.detach().clone() for name, tensor in learner.weights.state().items()}

    @staticmethod
    def stock_logprobs(loaded: LoadedModel, row: TokenRow, temperature: float = 1.0) -> Tensor:
        """(trained tokens,) log-probs by the model's own forward pass over one row, with gradient."""
        ids = torch.tensor([row.ids])
        logits = loaded.model(input_ids=ids, use_cache=False).logits[0, :-1].float() / temperature
        logprobs = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return logprobs[torch.tensor(row.mask[1:]).bool()]

    @staticmethod
    def relative_gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        """Largest difference, as a share of the largest value of its tensor."""
        assert one.keys() == other.keys()
        return max(((one[n] - other[n]).abs().max() / other[n].abs().max().clamp(min=1e-30)).item() for n in one)


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Kit:
    """See `Kit`."""
    return Kit(monkeypatch)


@pytest.fixture
def record_losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Any]]:
    """What goes into and out of each call of `policy_loss` by a learner: (log-probs, old log-probs, result)."""
    calls: list[tuple[Tensor, Tensor, Any]] = []
    original: Callable[..., Any] = objective_module.policy_loss

    def recording(logprobs: Tensor, old: Tensor, *rest: Any, **options: Any) -> Any:
        result = original(logprobs, old, *rest, **options)
        calls.append((logprobs.detach().clone(), old.clone(), result))
        return result

    monkeypatch.setattr(objective_module, "policy_loss", recording)
    return calls
