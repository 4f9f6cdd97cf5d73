"""What a learned reward is worth: which hidden states it should read, and what a policy makes of it.

    python benchmarks/learned_reward.py pooling    SmolLM2's answers to customers, ordered by four simple rules
    python benchmarks/learned_reward.py policy     the tiny model, trained for a reward that was learned from pairs

The rules of `pooling` are known, so that it is known which order is right; `policy` watches the share of the one word
that the pairs preferred, beside the reward that was learned from them.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stateset_agents.core.reward import CompositeReward, HelpfulnessReward, RewardFunction, RewardResult
from stateset_agents.core.trajectory import ConversationTurn

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m-instruct"
SEEDS = range(4)
POLITE = ("thank", "please", "sorry", "glad", "happy", "welcome")
WORD = " refund"
TALKS = (("Hello!", "And now?"), ("Is it free?", "How so?"))
Messages = list[dict[str, str]]


async def answers(model: str, questions: int) -> dict[str, list[str]]:
    """Three answers of the model to each of the shipped scenarios' first questions."""
    from stateset_agents.agents.multi_turn import MultiTurnAgent

    agent = MultiTurnAgent.from_model(model, temperature=1.0, max_new_tokens=48)
    await agent.initialize()
    data = json.loads((ROOT / "data/customer_service_scenarios.json").read_text(encoding="utf-8"))
    asked = [(one["id"], said) for one in data["scenarios"] for said in one["user_responses"][:2]][:questions]

    async def one(scenario: str, said: str, sample: int) -> tuple[str, str]:
        turn = await agent.fork(f"{scenario}-{said}-{sample}").process_turn([], said)
        return said, turn.content

    found: dict[str, list[str]] = defaultdict(list)
    tasks = [one(scenario, said, sample) for scenario, said in asked for sample in range(3)]
    for said, reply in await asyncio.gather(*tasks):
        if reply.strip():
            found[said].append(reply)
    await agent.aclose()
    return found


async def pooling(model: str, questions: int) -> None:
    """Print a table of held-out accuracies."""
    from stateset_agents.core.errors import DataError
    from stateset_agents.rewards.backbone import POOLINGS, Backbone
    from stateset_agents.training.neural_reward import NeuralRewardTrainer

    class Part(Backbone):
        """A part of the vectors of "both", which are computed once."""

        def vector(self, ids: Sequence[int], start: int) -> Any:
            both = read(ids, start)
            width = len(both) // 2
            return {"both": both, "last": both[:width], "mean": both[width:]}[self.pooling]

    read = functools.cache(Backbone(model, "both").vector)
    said = await answers(model, questions)
    helpful = {
        (asked, reply): (await HelpfulnessReward().evaluate(turns(exchange(asked, reply)))).score or 0.0
        for asked, replies in said.items()
        for reply in replies
    }
    rules: dict[str, Callable[[str, str], float]] = {
        "helpfulness": lambda asked, reply: helpful[asked, reply],
        "shortest": lambda asked, reply: -len(reply),
        "most questions": lambda asked, reply: reply.count("?"),
        "most polite words": lambda asked, reply: sum(word in reply.lower() for word in POLITE),
    }
    trainers = {kind: NeuralRewardTrainer(model, pooling=kind) for kind in POOLINGS}
    for kind, trainer in trainers.items():
        trainer.backbone = Part(model, kind)
    print("| rule | pairs | " + " | ".join(POOLINGS) + " |\n|---|" + "---|" * (1 + len(POOLINGS)))
    for name, rule in rules.items():
        pairs = []
        for asked, replies in said.items():
            for one, other in itertools.combinations(replies, 2):
                if rule(asked, one) != rule(asked, other):
                    sides = sorted((one, other), key=lambda reply: rule(asked, reply), reverse=True)
                    pairs.append((exchange(asked, sides[0]), exchange(asked, sides[1])))
        cells = []
        for trainer in trainers.values():
            accuracies = []
            for trainer.seed in SEEDS:
                try:
                    accuracies.append(trainer.fit(pairs).model.report.accuracy)
                except DataError:  # nothing was learned: a toss of a coin
                    accuracies.append(0.5)
            cells.append(f"{sum(accuracies) / len(accuracies):.2f}")
        print(f"| {name} | {len(pairs)} | " + " | ".join(cells) + " |", flush=True)


async def policy(count: int, steps: int) -> None:
    """Train for rewards learned from two kinds of pairs that prefer the same word."""
    for near in (True, False):
        pairs = pairs_of_a_word(count, near=near)
        report, learned, true = await trained_for(pairs, steps)
        print("pairs that differ in that word alone" if near else "pairs of unrelated replies")
        print(f"  the reward {report}")
        print("  learned reward by step     ", " ".join(f"{value:.2f}" for value in learned))
        print("  share of the word by step  ", " ".join(f"{value:.2f}" for value in true), flush=True)


