"""A reward fitted to pairs: how they are split, how it is scaled, what is refused, and what a policy makes of it."""

import json
import math
import random

import pytest
import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.config.training import TrainingConfig
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.errors import ConfigError, DataError, ModelError
from stateset_agents.core.reward import CompositeReward, RewardFunction, RewardResult
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.models import load_model
from stateset_agents.models.tiny import tiny_tokenizer
from stateset_agents.rewards.backbone import Backbone
from stateset_agents.rewards.learned import LearnedReward
from stateset_agents.training.neural_reward import NeuralRewardTrainer, _accuracy, _split
from stateset_agents.training.trainer import Trainer

WORD = " refund"
TALKS = (("Hello!", "And now?"), ("Is it free?", "How so?"))


def conversation(users, replies):
    talk = []
    for said, reply in zip(users, replies, strict=True):
        talk += [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]
    return talk


def pairs_of_a_word(count, *, talks=TALKS, seed=0):
    """Conversations of random words, and the same with some words replaced by one that is preferred."""
    tokenizer = tiny_tokenizer()
    (word,) = tokenizer.encode(WORD)
    rng = random.Random(seed)
    words = [token for token in range(2, len(tokenizer)) if tokenizer.decode([token]).isascii()]
    pairs = []
    for number in range(count):
        users = talks[number % len(talks)]
        rate = 0.8 * rng.random() ** 2
        worse = [[word if rng.random() < rate else rng.choice(words) for _ in range(8)] for _ in users]
        worse[0][3] = words[number % len(words)] if worse[0][3] == word else worse[0][3]
        better = [[word if rng.random() < 0.3 else token for token in reply] for reply in worse]
        better[0][3] = word
        sides = [conversation(users, [tokenizer.decode(reply) for reply in side]) for side in (better, worse)]
        pairs.append((sides[0], sides[1]))
    return pairs


def many_prompts(count):
    return tuple((f"Question {number}?", "And?") for number in range(count))


@pytest.fixture(scope="module")
def trainer():
    return NeuralRewardTrainer("tiny", pooling="mean")


@pytest.fixture(scope="module")
def fitted(trainer):
    return trainer.fit(pairs_of_a_word(120, talks=many_prompts(60)))


def test_it_orders_pairs_of_prompts_that_it_has_not_seen(fitted):
    report = fitted.model.report
    # 60 prompts of 2 pairs: a fifth is held out, 15 % are watched.
    assert (report.prompts, report.held_out, report.watched, report.fitted, report.unit) == (60, 24, 18, 78, "prompt")
    assert report.accuracy > 0.85
    assert report.low > 0.7
    assert report.better_than_chance
    assert report.loss < 0.4 < math.log(2)
    fresh = pairs_of_a_word(40, talks=(("Something else?", "So?"),), seed=9)
    right = sum(fitted.model.value(better) > fitted.model.value(worse) for better, worse in fresh)
    assert right >= 34


def test_the_values_of_what_was_fitted_have_mean_0_and_deviation_1(trainer, fitted):
    pairs = pairs_of_a_word(120, talks=many_prompts(60))
    (places, _, _), _ = _split([str(better[:1]) for better, _ in pairs], seed=0)
    values = torch.tensor([fitted.model.value(side) for place in places for side in pairs[place]])
    assert len(values) == 2 * 78
    assert values.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert values.std().item() == pytest.approx(1.0, abs=1e-6)


def test_the_same_pairs_give_the_same_reward_to_the_bit_and_another_seed_another(fitted):
    pairs = pairs_of_a_word(120, talks=many_prompts(60))
    again = NeuralRewardTrainer("tiny", pooling="mean").fit(pairs)
    assert again.model.weight.equal(fitted.model.weight)
    assert (again.model.bias, again.model.report) == (fitted.model.bias, fitted.model.report)
    other = NeuralRewardTrainer("tiny", pooling="mean", seed=1).fit(pairs)
    assert not other.model.weight.equal(fitted.model.weight)


