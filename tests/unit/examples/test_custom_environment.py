"""The game of words: what each word earns, by hand."""

import pytest

from stateset_agents.core.environment import EpisodeStatus
from stateset_agents.examples.custom_environment import WordChain, asked


async def played(*said):
    game = WordChain()
    state = await game.reset(game.episode_scenarios()[0])
    rewards, heard = [], [await game.get_initial_prompt(state.scenario)]
    for word in said:
        before = state.copy()
        after, answer, reward, over = await game.step(state, word)
        assert state == before  # the state that was given is as it was
        state = after
        rewards.append(reward)
        heard.append(answer.content if answer else None)
    return state, rewards, heard, over


async def test_three_words_that_fit_win_everything():
    state, rewards, heard, over = await played("Tree.", "pear", "dog")
    assert heard == [asked("cat"), asked("lamp"), asked("bird"), None]
    assert rewards == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert over
    assert state.status is EpisodeStatus.COMPLETED


async def test_a_new_word_earns_less_and_a_sentence_or_an_old_word_nothing():
    state, rewards, _, _ = await played("moon", "It is a pear", "cat")
    assert rewards == pytest.approx([0.1, 0.0, 0.0])
    assert state.status is EpisodeStatus.FAILED


async def test_the_player_does_not_say_the_word_that_the_agent_said_before():
    _, _, heard, _ = await played("lamp", "dog")
    assert heard[1:] == [asked("bird"), asked("moon")]
