"""What a checkpoint will take is known before the first byte of it is written."""

import pytest

from stateset_agents import ConversationEnvironment, MultiTurnAgent, train
from stateset_agents.agents.config import AgentConfig
from stateset_agents.checkpoints import writer


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
async def test_the_space_that_is_asked_for_is_that_of_all_weights_and_states(tmp_path, monkeypatch, lora):
    """Of checkpoints of a run and of the final model. Mutation: the model's file not counted."""
    asked, published = [], []
    require, publish = writer.require_space, writer._publish

    def remember(folder, needed):
        asked.append(needed)
        require(folder, needed)

    def weigh(temporary, target):
        published.append(sum(file.stat().st_size for file in temporary.glob("*.safetensors")))
        publish(temporary, target)

    monkeypatch.setattr(writer, "require_space", remember)
    monkeypatch.setattr(writer, "_publish", weigh)
    await train(
        MultiTurnAgent(AgentConfig(model_name="tiny", max_new_tokens=4)),
        ConversationEnvironment([{"user_responses": ["Hi!"]}]),
        num_episodes=8,
        config_overrides={"lora": lora, "mixed_precision": False},
        output_dir=tmp_path / "run",
        quiet=True,
    )
    assert len(published) >= 2  # the run's state and the final model
    assert min(published) > 400_000
    for needed, taken in zip(asked, published, strict=True):
        assert 0.95 * taken < needed < 1.2 * taken  # beside them there are records, and the headers of the files
