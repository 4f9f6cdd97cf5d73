"""A head on a frozen model, as a reward: what it reads, what it scores, and the folder that it is kept in."""

import asyncio
import json
import math
import threading
from dataclasses import replace

import pytest
import torch

from stateset_agents.checkpoints import read_checkpoint, write_checkpoint
from stateset_agents.core.errors import CheckpointError, ConfigError, ModelError
from stateset_agents.core.reward import RewardType, build_rewards
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.models import load_model
from stateset_agents.rewards.backbone import Backbone
from stateset_agents.rewards.learned import LearnedReward
from stateset_agents.rewards.preference_model import FitReport, PreferenceModel

REPORT = FitReport(
    accuracy=0.9, low=0.6, high=0.98, held_out=10, fitted=32, watched=8, prompts=50, unit="prompt", steps=12, loss=0.3,
    watched_loss=0.4, l2=0.1, seed=0,
)  # fmt: skip
WIDTH = 64
ASKED = [{"role": "user", "content": "Is it free?"}]
TALK = [*ASKED, {"role": "assistant", "content": "Yes, all of it."}]


def turns_of(messages):
    return [ConversationTurn(message["role"], message["content"]) for message in messages]


def one_input(place, *, bias=0.0, pooling="last", told=False):
    """A head that looks at one number of the backbone's."""
    weight = torch.zeros(2 * WIDTH if pooling == "both" else WIDTH, dtype=torch.float64)
    weight[place] = 1.0
    return PreferenceModel(Backbone("tiny", pooling), weight, bias, told, REPORT)


def states_of(messages):
    """Last hidden states of a model of its own, by transformers' own ways of rendering and running it."""
    loaded = load_model("tiny")
    ids = loaded.tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)
    begins = loaded.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        return loaded.model(ids, output_hidden_states=True).hidden_states[-1][0].double(), len(begins)


def logistic(value):
    return 1 / (1 + math.exp(-value))


async def test_the_score_is_the_logistic_of_what_the_head_makes_of_the_last_token():
    states, _ = states_of(TALK)
    result = await LearnedReward.of(one_input(5, bias=0.5)).evaluate(turns_of(TALK))
    assert result.breakdown["value"] == pytest.approx(states[-1][5].item() + 0.5, abs=1e-6)
    assert result.score == pytest.approx(logistic(states[-1][5].item() + 0.5), abs=1e-6)


async def test_mean_pooling_averages_from_the_first_reply_on_and_both_is_one_after_the_other():
    states, begins = states_of(TALK)
    mean = states[begins:].mean(dim=0)
    assert 0 < begins < len(states)
    assert one_input(5, pooling="mean").value(TALK) == pytest.approx(mean[5].item(), abs=1e-6)
    assert one_input(5, pooling="both").value(TALK) == pytest.approx(states[-1][5].item(), abs=1e-6)
    assert one_input(WIDTH + 5, pooling="both").value(TALK) == pytest.approx(mean[5].item(), abs=1e-6)


async def test_a_conversation_has_the_same_score_to_the_bit_alone_and_beside_others():
    reward = LearnedReward.of(one_input(3, pooling="both"))
    talks = [turns_of([*ASKED, {"role": "assistant", "content": "word " * count}]) for count in range(1, 9)]
    together = await asyncio.gather(*(reward.evaluate(talk) for talk in talks))
    for talk, beside in zip(talks, together, strict=True):
        assert (await LearnedReward.of(one_input(3, pooling="both")).evaluate(talk)).score == beside.score
    assert len({result.score for result in together}) == len(talks)


async def test_all_passes_are_in_one_thread_because_bits_depend_on_its_settings(monkeypatch):
    """Mutation: a pass in whichever thread asks."""
    model, threads = one_input(3), set()
    forward = model.backbone.model.model.base_model.forward
    monkeypatch.setattr(
        model.backbone.model.model.base_model,
        "forward",
        lambda *args, **kwargs: threads.add(threading.get_ident()) or forward(*args, **kwargs),
    )
    talks = [turns_of([*ASKED, {"role": "assistant", "content": "word " * count}]) for count in range(1, 9)]
    await asyncio.gather(*(LearnedReward.of(model).evaluate(talk) for talk in talks))
    model.value(TALK)
    assert len(threads) == 1


