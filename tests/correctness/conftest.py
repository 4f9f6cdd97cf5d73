"""What the rows share: conversations of known ids, agents, a learner that keeps its gradients, short runs in memory.

Everything is the real thing but `Scripted`, an engine that samples the very tokens that it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from stateset_agents.agents import AgentConfig, AgentRuntime, MultiTurnAgent
from stateset_agents.chat import ChatCodec
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import StopReason
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.core.trajectory import MultiTurnTrajectory, TokenRow, TrajectoryGroup
from stateset_agents.engines.base import Generation, GenerationRequest
from stateset_agents.models import LoadedModel, load_model, load_tokenizer
from stateset_agents.training.learner import Learner
from stateset_agents.training.packing import PackedBatch
from stateset_agents.training.parts import RunParts
from stateset_agents.training.samples import samples_of
from stateset_agents.training.trainer import Trainer

SCENARIOS = [
    {"id": "plans", "user_responses": ["Hello, what does the basic plan cost?", "And for a year?"]},
    {"id": "returns", "user_responses": ["Can I return it within a month?", "Thanks."]},
    {"id": "orders", "user_responses": ["Where is my order?", "And when does it come?"]},
]
TALK = {
    "num_generations": 4,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-3,
    "warmup_steps": 0,
    "eval_every": 0,
    "save_every": 0,
    "mixed_precision": False,
}


class Scripted:
    """Samples the very tokens that it is told to, in turn, as version 3 of the weights."""

    def __init__(self, *replies: Sequence[int], reason: StopReason | None = None) -> None:
        self.version = 3
        self.requests: list[GenerationRequest] = []
        self._replies = replies
        self._reason = reason

    async def generate(self, request: GenerationRequest) -> Generation:
        ids = tuple(self._replies[len(self.requests) % len(self._replies)])
        self.requests.append(request)
        reason = self._reason or (StopReason.STOP if ids[-1] == 1 else StopReason.LENGTH)
        return Generation(ids, tuple(-0.5 - place for place in range(len(ids))), reason, self.version)

    def release(self, session: str) -> None:
        pass


class Vowels(RewardFunction):
    """The share of vowels, which differs from reply to reply. Remembers every conversation that it scored."""

    def __init__(self) -> None:
        super().__init__()
        self.talks: list[list[Any]] = []

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        self.talks.append(list(turns))
        text = "".join(turn.content for turn in turns if turn.role == "assistant")
        return RewardResult(sum(letter in "aeiou" for letter in text) / (1 + len(text)))

    @property
    def spans(self) -> list[Any]:
        """Where the sampled tokens of all its conversations lie."""
        return [turn.span for talk in self.talks for turn in talk if turn.span is not None]


class WatchedLearner(Learner):
    """Keeps a copy of each gradient that it applies, before clipping."""

    gradients: list[dict[str, Tensor]]

    def _update(self, learning_rate: float) -> float:
        kept = {name: m.grad.clone() for name, m in self.weights.state().items() if m.grad is not None}
        self.gradients = [*getattr(self, "gradients", []), kept]
        return super()._update(learning_rate)


class Kit:
    """See the functions."""

    Scripted = Scripted
    Vowels = Vowels

    @staticmethod
    def ids(count: int, seed: int) -> list[int]:
        """Some token ids."""
        return torch.randint(2, 512, (count,), generator=torch.Generator().manual_seed(seed)).tolist()

    @staticmethod
    def tokens(words: str) -> list[int]:
        """Ids of tokens that are written one by one."""
        found: list[int] = load_tokenizer("tiny").convert_tokens_to_ids(words.split())
        assert None not in found
        return found

    @staticmethod
    def row(*pieces: tuple[Sequence[int], bool]) -> TokenRow:
        """A row of (ids, whether they were sampled), each sampled at a log-prob of -1."""
        made = TokenRow()
        for ids, sampled in pieces:
            if sampled:
                made.append_sampled(ids, [-1.0] * len(ids), 0)
            else:
                made.append_context(ids)
        return made

    @staticmethod
    def group(*talks: tuple[float, Sequence[TokenRow]]) -> TrajectoryGroup:
        """A group of (reward, rows)."""
        return TrajectoryGroup("s", [MultiTurnTrajectory("s", rows=list(rows), reward=r) for r, rows in talks])

    @classmethod
    def two_groups(cls) -> list[TrajectoryGroup]:
        """Eight conversations of two turns and unequal length; the last one is in two rows."""
        groups = []
        for number, rewards in enumerate([(1.0, 0.0, 0.5, 0.25), (0.0, 0.0, 1.0, 0.0)]):
            prompt, talks = cls.ids(12 - 3 * number, number), []
            for place, reward in enumerate(rewards):
                own, last = 100 * number + 10 * place, (1, 6, 3, 9)[place - number]
                first, answer = cls.ids(3, own), cls.ids(4, own + 1)
                second = cls.ids(last, own + 2)
                talks.append((reward, [cls.row((prompt, False), (first, True), (answer, False), (second, True))]))
            groups.append(cls.group(*talks))
        groups[1].trajectories[-1].rows.append(cls.row((cls.ids(7, 3), False), (cls.ids(5, 4), True)))
        return groups

    @staticmethod
    def tiny() -> LoadedModel:
        """A tiny float32 model of one's own."""
        return load_model("tiny", dtype="float32", device="cpu")

    @staticmethod
    def config(**settings: Any) -> TrainingConfig:
        """Settings of small steps in float32."""
        return TrainingConfig.from_profile("balanced", **{**TALK, "learning_rate": 1e-2, **settings})

    @classmethod
    def learner(
        cls, loaded: LoadedModel | None = None, *, temperature: float = 1.0, half: bool = False, **settings: Any
    ) -> WatchedLearner:
        """A learner that computes in float32, or in bfloat16 whatever this machine is faster with."""
        config = cls.config(mixed_precision=half, **settings)
        compute = "bfloat16" if half else "float32"
        return WatchedLearner(loaded or cls.tiny(), config, total_steps=10, temperature=temperature, compute=compute)

    @classmethod
    def gradient(cls, groups: Sequence[TrajectoryGroup] | None = None, **settings: Any) -> dict[str, Tensor]:
        """The gradient of one step, by parameter."""
        learner = cls.learner(**settings)
        learner.step(cls.two_groups() if groups is None else groups, max_tokens=20)
        return learner.gradients[0]

    @classmethod
    def batch(cls, learner: Learner, groups: Sequence[TrajectoryGroup] | None = None) -> PackedBatch:
        """All that a step trains, in one batch."""
        samples = samples_of(cls.two_groups() if groups is None else groups, learner.config, 20)
        return PackedBatch.of(samples, torch.device("cpu"))

    @staticmethod
    def masters(learner: Learner) -> dict[str, Tensor]:
        """A copy of the trained weights."""
        return {name: tensor.detach().clone() for name, tensor in learner.weights.state().items()}

    @staticmethod
    def gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        """Largest difference, as a share of the largest value of its tensor."""
        assert one.keys() == other.keys()
        return max(((one[n] - other[n]).abs().max() / other[n].abs().max().clamp(min=1e-30)).item() for n in one)

    @staticmethod
    def stock_logprobs(model: Any, row: TokenRow, temperature: float = 1.0) -> Tensor:
        """(trained tokens,) log-probs by a model's own forward pass over one row."""
        ids = torch.tensor([row.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float() / temperature
        logprobs = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return logprobs[torch.tensor(row.mask[1:]).bool()]

    @staticmethod
    def scripted(
        engine: Scripted,
        kind: type[MultiTurnAgent] = MultiTurnAgent,
        *,
        tokenizer: Any = None,
        template: str | None = None,
        max_context: int = 0,
        **config: Any,
    ) -> MultiTurnAgent:
        """An agent on a scripted engine."""
        own = tokenizer or load_tokenizer("tiny")
        own.chat_template = template or own.chat_template
        agent = kind(AgentConfig("tiny", **config))
        agent.runtime = AgentRuntime(None, ChatCodec(own), engine, max_context)
        return agent

    @staticmethod
    async def agent(kind: type[MultiTurnAgent] = MultiTurnAgent, **settings: Any) -> MultiTurnAgent:
        """An agent on the tiny model, in float32."""
        common = {"system_prompt": "Be brief.", "max_new_tokens": 12, "dtype": "float32", "device": "cpu"}
        agent = kind.from_model("tiny", **{**common, "temperature": 0.7, **settings})
        await agent.initialize()
        return agent

    @staticmethod
    async def trainer(
        agent: MultiTurnAgent, reward: RewardFunction, *, steps: int, parts: RunParts | None = None, **settings: Any
    ) -> Trainer:
        """A prepared run; a step plays two of three scenarios, four conversations of two turns each."""
        config = TrainingConfig.from_profile("balanced", **{**TALK, "num_episodes": 8 * steps, **settings})
        trainer = Trainer(agent, ConversationEnvironment(SCENARIOS, max_turns=2), reward, config, parts)
        await trainer.prepare()
        return trainer


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """See `Kit`."""
    return Kit
