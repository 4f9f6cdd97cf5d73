"""Row 3. Training the user's, the tool's or the template's tokens teaches the model to speak for them."""

import torch

from stateset_agents.agents import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.outcome import StopReason
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.rollouts import collect_groups, play_episode
from stateset_agents.training.packing import PackedBatch, Sample

ROW = """
    <|im_start|> system Ċ B e <|im_end|> Ċ <|im_start|> user Ċ A <|im_end|> Ċ <|im_start|> assistant Ċ
    H i <|im_end|>
    Ċ <|im_start|> user Ċ B <|im_end|> Ċ <|im_start|> assistant Ċ
    y e s
    <|im_end|> Ċ <|im_start|> user Ċ C <|im_end|> Ċ <|im_start|> assistant Ċ
    Ġyes <|im_end|>
"""
MASK = [0] * 16 + [1] * 3 + [0] * 10 + [1] * 3 + [0] * 11 + [1] * 2


async def play(agent, *lines):
    environment = ConversationEnvironment([{"id": "s", "user_responses": list(lines)}])
    return await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")


def trained(row):
    """The tokens that the learner would train."""
    return PackedBatch.of([Sample(row, 1.0, 1.0, 0, 0)], torch.device("cpu")).targets.tolist()


async def test_three_turns_are_one_row_whose_mask_is_what_was_sampled(kit):
    """Row and mask by hand, and the tokens that the learner would train.

    Mutation: append_sampled for append_context in agents/session.py, for the whole prompt or for its last token: fails
    at the mask. `if True` for `if row.mask[place]` in training/packing.py: fails with the user's tokens trained.
    """
    replies = [kit.tokens(words) for words in ("H i <|im_end|>", "y e s", "Ġyes <|im_end|>")]
    episode = await play(kit.scripted(kit.Scripted(*replies), system_prompt="Be"), "A", "B", "C")
    (row,) = episode.rows
    assert row.ids == kit.tokens(ROW)
    assert row.mask == MASK
    expected = iter([-0.5, -1.5, -2.5, -0.5, -1.5, -2.5, -0.5, -1.5])
    assert row.logprobs == [next(expected) if m else 0.0 for m in MASK]
    assert row.versions == [3 if m else -1 for m in MASK]
    assert [turn.content for turn in episode.turns] == ["A", "Hi", "B", "yes", "C", " yes"]
    assert [turn.stop_reason for turn in episode.assistant_turns] == [
        StopReason.STOP,
        StopReason.LENGTH,
        StopReason.STOP,
    ]
    assert trained(row) == [token for reply in replies for token in reply]


class WithTool(MultiTurnAgent):
    """Calls its tool before each answer."""

    async def process_turn(self, history, user_input, context=None):
        asked = [*(turn.to_message() for turn in history), {"role": "user", "content": user_input}]
        call = await self.generate_response(asked)
        told = [*asked, {"role": "assistant", "content": call}, {"role": "tool", "content": "4"}]
        return ConversationTurn("assistant", await self.generate_response(told))


async def test_what_a_tool_answers_is_read_and_not_trained(kit):
    """The call itself is no turn of the conversation, so it is context like the answer to it.

    Mutation: append_sampled for append_context in agents/session.py: fails at the mask.
    """
    engine = kit.Scripted(kit.tokens("H i <|im_end|>"), kit.tokens("Ġyes <|im_end|>"))
    episode = await play(kit.scripted(engine, WithTool), "A")
    (row,) = episode.rows
    assert row.ids == kit.tokens(
        """<|im_start|> user Ċ A <|im_end|> Ċ <|im_start|> assistant Ċ H i <|im_end|> Ċ
        <|im_start|> t o o l Ċ 4 <|im_end|> Ċ <|im_start|> assistant Ċ Ġyes <|im_end|>"""
    )
    assert row.mask == [0] * 25 + [1] * 2
    assert trained(row) == kit.tokens("Ġyes <|im_end|>")


class Polite(MultiTurnAgent):
    """Adds a word of its own to the second reply."""

    async def process_turn(self, history, user_input, context=None):
        turn = await super().process_turn(history, user_input, context)
        if len(history) == 2:
            turn.content += " Thank you!"
        return turn


async def test_a_reply_that_code_edited_is_read_and_not_trained(kit):
    """Mutation: `pass` for span.unmask() in agents/session.py: fails with the edited reply's tokens trained."""
    agent = await kit.agent(Polite)
    agent.training_sampling = True
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["Hello", "And then?", "Thanks"]}])
    groups = await collect_groups(
        agent, environment, environment.episode_scenarios(), kit.Vowels(), group_size=4, key="k"
    )
    talks = groups[0].trajectories
    assert {talk.edited_turns for talk in talks} == {1}
    metrics = kit.learner(agent.runtime.model, temperature=0.7).step(groups, max_tokens=36)
    kept = [talk.assistant_turns[place].span for talk in talks for place in (0, 2)]
    assert metrics.trained_tokens == sum(span.end - span.start for span in kept) > 0
    assert metrics.mismatch_max < 1e-4
    await agent.aclose()