def pairs_of_a_word(count: int, *, near: bool) -> list[tuple[Messages, Messages]]:
    """Random replies; the better has the word more often, and is else the same (`near`) or has nothing in common."""
    from stateset_agents.models.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    (word,) = tokenizer.encode(WORD)
    rng = random.Random(0)
    tokens = [token for token in range(2, len(tokenizer)) if tokenizer.decode([token]).isascii()]

    def replies(rate: float) -> list[list[int]]:
        return [[word if rng.random() < rate else rng.choice(tokens) for _ in range(8)] for _ in range(2)]

    pairs: list[tuple[Messages, Messages]] = []
    while len(pairs) < count:
        users = rng.choice(TALKS)
        worse = replies(0.8 * rng.random() ** 2 if near else rng.random())
        better = [[word if rng.random() < 0.3 else token for token in reply] for reply in worse]
        better = better if near else replies(rng.random())
        if sum(reply.count(word) for reply in better) > sum(reply.count(word) for reply in worse):
            sides = [[tokenizer.decode(reply) for reply in side] for side in (better, worse)]
            pairs.append((conversation(users, sides[0]), conversation(users, sides[1])))
    return pairs


def conversation(users: Sequence[str], replies: Sequence[str]) -> Messages:
    """A conversation of several turns."""
    return [message for user, reply in zip(users, replies, strict=True) for message in exchange(user, reply)]


class ShareOfTheWord(RewardFunction):
    """What the pairs preferred."""

    def __init__(self, weight: float, token: int) -> None:
        super().__init__(weight)
        self.token = token

    async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
        """Share among the sampled tokens."""
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        return RewardResult(ids.count(self.token) / len(ids))


async def trained_for(pairs: list[tuple[Messages, Messages]], steps: int) -> tuple[str, list[float], list[float]]:
    """The report of a reward that is learned from the pairs, and its mean and the true one for each step."""
    from stateset_agents.agents.multi_turn import MultiTurnAgent
    from stateset_agents.config.training import TrainingConfig
    from stateset_agents.core.environment import ConversationEnvironment
    from stateset_agents.models.tiny import tiny_tokenizer
    from stateset_agents.training.neural_reward import NeuralRewardTrainer
    from stateset_agents.training.trainer import Trainer

    learned = NeuralRewardTrainer("tiny", pooling="mean").fit(pairs)
    (word,) = tiny_tokenizer().encode(WORD)
    seen: list[tuple[float, float]] = []

    class Watched(CompositeReward):
        async def compute_reward(self, turns: Sequence[Any], context: Any = None) -> RewardResult:
            result = await super().compute_reward(turns, context)
            seen.append((result.breakdown["learned"], result.breakdown["share_of_the_word"]))
            return result

    config = TrainingConfig.from_profile(
        "balanced", num_episodes=steps * 32, num_generations=16, batch_size=32, gradient_accumulation_steps=1,
        learning_rate=5e-3, warmup_steps=0, eval_every=0, save_every=0, mixed_precision=False,
    )  # fmt: skip
    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    scenarios = [{"id": users[0], "user_responses": list(users)} for users in TALKS]
    reward = Watched([learned, ShareOfTheWord(0.0, word)])
    run = Trainer(agent, ConversationEnvironment(scenarios, max_turns=2), reward, config)
    await run.prepare()
    await run.run()
    await agent.aclose()
    by_step = [seen[at : at + 32] for at in range(0, len(seen), 32)]
    means = [[sum(one[side] for one in step) / len(step) for step in by_step] for side in (0, 1)]
    return learned.model.report.text(), means[0], means[1]


def exchange(asked: str, reply: str) -> Messages:
    """A question and its answer."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]


def turns(messages: Messages) -> list[ConversationTurn]:
    """Messages as turns."""
    return [ConversationTurn(message["role"], message["content"]) for message in messages]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pooling", "policy"))
    parser.add_argument("--model", default=MODEL, help="that answers and is read, for pooling")
    parser.add_argument("--questions", type=int, default=110, help="for pooling")
    parser.add_argument("--pairs", type=int, default=200, help="for policy")
    parser.add_argument("--steps", type=int, default=16, help="for policy")
    arguments = parser.parse_args()
    if arguments.what == "pooling":
        asyncio.run(pooling(arguments.model, arguments.questions))
    else:
        asyncio.run(policy(arguments.pairs, arguments.steps))


if __name__ == "__main__":
    main()