async def test_what_follows_the_last_reply_is_not_read_and_no_reply_scores_0():
    reward = LearnedReward.of(one_input(5))
    alone = await reward.evaluate(turns_of(TALK))
    followed = await reward.evaluate(turns_of([*TALK, {"role": "user", "content": "Thanks!"}]))
    assert followed.score == alone.score
    assert (await reward.evaluate(turns_of(ASKED))).score == 0.0


async def test_the_system_prompt_is_read_only_where_the_pairs_had_one():
    context = {"system_prompt": "You sell plans."}
    deaf, hearing = LearnedReward.of(one_input(5)), LearnedReward.of(one_input(5, told=True))
    assert (await deaf.evaluate(turns_of(TALK), context)).score == (await deaf.evaluate(turns_of(TALK))).score
    told = (await hearing.evaluate(turns_of(TALK), context)).breakdown["value"]
    states, _ = states_of([{"role": "system", "content": "You sell plans."}, *TALK])
    assert told == pytest.approx(states[-1][5].item(), abs=1e-6)


async def test_a_conversation_that_is_too_long_is_unscored_and_says_why():
    result = await LearnedReward.of(one_input(5)).evaluate(
        turns_of([*ASKED, {"role": "assistant", "content": "7" * 4100}])
    )
    assert result.score is None
    assert "the context of tiny is 4096" in result.metadata["unscored"]


async def test_scores_so_far_out_that_the_exponent_would_overflow_are_0_and_1():
    for bias, expected in ((-1e6, 0.0), (1e6, 1.0)):
        result = await LearnedReward.of(one_input(5, bias=bias)).evaluate(turns_of(TALK))
        assert result.score == pytest.approx(expected, abs=1e-12)


def test_the_backbone_cannot_be_trained_and_is_in_memory_once():
    one, other = Backbone("tiny", "last"), Backbone("tiny", "mean")
    assert one.model is other.model
    assert not any(parameter.requires_grad for parameter in one.model.model.parameters())
    assert one.model.model is not load_model("tiny").model


async def test_a_saved_reward_comes_back_with_the_same_scores_to_the_bit(tmp_path):
    reward = LearnedReward.of(one_input(5, bias=0.25, pooling="both", told=True), weight=0.5, name="liking")
    score = (await reward.evaluate(turns_of(TALK), {"system_prompt": "Hm."})).score
    reward.save(tmp_path / "liking")
    again = LearnedReward.load(tmp_path / "liking")
    assert (await again.evaluate(turns_of(TALK), {"system_prompt": "Hm."})).score == score
    assert again.model.report == REPORT
    assert "orders 0.900 of 10 held-out pairs right (95 % interval 0.600 to 0.980)" in again.notices([])[0]
    assert sorted(path.name for path in (tmp_path / "liking").iterdir()) == [
        "head.safetensors", "manifest.json", "reward.json",
    ]  # fmt: skip


async def test_a_config_names_the_folder_and_what_it_writes_makes_the_reward_again(tmp_path):
    reward = LearnedReward.of(one_input(5))
    score = (await reward.evaluate(turns_of(TALK))).score
    assert reward.to_config()["rebuildable"] is False
    path = reward.save(tmp_path / "liking")
    composite = build_rewards([{"type": "learned", "folder": "liking", "weight": 2.0}], base_dir=tmp_path)
    assert (await composite.evaluate(turns_of(TALK))).score == 2.0 * score
    written = json.loads(json.dumps(composite.to_config()))
    entry = written["functions"][0]
    assert entry == {"type": "learned", "weight": 2.0, "folder": str(path), "sha256": reward.sha256}
    assert (await build_rewards(written).evaluate(turns_of(TALK))).score == 2.0 * score
    LearnedReward.of(one_input(6)).save(path, replace=True)
    with pytest.raises(ConfigError, match=r"liking holds a learned reward with SHA-256 \w+, not \w+: it is another"):
        build_rewards(written)


