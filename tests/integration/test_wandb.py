"""What Weights & Biases gets, by the real package in its offline mode: the records it wrote are read back."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent
from stateset_agents.cli.train import main
from stateset_agents.core.agent import AgentConfig
from stateset_agents.core.reward import HelpfulnessReward
from stateset_agents.tracking.run_folder import read_metrics
from stateset_agents.training import TRLGRPOConfig, train_with_trl_grpo
from wandb_records import rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the extra wandb is not installed"),
]

CONFIG = Path(__file__).parents[2] / "configs" / "my_agent.yaml"
SCENARIOS = [{"id": "order", "user_responses": ["Where is my order?", "And when does it come?"]}]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")


def agent():
    return MultiTurnAgent(AgentConfig(model_name="tiny", max_new_tokens=6))


def test_the_bridge_sends_losses_rewards_the_learning_rate_and_conversations(tmp_path):
    config = TRLGRPOConfig(
        num_episodes=16,
        batch_size=4,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_completion_length=6,
        output_dir=str(tmp_path),
        wandb_project="ours",
        wandb_samples=3,
    )
    environment = ConversationEnvironment(scenarios=SCENARIOS)
    asyncio.run(
        train_with_trl_grpo(
            config=config, agent=agent(), environment=environment, reward_model=HelpfulnessReward(), quiet=True
        )
    )
    history = rows(tmp_path)
    metrics = [row for row in history if "train/loss" in row]
    assert [row["train/step"] for row in metrics] == [1, 2]
    for name in ("train/loss", "train/reward_mean", "train/learning_rate", "train/grad_norm"):
        assert all(isinstance(row[name], float) for row in metrics), name
    tables = [row for row in history if row.get("samples._type") == "table-file"]
    assert [(row["train/step"], row["samples.ncols"], row["samples.nrows"]) for row in tables] == [(1, 5, 3), (2, 5, 3)]
    (path,) = tmp_path.glob("**/files/" + tables[0]["samples.path"])
    table = json.loads(path.read_text())
    assert table["columns"] == ["step", "scenario", "conversation", "reward", "outcome"]
    assert "user: Where is my order?\nassistant: " in table["data"][0][2]


def test_a_run_of_our_own_sends_every_number_of_its_metrics(tmp_path, monkeypatch):
    command = ["grpo-train", str(CONFIG), "--output-dir", str(tmp_path / "run"), "--model-name", "tiny"]
    monkeypatch.setattr(sys, "argv", [*command, "--num-episodes", "32", "--wandb-project", "ours"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    history = rows(tmp_path)
    written = [row for row in read_metrics(tmp_path / "run") if "step" in row]
    sent = [row for row in history if "train/step" in row]
    assert [row["train/step"] for row in sent] == [row["step"] for row in written] == [1, 2]
    for row, line in zip(sent, written, strict=True):
        numbers = {f"train/{k}": v for k, v in line.items() if isinstance(v, float) and k != "step"}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers)
