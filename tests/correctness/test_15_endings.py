"""Row 15. Replies that were cut, or given up, rewarded and trained like complete ones.

Each way for a reply or an episode to end has one stated policy (`core/outcome.py`); the tables are all of them.
"""

import pytest

from stateset_agents.agents import EngineFailed
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import Outcome, StopReason
from stateset_agents.core.reward import reward_function
from stateset_agents.core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from stateset_agents.evaluation import SuccessCriterion, group_metrics
from stateset_agents.rollouts import play_episode
from stateset_agents.training.samples import samples_of

REPLIES = {
    # how the reply ended: what was sampled, how the episode ends, trained tokens, replies counted as cut
    StopReason.STOP: ("H i <|im_end|>", Outcome.OK, 3, 0),
    StopReason.LENGTH: ("H i", Outcome.OK, 2, 1),
    StopReason.CONTEXT: ("H i", Outcome.TRUNCATED, 2, 0),
}
SCORED = {
    Outcome.OK: True,
    Outcome.TRUNCATED: True,
    Outcome.AGENT: False,
    Outcome.USER: False,
    Outcome.ENVIRONMENT: False,
    Outcome.REWARD: False,
}


@reward_function
def half(turns, context=None):
    return 0.5


async def play(kit, words, reason):
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["A"]}])
    agent = kit.scripted(kit.Scripted(kit.tokens(words), reason=reason))
    return await play_episode(agent, environment, environment.episode_scenarios()[0], half, key="k")


def test_the_tables_are_complete():
    """Mutation: one more reason in core/outcome.py: fails."""
    assert {*REPLIES, StopReason.CANCELLED} == set(StopReason)
    assert set(SCORED) == set(Outcome)


@pytest.mark.parametrize("reason", REPLIES)
async def test_a_reply_is_scored_trained_and_counted_by_how_it_ended(kit, reason):
    """Mutation: a full context that ends as OK in rollouts/episode.py: fails for "context". CONTEXT for LENGTH in
    evaluation/metrics.py: fails at the count.
    """
    words, outcome, tokens, cut = REPLIES[reason]
    episode = await play(kit, words, reason)
    (turn,) = episode.assistant_turns
    assert (episode.outcome, episode.reward, turn.stop_reason) == (outcome, 0.5, reason)
    assert episode.trained_tokens == tokens
    # no end of turn is made up for a reply that has none
    assert episode.rows[0].ids[-1] == kit.tokens(words)[-1]
    row = group_metrics([TrajectoryGroup.of("s", [episode])], SuccessCriterion(1.0))
    assert (row["truncated"], row["cut_replies"]) == (int(outcome is Outcome.TRUNCATED), cut)


async def test_a_fragment_of_a_reply_that_was_given_up_is_never_trained(kit):
    """Mutation: CANCELLED let through in agents/session.py: fails with nothing raised."""
    fork = kit.scripted(kit.Scripted(kit.tokens("H i"), reason=StopReason.CANCELLED)).fork("k")
    with pytest.raises(EngineFailed, match="was cancelled by the engine"):
        await fork.process_turn([], "A")
    assert fork.rows == []
    with pytest.raises(EngineFailed, match="was cancelled by the engine"):
        await play(kit, "H i", StopReason.CANCELLED)


@pytest.mark.parametrize("outcome", SCORED)
def test_an_episode_enters_its_group_s_baseline_by_how_it_ended(kit, outcome):
    """Even one that carries a reward of 0. Rewards 1 and 0 with it: a mean of 1/3; without it: 1/2.

    Mutation: USER among the scored ones in core/outcome.py, or TRUNCATED not; the outcome ignored in
    TrajectoryGroup.of: fails for each of these.
    """
    rows = [[kit.row(([5, 6], False), ([7, place + 8], True))] for place in range(3)]
    episodes = [
        MultiTurnTrajectory("s", rows=rows[0], reward=1.0),
        MultiTurnTrajectory("s", rows=rows[1], reward=0.0),
        MultiTurnTrajectory("s", rows=rows[2], reward=0.0, outcome=outcome),
    ]
    group = TrajectoryGroup.of("s", episodes)
    assert len(group.failures) == (not SCORED[outcome])
    advantages = [sample.advantage for sample in samples_of([group], kit.config(scale_rewards="none"), 10)]
    assert advantages == pytest.approx([2 / 3, -1 / 3, -1 / 3] if SCORED[outcome] else [0.5, -0.5])
