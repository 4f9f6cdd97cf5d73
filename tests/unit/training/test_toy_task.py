"""The whole loop learns a task from its reward, and learns nothing from noise.

The reward is the share of one token among all that the agent says in a conversation of two turns. The random model says
it about once in fifty tokens at first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import RewardFunction, RewardResult
from stateset_agents.engines.sampling import uniform
from stateset_agents.training.trainer import Trainer

WORD = " refund"
STEPS = 15


class ShareOfOneToken(RewardFunction):
    """Reads the sampled ids, so that it cannot be fooled by how they are spelled."""

    maximum = 1.0

    def __init__(self, token: int, *, noise: bool) -> None:
        super().__init__()
        self.token = token
        self.noise = noise
        self.shares: list[float] = []
        self.had: Counter[str] = Counter()

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        self.shares.append(ids.count(self.token) / len(ids))
        if not self.noise:
            return RewardResult(self.shares[-1])
        # Conversations end in no fixed order, so a number of the order would be another in every run.
        key = f"{ids}/{[turn.content for turn in turns]}"
        self.had[key] += 1
        return RewardResult(uniform(key, self.had[key]))


async def shares_by_step(*, noise: bool, **settings: Any) -> list[float]:
    """Train for fifteen steps; the mean share of each of them."""
    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    await agent.initialize()
    (token,) = agent.runtime.model.tokenizer.encode(WORD)
    scenarios = [
        {"id": "greeting", "user_responses": ["Hello!", "And now?"]},
        {"id": "question", "user_responses": ["Is it free?", "How so?"]},
    ]
    config = TrainingConfig.from_profile(
        "balanced",
        **{
            "num_episodes": STEPS * 32, "num_generations": 16, "batch_size": 32, "gradient_accumulation_steps": 1,
            "learning_rate": 5e-3, "warmup_steps": 0, "eval_every": 0, "save_every": 0, "mixed_precision": False,
            **settings,
        },
    )  # fmt: skip
    reward = ShareOfOneToken(token, noise=noise)
    trainer = Trainer(agent, ConversationEnvironment(scenarios, max_turns=2), reward, config)
    await trainer.prepare()
    await trainer.run()
    await agent.aclose()
    return [sum(reward.shares[i : i + 32]) / 32 for i in range(0, len(reward.shares), 32)]


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 0},
        {"seed": 1, "num_iterations": 2, "batch_size": 8, "gradient_accumulation_steps": 4, "beta": 0.001},
        {"seed": 2, "lora": {"r": 8, "alpha": 16}, "learning_rate": 2e-2, "gradient_checkpointing": True},
        {"seed": 3, "scale_rewards": "none", "loss_normalization": "constant"},
    ],
    ids=["plain", "two iterations and a divergence", "adapters", "Dr. GRPO"],
)
async def test_the_share_of_the_token_goes_from_under_a_tenth_to_nearly_one(settings):
    """Mutation: the sign of the objective, or an optimizer that makes no step."""
    shares = await shares_by_step(noise=False, **settings)
    assert shares[0] < 0.1
    assert max(shares) >= 0.95


async def test_rewards_by_chance_teach_nothing():
    """The control: a drift towards the token would pass for learning. Mutation: noise that is the share after all."""
    shares = await shares_by_step(noise=True, seed=0)
    assert len(shares) == STEPS
    assert max(shares) < 0.1
