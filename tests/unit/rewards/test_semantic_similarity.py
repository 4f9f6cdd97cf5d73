"""Nearness to a reference: which reply, which wording and which topic count, and what that model cannot see."""

import importlib.metadata
import json

import pytest
import torch

from stateset_agents.core.errors import ConfigError, DataError, ModelError
from stateset_agents.core.reward import build_rewards
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.models.sentences import WHEEL
from stateset_agents.rewards.semantic_similarity import SemanticSimilarityReward

ANGLES = {  # degrees; the cosine of the difference is the similarity
    "north": 0.0, "nearly north": 60.0, "a bit north": 75.5224878, "east": 90.0, "south": 180.0, "": 0.0, " ": 0.0,
}  # fmt: skip


class Compass:
    """Stands in for the model: texts are directions."""

    def vectors(self, texts):
        angles = torch.deg2rad(torch.tensor([ANGLES[text] for text in texts], dtype=torch.float64))
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def compass(**settings):
    reward = SemanticSimilarityReward(model="compass", **settings)
    reward.embedder = Compass()
    return reward


def talk(*replies):
    return [turn for reply in replies for turn in (ConversationTurn("user", "?"), ConversationTurn("assistant", reply))]


async def test_the_best_reply_counts_and_earns_the_score():
    result = await compass(ground_truth="north").evaluate(talk("east", "nearly north", "a bit north"))
    assert result.score == pytest.approx(0.5)
    assert result.turn_rewards == pytest.approx([0.0, 0.5, 0.0])


async def test_the_last_reply_counts_where_that_is_asked_for():
    result = await compass(ground_truth="north", reply="last").evaluate(talk("north", "a bit north"))
    assert result.score == pytest.approx(0.25)
    assert result.turn_rewards == pytest.approx([0.0, 0.25])


async def test_of_several_wordings_the_nearest_counts_and_of_several_topics_the_mean():
    several = compass(ground_truth={"one": ["south", "nearly north"]})
    assert (await several.evaluate(talk("north"), {"scenario_id": "one"})).score == pytest.approx(0.5)
    topics = compass(ground_truth={"one": {"up": "north", "right": ["south", "east"]}})
    result = await topics.evaluate(talk("nearly north", "east"), {"scenario_id": "one"})
    assert result.breakdown == pytest.approx({"up": 0.5, "right": 1.0})
    assert result.score == pytest.approx(0.75)
    assert result.turn_rewards == pytest.approx([0.25, 0.5])


async def test_the_opposite_is_worth_no_less_than_something_else_and_silence_is_worth_nothing():
    reward = compass(ground_truth="north")
    assert (await reward.evaluate(talk("south"))).score == 0.0
    assert (await reward.evaluate(talk("", " "))).score == 0.0
    assert (await reward.evaluate([ConversationTurn("user", "?")])).score == 0.0
    # Silence stands where north does, and still earns nothing beside a reply that says something.
    result = await reward.evaluate(talk("", "nearly north"))
    assert result.turn_rewards == pytest.approx([0.0, 0.5])


async def test_the_scenarios_own_reference_is_used_where_none_is_given_and_without_any_it_is_unscored():
    reward = compass()
    assert (await reward.evaluate(talk("north"), {"ground_truth": ("south", "north")})).score == pytest.approx(1.0)
    own = compass(ground_truth={"one": "north"})
    context = {"scenario_id": "one", "ground_truth": "east"}
    assert (await own.evaluate(talk("north"), context)).score == pytest.approx(1.0)
    result = await compass(ground_truth={"other": "north"}).evaluate(talk("north"), {"scenario_id": "one"})
    assert result.score is None
    assert result.metadata["unscored"] == "scenario 'one' has no ground truth"


async def test_what_a_tool_was_told_is_no_reply():
    said = talk("nearly north")
    called = [said[0], ConversationTurn("assistant", "north"), ConversationTurn("tool", "south"), said[1]]
    result = await compass(ground_truth="north").evaluate(called)
    assert result.score == pytest.approx(0.5)
    assert result.turn_rewards == pytest.approx([0.0, 0.5])


def test_scenarios_without_reference_are_counted_and_none_at_all_is_an_error():
    reward = compass(ground_truth={"a": "north"})
    scenarios = [{"id": "a"}, {"id": "b"}, {"id": "c", "ground_truth": "east"}]
    reward.require(scenarios)
    assert "cannot judge 1 of 3 scenarios (first: 'b')" in reward.notices(scenarios)[1]
    with pytest.raises(ConfigError, match="nothing to compare with: none of the 1 scenarios has ground truth"):
        reward.require([{"id": "b"}])


async def test_a_config_names_it_and_what_it_writes_makes_it_again(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"ground_truth": {"a": ["It is free.", "No charge."]}}))
    (tmp_path / "embedder").mkdir()
    entry = {"type": "semantic_similarity", "ground_truth_file": "truth.json", "model": "embedder", "reply": "last"}
    written = json.loads(json.dumps(build_rewards([entry], base_dir=tmp_path).to_config()))
    assert written["functions"] == [
        {
            "type": "semantic_similarity", "weight": 1.0, "ground_truth": {"a": ["It is free.", "No charge."]},
            "model": str(tmp_path / "embedder"), "reply": "last",
        }
    ]  # fmt: skip
    assert build_rewards(written).to_config() == written


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="reply is 'first'; want 'best' or 'last'"):
        compass(reply="first")
    with pytest.raises(ConfigError, match="ground_truth or ground_truth_file, not both"):
        compass(ground_truth="north", ground_truth_file="truth.json")
    with pytest.raises(ConfigError, match="must be text with a word or a number"):
        compass(ground_truth={"a": "!"})
    with pytest.raises(DataError, match=r"nothing\.json"):
        compass(ground_truth_file="nothing.json")


def test_without_the_extra_it_says_at_once_what_to_install(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", none)
    with pytest.raises(ModelError, match=r"the extra `similarity`"):
        build_rewards([{"type": "semantic_similarity", "ground_truth": "It is free."}])


def installed():
    try:
        return bool(importlib.metadata.version(WHEEL))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason=f"{WHEEL} is not installed")
async def test_what_the_documentation_says_of_the_installed_model():
    reward = SemanticSimilarityReward(ground_truth="The plan costs $49 a month.")
    said = {
        "It is 49 dollars monthly.": 0.763,
        "I am happy to help you with that!": 0.037,
        "The plan costs $94 a month.": 0.855,
        "How much does the plan cost a month?": 0.851,
        "plan costs month 49": 0.908,
        "Der Tarif kostet 49 Dollar im Monat.": 0.253,
    }
    for reply, expected in said.items():
        assert (await reward.evaluate(talk(reply))).score == pytest.approx(expected, abs=2e-3), reply
    refund = SemanticSimilarityReward(ground_truth="We refund within 30 days.")
    assert (await refund.evaluate(talk("We do not refund within 30 days."))).score == pytest.approx(0.895, abs=2e-3)
