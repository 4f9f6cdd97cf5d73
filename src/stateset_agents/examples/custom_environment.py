"""An environment of one's own: a game of words, of which only `step` has to be written.

    python -m stateset_agents.examples.custom_environment

The player says a word, and the agent must answer with one word that begins with the last letter of it: apple, elephant,
tiger. `step` gets the state and what the agent said, and returns the next state, the player's answer, a reward for this
step, and whether the game is over. It must not change the state that it was given: `state.copy()` is a deep copy, and
so one environment plays any number of games at once. Step rewards add up to the reward of the conversation; no reward
function is needed beside them.

One new word earns 0.3, its right first letter another 0.7; a game is won with three words that fit.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from ..agents import AgentConfig, MultiTurnAgent
from ..core.environment import Environment, EnvironmentState, EpisodeStatus
from ..core.scenario import Scenario
from ..core.trajectory import ConversationTurn
from .program import command_line, learn, run

SYSTEM_PROMPT = "Answer with one English word. It must begin with the letter that I name. Say nothing else."
OPENINGS = ("cat", "house", "garden", "milk", "sun", "road")
HELD_OUT = ("pot", "horse", "plan", "rock", "wall", "star")
PLAYERS_WORDS = ("lamp", "bird", "moon", "grass")


def asked(word: str) -> str:
    """What the player says."""
    return f"{word}. Your letter: {word[-1]}"


class WordChain(Environment):
    """A word that begins where the last one ended.

    It defines `step` and two attributes; `reset` and the opening come from the base class.
    """

    max_turns = 3
    scenarios = tuple(Scenario(id=word, user_responses=(asked(word),)) for word in OPENINGS)

    async def step(
        self, state: EnvironmentState, action: ConversationTurn | str
    ) -> tuple[EnvironmentState, ConversationTurn | None, float, bool]:
        """Judge the agent's word, and say another."""
        after = state.copy()
        after.turn_count += 1
        said = (action if isinstance(action, str) else action.content).strip().lower().rstrip(".!")
        game = after.context
        words = game.setdefault("words", [after.scenario.id if after.scenario else OPENINGS[0]])
        is_new_word = re.fullmatch(r"[a-z]{2,}", said) is not None and said not in words
        fits = is_new_word and said[0] == words[-1][-1]
        reward = (0.3 * is_new_word + 0.7 * fits) / self.max_turns
        game["fitting"] = game.get("fitting", 0) + fits
        if after.turn_count >= self.max_turns:
            won = game["fitting"] == self.max_turns
            after.status = EpisodeStatus.COMPLETED if won else EpisodeStatus.FAILED
            return after, None, reward, True
        words += [said, next(word for word in PLAYERS_WORDS if word not in (*words, said))]
        return after, ConversationTurn("user", asked(words[-1])), reward, False


async def nothing_beside(turns: Sequence[ConversationTurn]) -> float:
    """`train` scores with a default unless it is given a reward; this one leaves the step rewards alone."""
    return 0.0


async def custom_environment(options: argparse.Namespace) -> None:
    """The whole of it."""
    config = AgentConfig(options.model, system_prompt=SYSTEM_PROMPT, temperature=1.0, max_new_tokens=8)
    held_out = [Scenario(id=word, user_responses=(asked(word),)) for word in HELD_OUT]
    await learn(MultiTurnAgent(config), WordChain(), nothing_beside, options, held_out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it from the command line; returns the exit code."""
    return run(custom_environment, command_line("custom_environment", __doc__, episodes=128).parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