async def test_it_can_look_after_each_turn():
    talk = turns_of([*TALK, {"role": "user", "content": "Really?"}, {"role": "assistant", "content": "Really."}])
    reward = LearnedReward.of(one_input(5))
    parts = [(await reward.evaluate(talk[:end])).score for end in (2, 4)]
    reward.reward_type = RewardType.CUMULATIVE
    result = await reward.evaluate(talk)
    assert result.score == parts[1]
    assert result.turn_rewards == pytest.approx([parts[0], parts[1] - parts[0]])


def written(tmp_path, change=None, **tensors):
    """A folder that says something else than `save` would."""
    LearnedReward.of(one_input(5)).save(tmp_path / "right")
    checkpoint = read_checkpoint(tmp_path / "right")
    record = checkpoint.record("reward")
    if change is not None:
        change(record)
    head = {"head": {**checkpoint.tensors("head"), **tensors}}
    return write_checkpoint(tmp_path / "wrong", tensors=head, records={"reward": record})


async def test_another_model_under_the_same_name_is_refused(tmp_path):
    def other(record):
        record["backbone"]["identity"]["sha256"]["model"] = "0" * 64

    reward = LearnedReward(folder=written(tmp_path, other))
    with pytest.raises(ModelError, match="tiny is not the model that the reward was fitted on"):
        await reward.evaluate(turns_of(TALK))


async def test_a_head_of_another_width_is_refused(tmp_path):
    reward = LearnedReward(folder=written(tmp_path, weight=torch.ones(65, dtype=torch.float64)))
    with pytest.raises(ModelError, match="the learned reward has 65 weights, but tiny gives 64 numbers"):
        await reward.evaluate(turns_of(TALK))


def test_a_stub_has_no_hidden_states(tmp_path):
    def stub(record):
        record["backbone"]["identity"]["name"] = "stub://hello"

    with pytest.raises(ModelError, match="stub://hello has no weights"):
        LearnedReward(folder=written(tmp_path, stub)).model.value(TALK)


def test_a_later_format_is_refused(tmp_path):
    def later(record):
        record["version"] = 2

    with pytest.raises(CheckpointError, match="'learned-reward' of version 2; this release reads"):
        LearnedReward(folder=written(tmp_path, later))


@pytest.mark.parametrize("missing", ["backbone", "report", "reads_system_prompt", "format"])
def test_a_folder_that_lacks_something_is_refused(tmp_path, missing):
    with pytest.raises(CheckpointError, match="wrong is no learned reward: KeyError"):
        LearnedReward(folder=written(tmp_path, lambda record: record.pop(missing)))


def test_a_damaged_head_is_refused(tmp_path):
    folder = LearnedReward.of(one_input(5)).save(tmp_path / "liking")
    head = folder / "head.safetensors"
    content = bytearray(head.read_bytes())
    content[-3] ^= 1
    head.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        LearnedReward(folder=folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    write_checkpoint(tmp_path / "model", records={"agent": {}})
    with pytest.raises(CheckpointError, match="model holds no learned reward"):
        LearnedReward(folder=tmp_path / "model")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        LearnedReward(folder=tmp_path / "nothing")


def test_a_head_that_is_not_finite_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="NaN"):
        LearnedReward.of(replace(one_input(5), weight=torch.full((WIDTH,), math.nan))).save(tmp_path / "liking")


def test_an_interval_with_a_half_in_it_is_called_a_toss_of_a_coin():
    assert "toss" not in REPORT.text()
    assert replace(REPORT, low=0.5).text().endswith("that cannot be told from a toss of a coin")
    assert "of only 50 prompts" in replace(REPORT, unit="pair").text()