def test_no_prompt_has_two_parts_and_every_pair_has_one():
    prompts = [f"prompt {number % 23}" for number in range(100)]
    parts, unit = _split(prompts, seed=3)
    assert unit == "prompt"
    assert sorted(place for part in parts for place in part) == list(range(100))
    of_parts = [{prompts[place] for place in part} for part in parts]
    # 23 prompts: 20 % rounded up are 5, 15 % rounded up are 4.
    assert [len(part) for part in of_parts] == [14, 4, 5]
    assert len(set.union(*of_parts)) == 23


def test_with_few_prompts_pairs_are_held_out_and_the_report_says_so():
    parts, unit = _split(["one", "two"] * 10, seed=0)
    assert unit == "pair"
    assert [len(part) for part in parts] == [13, 3, 4]


def test_the_interval_is_wilsons_where_every_pair_has_its_own_prompt():
    right = torch.tensor([True] * 8 + [False] * 2)
    # Wilson, 8 of 10: centre (0.8 + 1.92073 / 10) / 1.384146, half-width 1.959964 / 1.384146 x sqrt(0.016 + 0.0096036).
    accuracy, low, high = _accuracy(right, [f"prompt {number}" for number in range(10)], "prompt")
    assert (accuracy, low, high) == pytest.approx((0.8, 0.49016, 0.94332), abs=1e-4)
    assert _accuracy(right, ["the same"] * 10, "pair") == (accuracy, low, high)


def test_pairs_of_one_prompt_are_not_taken_for_independent():
    right = torch.tensor([True] * 40 + [False] * 40)
    prompts = ["one"] * 40 + ["two"] * 20 + ["three"] * 20
    accuracy, low, high = _accuracy(right, prompts, "prompt")
    assert accuracy == pytest.approx(1 / 3)
    assert (low, high) == (0.0, 1.0)


def test_each_conversation_is_read_by_the_model_once(monkeypatch):
    trainer, read = NeuralRewardTrainer("tiny"), []
    vector = Backbone.vector
    monkeypatch.setattr(Backbone, "vector", lambda self, ids, start: read.append(ids) or vector(self, ids, start))
    pairs = pairs_of_a_word(30)
    trainer.fit(pairs)
    trainer.l2 = 1.0
    trainer.fit([*pairs, *pairs])
    assert len(read) == len(set(read)) == 60


def test_a_data_file_records_and_turns_say_the_same(trainer, tmp_path):
    pairs = pairs_of_a_word(30)
    file = tmp_path / "pairs.jsonl"
    lines = [{"messages": better[:1], "chosen": better[1:], "rejected": worse[1:]} for better, worse in pairs]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_messages = trainer.fit(pairs)
    thanks = ConversationTurn("user", "Thanks!")  # nobody answers it, so it is not read
    turns = [[ConversationTurn(message["role"], message["content"]) for message in side] for p in pairs for side in p]
    of_turns = trainer.fit([([*turns[at], thanks], turns[at + 1]) for at in range(0, 60, 2)])
    for other in (trainer.fit(str(file)), of_turns):
        assert other.model.weight.equal(of_messages.model.weight)
        assert other.model.report == of_messages.model.report
    assert not of_messages.model.reads_system_prompt


def test_pairs_with_a_system_message_make_a_reward_that_reads_the_system_prompt(trainer):
    told = {"role": "system", "content": "You sell plans."}
    pairs = [([told, *better], [told, *worse]) for better, worse in pairs_of_a_word(24)]
    assert trainer.fit(pairs).model.reads_system_prompt


def test_too_few_pairs_are_refused_and_the_same_pair_counts_once(trainer):
    (pair,) = pairs_of_a_word(1)
    with pytest.raises(DataError, match="there are 19 different pairs; a reward is fitted to at least 20"):
        trainer.fit(pairs_of_a_word(19))
    with pytest.raises(DataError, match="there are 1 different pairs"):
        trainer.fit([pair] * 50)
    with pytest.raises(DataError, match="there are 0 different pairs"):
        trainer.fit([])


