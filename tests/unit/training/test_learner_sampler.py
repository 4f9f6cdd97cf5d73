"""Sampler and learner in half precision. That they agree in float32 is held by `tests/correctness/test_06_shift.py`."""

import torch

from stateset_agents.agents.multi_turn import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.reward import as_reward
from stateset_agents.rollouts import collect_groups

USERS = ["Hello, what does the basic plan cost?", "And for a year?", "Thanks. Can I return it within a month?"]


async def vowels(turns, context) -> float:
    """A reward that differs from reply to reply."""
    text = "".join(turn.content for turn in turns if turn.role == "assistant")
    return sum(text.count(vowel) for vowel in "aeiou") / (1 + len(text))


async def test_half_precision_stays_close_to_what_was_sampled_in_it(kit):
    settings = {"system_prompt": "Be brief.", "max_new_tokens": 24, "dtype": "float32", "device": "cpu"}
    agent = MultiTurnAgent.from_model("tiny", temperature=0.7, **settings)
    await agent.initialize()
    learner = kit.learner(agent.runtime.model, temperature=0.7, compute=torch.bfloat16)
    environment = ConversationEnvironment([{"id": "plans", "user_responses": USERS}], max_turns=3)
    player = agent.fork("")
    player.training_sampling = True
    scenarios = environment.episode_scenarios()
    groups = await collect_groups(player, environment, scenarios, as_reward(vowels), group_size=4, key="0")
    metrics = kit.step(learner, groups)
    assert metrics.ratio_mean == 1.0
    assert abs(metrics.mismatch_mean) < 0.05
    await agent.aclose()
