"""Row 5. A chat template that rewrites history breaks the exact prefix: rows must part there, never merge silently."""

import pytest

from stateset_agents.agents import MultiTurnAgent
from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.core.trajectory import ConversationTurn
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode

MESSAGE = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
END = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
PLAIN = "{% for m in messages %}" + MESSAGE + END
FORGETFUL = PLAIN.replace(
    "m['content']",
    "(m['content'] if loop.index0 >= messages|length - 2 or m['role'] != 'assistant' else '...')",
)
THOUGHTLESS = PLAIN.replace("m['content']", "(m['content'] if loop.last else m['content'].split('</think>')[-1])")
TIGHT = PLAIN.replace("<|im_end|>\n", "<|im_end|>")
TOOLS_TOGETHER = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}"
    "{% if loop.previtem['role'] != 'tool' %}{{ '<|im_start|>user' }}{% endif %}{{ '\n[' + m['content'] + ']' }}"
    "{% if loop.last or loop.nextitem['role'] != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% else %}" + MESSAGE + "{% endif %}" + END
)


async def play(agent, *lines):
    environment = ConversationEnvironment([{"id": "s", "user_responses": list(lines)}])
    return await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")


def shown(row):
    return load_tokenizer("tiny").decode(row.ids)


async def test_a_template_that_forgets_replies_makes_two_rows(kit):
    """Mutation: no `startswith` in chat/codec.py: fails with one row of 8 trained tokens."""
    replies = [kit.tokens(words) for words in ("H i <|im_end|>", "y e s", "Ġyes <|im_end|>")]
    episode = await play(kit.scripted(kit.Scripted(*replies), template=FORGETFUL), "A", "B", "C")
    assert episode.edited_turns == 0
    assert [row.trained_tokens for row in episode.rows] == [6, 2]
    assert "assistant\n...<|im_end|>" in shown(episode.rows[1])


async def test_a_thought_is_trained_where_it_was_sampled_and_is_not_in_the_row_from_which_it_was_dropped(kit):
    """Mutation: no `_same_words` in chat/codec.py: fails with one row, in which the model reads its thought again."""
    thought = kit.tokens("< t h i n k > H < / t h i n k > i <|im_end|>")
    answer = kit.tokens("Ġyes <|im_end|>")
    episode = await play(kit.scripted(kit.Scripted(thought, answer), template=THOUGHTLESS), "A", "B")
    first, second = episode.rows
    assert [token for token, m in zip(first.ids, first.mask, strict=True) if m] == thought
    assert [token for token, m in zip(second.ids, second.mask, strict=True) if m] == answer
    assert "think" not in shown(second)
    assert "assistant\ni<|im_end|>\n<|im_start|>user\nB" in shown(second)
    # what the model read before its second reply is, token by token, what it is trained on
    assert tuple(second.ids[: -len(answer)]) == tuple(agent_prompt(kit, "i"))


def agent_prompt(kit, said):
    """The whole conversation as the template shows it before the second reply."""
    agent = kit.scripted(kit.Scripted([2]), template=THOUGHTLESS)
    messages = [("user", "A"), ("assistant", said), ("user", "B")]
    return agent.runtime.codec.open([{"role": role, "content": text} for role, text in messages]).ids


@pytest.mark.parametrize(("template", "between"), [(PLAIN, "<|im_end|> Ċ"), (TIGHT, "<|im_end|>")])
@pytest.mark.parametrize("closed", [True, False])
async def test_what_follows_the_end_of_a_turn_is_neither_dropped_nor_doubled(kit, template, between, closed):
    """Whether the model ended its reply or a limit did.

    Mutation: the suffix without its leading newline in chat/codec.py: fails with a token less. `line.closed = True` in
    agents/session.py: fails where a limit ended the reply.
    """
    reply = kit.tokens("H i <|im_end|>" if closed else "H i")
    episode = await play(kit.scripted(kit.Scripted(reply), template=template), "A", "B")
    (row,) = episode.rows
    ends = kit.tokens(between)
    opening = [*kit.tokens("<|im_start|> user Ċ A"), *ends, *kit.tokens("<|im_start|> assistant Ċ")]
    middle = [*kit.tokens("<|im_start|> user Ċ B"), *ends, *kit.tokens("<|im_start|> assistant Ċ")]
    assert row.ids == [*opening, *kit.tokens("H i"), *ends, *middle, *reply]
    sampled = [1] * len(reply)
    assert row.mask == [0] * len(opening) + sampled + [0] * (len(ends) - closed + len(middle)) + sampled


class TwoTools(MultiTurnAgent):
    """Reads two tool answers before it speaks."""

    async def process_turn(self, history, user_input, context=None):
        asked = [{"role": "user", "content": user_input}]
        call = await self.generate_response(asked)
        told = [{"role": "assistant", "content": call}, *({"role": "tool", "content": text} for text in ("4", "2"))]
        return ConversationTurn("assistant", await self.generate_response([*asked, *told]))


async def test_two_tool_answers_in_a_row_are_one_turn_and_keep_the_row(kit):
    """Mutation: messages[-1:] as the new messages in agents/session.py: fails without the first answer."""
    engine = kit.Scripted(kit.tokens("H i <|im_end|>"), kit.tokens("Ġyes <|im_end|>"))
    episode = await play(kit.scripted(engine, TwoTools, template=TOOLS_TOGETHER), "A")
    (row,) = episode.rows
    assert shown(row) == (
        "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\n[4]\n[2]<|im_end|>\n<|im_start|>assistant\n yes<|im_end|>"
    )
    assert row.trained_tokens == 2
