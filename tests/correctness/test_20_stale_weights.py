"""Row 20. A sampler that goes on with old weights: the gap to the learner jumps at the first update and stays."""

import pytest
import torch

from stateset_agents.agents import AgentRuntime
from stateset_agents.core.errors import TrainingStopped
from stateset_agents.engines.local import LocalEngine


async def test_every_token_is_sampled_by_the_weights_of_its_step(kit):
    """Versions 0, 1 and 2 in three steps of eight conversations of two replies.

    Mutation: no publish() after the step in training/trainer.py, or an engine that is not told: fails with version 0
    throughout.
    """
    agent, reward = await kit.agent(), kit.Vowels()
    trainer = await kit.trainer(agent, reward, steps=3)
    await trainer.run()
    await agent.aclose()
    versions = [set(span.row.versions[span.start : span.end]) for span in reward.spans]
    assert versions == [{step} for step in range(3) for _ in range(16)]
    assert all(row["mismatch_max"] < 1e-4 for row in trainer.rows)
    assert all(row["updated"] for row in trainer.rows)


async def test_an_engine_that_ignores_updates_shows_at_the_second_step_and_the_run_stops(kit):
    """It works on weights of its own, which nobody trains.

    Mutation: UPDATES_WATCHED = 1 in training/self_test.py: fails, as the run goes on.
    """
    agent = await kit.agent()
    whole = agent.runtime
    agent.runtime = AgentRuntime(whole.model, whole.codec, LocalEngine(kit.tiny()))
    trainer = await kit.trainer(agent, kit.Vowels(), steps=3, learning_rate=5e-3)
    with pytest.raises(TrainingStopped, match="the sampler has not got the new weights"):
        await trainer.run()
    await agent.aclose()
    (first,) = trainer.rows
    assert first["mismatch_size"] < 1e-5


def test_the_computing_copy_follows_its_masters(kit):
    """In half precision the sampler reads a copy of the weights that are trained.

    Mutation: no publish() after the optimizer in training/learner.py: fails.
    """
    learner = kit.learner(half=True)
    before = {name: p.detach().clone() for name, p in learner._loaded.model.named_parameters()}
    learner.step(kit.two_groups(), max_tokens=20)
    model = dict(learner._loaded.model.named_parameters())
    assert all(torch.equal(model[name], m.bfloat16()) for name, m in learner.weights.state().items())
    assert not all(torch.equal(model[name], before[name]) for name in before)
