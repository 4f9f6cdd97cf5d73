"""Row 18. Dropout while training: the policy whose ratio is taken is not the one that sampled."""

import torch

from stateset_agents.models import attach_lora


def test_dropout_is_off_whatever_mode_the_model_was_left_in(kit):
    """Dropout in adapters and attention, beside a model without any.

    Mutation: model.train() for model.eval() in training/learner.py, or neither: fails at what the first step measures.
    """
    loaded = attach_lora(kit.tiny(), r=4, dropout=0.5)
    loaded.model.config.attention_dropout = 0.5
    for layer in loaded.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    learner = kit.learner(loaded, gradient_checkpointing=True)
    other = kit.learner(attach_lora(kit.tiny(), r=4))
    loaded.model.train()
    for _ in range(2):  # the first step's adapters are zero whatever they drop
        assert learner.step(kit.two_groups(), max_tokens=20) == other.step(kit.two_groups(), max_tokens=20)
        assert kit.gap(learner.gradients[-1], other.gradients[-1]) == 0.0
    batch = kit.batch(learner)
    assert torch.equal(learner.policy.logprobs(batch)[0], learner.policy.logprobs(batch)[0])


async def test_a_run_that_asks_for_dropout_is_sampled_and_learned_without_it(kit):
    """Mutation: model.train() in training/learner.py: fails, the engine refuses to sample."""
    agent = await kit.agent()
    lora = {"r": 4, "dropout": 0.5}
    trainer = await kit.trainer(agent, kit.Vowels(), steps=3, lora=lora, num_iterations=2, learning_rate=2e-2)
    await trainer.run()
    await agent.aclose()
    assert all(row["mismatch_max"] < 1e-4 for row in trainer.rows)
    # the adapters have moved: dropout would show
    assert trainer.rows[-1]["ratio_mean"] != 1.0