def test_every_pair_with_nothing_to_prefer_is_named(trainer):
    pairs = pairs_of_a_word(30)
    pairs[3] = (pairs[3][0], pairs[3][0])
    pairs[7] = (pairs[7][0], pairs[7][0][:1])
    with pytest.raises(DataError, match=r"^pairs\[7\]: a conversation of it has no reply of the assistant$"):
        trainer.fit(pairs)
    pairs[7] = (pairs[7][0], [*ASKED_TWICE, {"role": "assistant", "content": "7" * 5000}])
    with pytest.raises(DataError) as caught:
        trainer.fit(pairs)
    first, second = str(caught.value).splitlines()
    assert first == "pairs[3]: chosen and rejected are the same, so there is nothing to prefer"
    assert second.startswith("pairs[7]: the conversation has 50")


ASKED_TWICE = [{"role": "user", "content": "Well?"}]


def test_pairs_that_contradict_each_other_teach_nothing(trainer):
    pairs = pairs_of_a_word(20)
    with pytest.raises(DataError, match="nothing was learned: whatever tells the 26 fitted pairs apart"):
        trainer.fit([*pairs, *((worse, better) for better, worse in pairs)])


def test_preferences_by_a_toss_of_a_coin_are_refused_or_called_so(trainer):
    rng = random.Random(4)
    called = []
    for seed in range(4):
        pairs = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs_of_a_word(60, seed=seed)]
        try:
            called.append(trainer.fit(pairs).model.report.text())
        except DataError as error:
            called.append(str(error))
    assert all("nothing was learned" in text or "cannot be told from a toss of a coin" in text for text in called)


def test_a_model_that_sees_no_difference_is_refused():
    trainer = NeuralRewardTrainer("tiny", pooling="last")
    loaded = load_model("tiny")
    with torch.no_grad():
        loaded.model.base_model.norm.weight.zero_()
    trainer.backbone.model = loaded
    with pytest.raises(DataError, match="tiny sees no difference between the chosen and the rejected"):
        trainer.fit(pairs_of_a_word(24))


def test_a_model_with_nan_in_it_is_refused():
    trainer = NeuralRewardTrainer("tiny")
    loaded = load_model("tiny")
    with torch.no_grad():
        loaded.model.base_model.norm.weight[7] = math.nan
    trainer.backbone.model = loaded
    with pytest.raises(ModelError, match="tiny gives hidden states that are not finite numbers in float32"):
        trainer.fit(pairs_of_a_word(24))


@pytest.mark.parametrize("settings", [{"l2": 0.0}, {"l2": math.nan}, {"l2": -1.0}, {"pooling": "first"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        NeuralRewardTrainer("tiny", **settings)


class ShareOfTheWord(RewardFunction):
    """What the pairs preferred; weighs nothing, so that nobody is trained for it."""

    async def compute_reward(self, turns, context=None):
        ids = [token for turn in turns if turn.span is not None for token in turn.span.ids]
        return RewardResult(ids.count(tiny_tokenizer().encode(WORD)[0]) / len(ids))


async def test_a_policy_that_is_trained_for_the_learned_reward_does_what_was_preferred(trainer, tmp_path):
    saved = trainer.fit(pairs_of_a_word(200)).save(tmp_path / "liking")
    seen: list[tuple[float, float]] = []

    class Watched(CompositeReward):
        async def compute_reward(self, turns, context=None):
            result = await super().compute_reward(turns, context)
            seen.append((result.breakdown["learned"], result.breakdown["share_of_the_word"]))
            return result

    agent = MultiTurnAgent.from_model("tiny", temperature=1.0, max_new_tokens=8, dtype="float32", device="cpu")
    scenarios = [{"id": users[0], "user_responses": list(users)} for users in TALKS]
    config = TrainingConfig.from_profile(
        "balanced", num_episodes=12 * 32, num_generations=16, batch_size=32, gradient_accumulation_steps=1,
        learning_rate=5e-3, warmup_steps=0, eval_every=0, save_every=0, mixed_precision=False,
    )  # fmt: skip
    reward = Watched([LearnedReward(folder=saved), ShareOfTheWord(0.0)])
    run = Trainer(agent, ConversationEnvironment(scenarios, max_turns=2), reward, config)
    await run.prepare()
    await run.run()
    await agent.aclose()
    learned, true = ([sum(step[at] for step in seen[i : i + 32]) / 32 for i in (0, len(seen) - 32)] for at in (0, 1))
    assert true[0] < 0.05
    assert true[1] > 0.5
    assert learned[1] > learned[0] + 0.3
