"""Row 4. Decoding a reply and encoding it again gives other tokens than those that were sampled."""

import pytest
import torch

from stateset_agents.core.environment import ConversationEnvironment
from stateset_agents.models import load_tokenizer
from stateset_agents.rollouts import play_episode
from stateset_agents.training.packing import PackedBatch, Sample

REPLIES = ("i n g <|im_end|>", "H â Ĥ", "Ġ y e s <|im_end|>")
"""A word in letters, a character without its last byte, and a space apart from its word."""


@pytest.mark.parametrize("words", REPLIES)
def test_the_tokenizer_would_not_give_these_tokens_back(kit, words):
    """The control, of the tokenizer alone: without it the other test could not fail."""
    tokenizer = load_tokenizer("tiny")
    ids = [token for token in kit.tokens(words) if token != 1]
    assert tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False) != ids


async def test_what_the_model_said_is_kept_as_it_was_sampled_and_never_tokenised_again(kit):
    """Mutation: the reply's text encoded again in _finish of agents/session.py: fails with rows that part. The history
    opened anew in _find: fails with the first reply's ids.
    """
    tokenizer, encoded = load_tokenizer("tiny"), []
    encode = tokenizer.encode

    def spying(text, **options):
        encoded.append(text)
        return encode(text, **options)

    tokenizer.encode = spying
    replies = [kit.tokens(words) for words in REPLIES]
    agent = kit.scripted(kit.Scripted(*replies), tokenizer=tokenizer)
    environment = ConversationEnvironment([{"id": "s", "user_responses": ["A", "B", "C"]}])
    encoded.clear()
    episode = await play_episode(agent, environment, environment.episode_scenarios()[0], None, key="k")
    (row,) = episode.rows
    assert [turn.content for turn in episode.assistant_turns] == ["ing", "H\ufffd", " yes"]
    assert [turn.span.ids for turn in episode.assistant_turns] == replies
    assert [token for token, m in zip(row.ids, row.mask, strict=True) if m] == [t for reply in replies for t in reply]
    assert PackedBatch.of([Sample(row, 1.0, 1.0, 0, 0)], torch.device("cpu")).ids.tolist() == row.ids[:-1]
    assert any("B" in text for text in encoded)
    assert not [text for text in encoded for said in ("ing", "H", "\ufffd", "yes") if said in text]
