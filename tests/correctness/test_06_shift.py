"""Row 6. Log-probs or masks that are one place off: the ratio is never near 1, and the KL is not 0 at step 0."""

import pytest

from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import attach_lora
from stateset_agents.rollouts import collect_groups

USERS = ["Hello, what does the basic plan cost?", "And for a year?", "Thanks. Can I return it within a month?"]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("window", [None, 2])
async def test_the_learner_s_log_probs_are_those_that_the_sampler_recorded(kit, window, lora):
    """Three turns, kept caches; with a window the third reply has a row of its own. Two steps, so that it has moved.

    Mutation: in training/packing.py the first predictor one place off: fails with a gap of 9.3 nats; row.logprobs[place
    - 1]: 7.1 nats; all other predictors one later: fails beyond the last one.
    """
    agent = await kit.agent(memory_window=window, max_new_tokens=24)
    agent.training_sampling = True
    loaded = agent.runtime.model
    if lora:
        attach_lora(loaded, r=4)
    learner = kit.learner(loaded, temperature=0.7, beta=0.04, batch_size=2, learning_rate=2e-3)
    environment = ConversationEnvironment([{"id": "plans", "user_responses": USERS}], max_turns=3)
    scenarios = environment.episode_scenarios()
    for step in range(2):
        groups = await collect_groups(agent, environment, scenarios, kit.Vowels(), group_size=4, key=str(step))
        talks = groups[0].trajectories
        assert [talk.length for talk in talks] == [3] * 4
        assert {len(talk.rows) for talk in talks} == ({1} if window is None else {2})
        metrics = learner.step(groups, max_tokens=72)
        assert metrics.updated
        assert metrics.trained_tokens == sum(talk.trained_tokens for talk in talks)
        assert metrics.mismatch_max < 1e-4
        assert metrics.ratio_mean == 1.0
        assert metrics.clip_fraction == 0.0
        # the policy is its own reference until it moves
        assert (metrics.kl == 0.0) if step == 0 else (metrics.kl > 1e-4)
        assert isinstance(agent.runtime.engine, LocalEngine)
        agent.runtime.engine.weights_changed(step + 1)
    await agent.aclose()
