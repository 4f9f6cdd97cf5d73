"""Weights & Biases gets metrics and conversations of a TRL run; its client library is a stand-in at its seam."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.core.errors import ConfigError
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo
from stateset_agents.training.trl.library import import_trl


class FakeWandb(ModuleType):
    """Records what it is given."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.rows, self.exit_codes = [], [], []

    def Settings(self, **settings):
        return settings

    def Table(self, columns, data):
        return SimpleNamespace(columns=columns, data=data)

    def init(self, **arguments):
        self.inits.append(arguments)
        return SimpleNamespace(
            id="abc123",
            define_metric=lambda *_, **__: None,
            log=self.rows.append,
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch):
    import_trl()  # which looks for the real one
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


async def vowels(turns, context=None):
    text = "".join(turn.content for turn in turns if turn.role == "assistant").lower()
    return sum(letter in "aeiou" for letter in text) / (len(text) + 1)


def training(folder, **settings):
    config = TRLGRPOConfig(
        num_episodes=8, batch_size=4, gradient_accumulation_steps=1, learning_rate=1e-3, output_dir=str(folder),
        max_completion_length=4, gradient_checkpointing=False, temperature=1.0, **settings,
    )  # fmt: skip
    environment = ConversationEnvironment([{"user_responses": ["Hi", "And?"]}])
    return train_with_trl_grpo(config, MultiTurnAgent.from_model("tiny"), environment, vowels, quiet=True)


async def test_a_run_sends_loss_reward_samples_and_the_learning_rate(wandb, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_PROJECT", "grpo-training")
    monkeypatch.setenv("WANDB_ENTITY", "your-entity")
    caplog.set_level("INFO")
    await training(tmp_path / "run")
    (init,) = wandb.inits
    assert (init["project"], init["entity"]) == ("grpo-training", "your-entity")
    assert init["config"]["trl"]["num_episodes"] == 8
    metrics = [row for row in wandb.rows if "samples" not in row]
    assert [row["train/step"] for row in metrics] == [1, 2]
    for row in metrics:
        assert {"train/loss", "train/reward_mean", "train/learning_rate", "train/grad_norm"} <= row.keys()
    tables = [row["samples"].data for row in wandb.rows if "samples" in row]
    assert [len(rows) for rows in tables] == [4, 4]
    assert tables[0][0][2].startswith("user: Hi\nassistant: ")
    assert wandb.exit_codes == [0]
    assert "W&B gets 4 conversations of each round" in caplog.text


async def test_the_configs_project_wins_over_the_variable(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "of-the-shell")
    await training(tmp_path / "run", wandb_project="of-the-config", wandb_samples=0)
    assert wandb.inits[0]["project"] == "of-the-config"
    assert not [row for row in wandb.rows if "samples" in row]


async def test_without_wandb_a_named_project_is_refused_in_one_line_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"project is named \(mine\).*grpo-agent-framework\[wandb\]") as caught:
        await training(tmp_path / "run", wandb_project="mine")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
