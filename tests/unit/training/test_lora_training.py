from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.core.errors import ConfigError
from stateset_agents.core.reward import HelpfulnessReward

LORA = {"lora": True, "batch_size": 8, "gradient_accumulation_steps": 1}


async def _trained(save_path: Path) -> MultiTurnAgent:
    agent = MultiTurnAgent.from_model("tiny", max_new_tokens=6)
    environment = ConversationEnvironment(scenarios=[{"id": "one", "user_responses": ["Hi there", "And?"]}])
    await train(
        agent,
        environment,
        num_episodes=16,
        reward_fn=HelpfulnessReward(),
        config_overrides=LORA,
        save_path=save_path,
        quiet=True,
    )
    return agent


async def test_the_base_of_adapters_is_float32_again_after_training_and_in_what_is_saved(tmp_path: Path) -> None:
    """Fails when frozen weights stay in the precision that training computed in."""
    fresh = MultiTurnAgent.from_model("tiny")
    await fresh.initialize()
    base = fresh.runtime.model.model.state_dict()

    agent = await _trained(tmp_path / "saved")

    model = agent.runtime.model.model
    trained = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(trained[name], tensor) for name, tensor in base.items())
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.arange(12)[None]
    assert saved.dtype == torch.float32
    assert torch.allclose(saved(ids).logits, model(ids).logits, atol=1e-4)
    assert not torch.equal(saved(ids).logits, fresh.runtime.model.model(ids).logits)


async def test_adapters_of_an_earlier_training_are_not_silently_trained_as_full_weights(tmp_path: Path) -> None:
    agent = await _trained(tmp_path / "saved")
    environment = ConversationEnvironment(scenarios=[{"id": "one", "user_responses": ["Hi"]}])
    with pytest.raises(ConfigError, match="has LoRA adapters from an earlier training"):
        await train(agent, environment, num_episodes=16, reward_fn=HelpfulnessReward(), quiet=True)
    await train(agent, environment, num_episodes=16, reward_fn=HelpfulnessReward(), config_overrides=LORA, quiet=True)
