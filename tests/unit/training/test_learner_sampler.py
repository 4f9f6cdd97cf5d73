"""The learner's log-probs are those that the real engine recorded while an agent talked."""

import pytest
import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import as_reward
from stateset_agents.engines.local import LocalEngine
from stateset_agents.models import attach_lora
from stateset_agents.rollouts import collect_groups

USERS = ["Hello, what does the basic plan cost?", "And for a year?", "Thanks. Can I return it within a month?"]
TEMPERATURE = 0.7


async def vowels(turns, context) -> float:
    """A reward that differs from reply to reply."""
    text = "".join(turn.content for turn in turns if turn.role == "assistant")
    return sum(text.count(vowel) for vowel in "aeiou") / (1 + len(text))


async def talk(agent: MultiTurnAgent, key: str = "0"):
    """Four conversations of three turns as training samples them."""
    environment = ConversationEnvironment([{"id": "plans", "user_responses": USERS}], max_turns=3)
    player = agent.fork("")
    player.training_sampling = True
    scenarios = environment.episode_scenarios()
    return await collect_groups(player, environment, scenarios, as_reward(vowels), group_size=4, key=key)


async def make_agent(kind: type[MultiTurnAgent] = MultiTurnAgent, **settings) -> MultiTurnAgent:
    common = {"system_prompt": "Be brief.", "max_new_tokens": 24, "dtype": "float32", "device": "cpu"}
    agent = kind.from_model("tiny", temperature=TEMPERATURE, **common, **settings)
    await agent.initialize()
    return agent


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("window", [None, 2])
async def test_what_was_sampled_is_what_is_trained(kit, window, lora):
    """Three turns, kept caches; with a window the third reply has a row of its own.

    Mutation: a predictor one place off is 2 nats away.
    """
    agent = await make_agent(memory_window=window)
    loaded = agent.runtime.model
    if lora:
        attach_lora(loaded, r=4)
    learner = kit.learner(loaded, temperature=TEMPERATURE, beta=0.04, batch_size=2, learning_rate=2e-3)
    for step in range(2):
        groups = await talk(agent, key=str(step))
        assert [t.length for t in groups[0].trajectories] == [3] * 4
        assert {len(t.rows) for t in groups[0].trajectories} == ({1} if window is None else {2})
        metrics = kit.step(learner, groups)
        sampled = sum(t.trained_tokens for t in groups[0].trajectories)
        assert metrics.updated
        assert metrics.trained_tokens == sampled
        assert metrics.mismatch_max < 1e-4
        assert metrics.ratio_mean == 1.0
        assert metrics.clip_fraction == 0.0
        # the policy is its own reference until it moves
        assert (metrics.kl == 0.0) if step == 0 else (metrics.kl > 1e-4)
        assert isinstance(agent.runtime.engine, LocalEngine)
        agent.runtime.engine.weights_changed(step + 1)
    await agent.aclose()


async def test_truncation_that_is_set_for_serving_does_not_reach_training():
    """The learner knows the whole distribution only. Mutation: top-p in training samples other replies."""
    replies = []
    for truncation in ({}, {"top_p": 0.5, "top_k": 5, "repetition_penalty": 1.5}):
        agent = await make_agent(**truncation)
        replies.append([t.rows for t in (await talk(agent))[0].trajectories])
        await agent.aclose()
    assert replies[0] == replies[1]


async def test_an_unlike_temperature_shows_as_a_mismatch(kit):
    """0.6 nats a token on this model, which is what the measurement is for."""
    agent = await make_agent()
    learner = kit.learner(agent.runtime.model, temperature=1.0)
    metrics = kit.step(learner, await talk(agent))
    assert metrics.mismatch_max > 0.5
    assert metrics.mismatch_mean > 0.1
    assert metrics.ratio_mean == 1.0
    await agent.aclose()


async def test_old_weights_in_the_sampler_show_as_a_mismatch(kit):
    """What was sampled before an update is not what the policy after it would say."""
    agent = await make_agent()
    learner = kit.learner(agent.runtime.model, temperature=TEMPERATURE, learning_rate=2e-3)
    groups = await talk(agent)
    assert kit.step(learner, groups).mismatch_max < 1e-4
    assert kit.step(learner, groups).mismatch_max > 1e-2
    await agent.aclose()


async def test_half_precision_stays_close_to_what_was_sampled_in_it(kit):
    agent = await make_agent()
    learner = kit.learner(agent.runtime.model, temperature=TEMPERATURE, compute=torch.bfloat16)
    metrics = kit.step(learner, await talk(agent))
    assert metrics.ratio_mean == 1.0
    assert abs(metrics.mismatch_mean) < 0.05
    await agent.aclose()


async def test_a_reply_that_code_edited_is_read_and_not_trained(kit):
    class Polite(MultiTurnAgent):
        async def process_turn(self, history, user_input, context=None):
            turn = await super().process_turn(history, user_input, context)
            if len(history) == 2:
                turn.content += " Thank you!"
            return turn

    agent = await make_agent(Polite)
    learner = kit.learner(agent.runtime.model, temperature=TEMPERATURE)
    groups = await talk(agent)
    talks = groups[0].trajectories
    assert {t.edited_turns for t in talks} == {1}
    metrics = kit.step(learner, groups)
    spans = [turn.span for t in talks for turn in t.assistant_turns if turn.sampled]
    assert metrics.trained_tokens == sum(span.end - span.start for span in spans) > 0
    assert metrics.mismatch_max < 1e-4
    await agent.aclose()
