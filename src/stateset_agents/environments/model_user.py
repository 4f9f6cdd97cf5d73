"""A user that a model plays.

Invariant: like any user it keeps nothing between two lines. Each line is asked for under a key that is a hash of the
seed, the scenario's id and what was said so far, so that with a model whose answers can be repeated the same
conversation gets the same answer: alone, in a batch, in a resumed run, by whichever weights the agent spoke. Nothing
that it says is trained, and what it cannot say is its own failure, never the agent's.

The conversation is shown to the model with the roles swapped: the agent's replies are what somebody said to it, the
user's lines are its own. It hears the agent's replies alone: no calls of tools, no results.

It has done when it says its marker, which the agent never sees, or after `max_turns` lines. The opening is the
scenario's first line where it has one, else the model's; that one is asked for once and kept, because all conversations
on a scenario must open with the same words, also where a model's answers cannot be repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.scenario import Scenario
from ..core.tool_calls import replies
from ..core.trajectory import ConversationTurn
from ..core.users import UserFailed, say_unheard
from ..engines.chat_model import ChatModel
from .user_prompt import DONE, GREETING, line_of, loops, user_prompt

Prompt = Callable[[Scenario, str | None, str], str]
"""Scenario, persona and marker to system prompt."""

_SHOWN = 120


class BadLine(UserFailed):
    """What the user's model said is no line of a conversation: nothing, a loop, or the assistant's words."""


class ModelUser:
    """A user played by a model.

    Args:
        model: who is asked.
        temperature: of sampling; 0 is greedy.
        max_tokens: longest line.
        seed: another seed, another user's words. Without effect on a model that takes no key.
        max_turns: lines after which the user leaves, its opening included; None: it stays until the marker or until
            the environment ends the conversation.
        done_marker: what the model says to leave.
        prompt: makes the model's system prompt.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        temperature: float = 0.7,
        max_tokens: int = 128,
        seed: int = 0,
        max_turns: int | None = None,
        done_marker: str = DONE,
        prompt: Prompt = user_prompt,
    ) -> None:
        problems = []
        if isinstance(model, type) or not isinstance(model, ChatModel):
            problems.append(
                f"model is {model!r:.60}; it must have `complete` and `describe`, as Endpoint(base_url, name) does"
            )
        if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 <= temperature <= 5:
            problems.append(f"temperature is {temperature!r}; it must be a number from 0 (greedy) to 5")
        for name, value, least in (("max_tokens", max_tokens, 1), ("seed", seed, 0), ("max_turns", max_turns, 1)):
            if name == "max_turns" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                problems.append(f"{name} is {value!r}; it must be a whole number, at least {least}")
        if not isinstance(done_marker, str) or not done_marker.strip():
            problems.append(f"done_marker is {done_marker!r}; it must be a text that nobody says by chance")
        if problems:
            raise ConfigError(*(f"ModelUser: {problem}" for problem in problems))
        self.model = model
        self._temperature, self._max_tokens, self._seed = float(temperature), max_tokens, seed
        self._max_turns, self._marker, self._prompt = max_turns, done_marker, prompt
        self._openings: dict[str, str] = {}
        self._asking: dict[str, asyncio.Task[str]] = {}

    async def opening(self, scenario: Scenario, persona: str | None = None) -> str:
        """The scenario's first line, else what the model says first.

        Raises:
            ChatFailed: the model gave no answer.
            BadLine: its answer is no line, or it wants to leave at once.
        """
        if scenario.user_responses:
            return scenario.user_responses[0]
        name = f"{scenario.id}\0{self._prompt(scenario, persona, self._marker)}"
        if name not in self._openings:
            self._openings[name] = await self._ask_once(name, scenario, persona)
        return self._openings[name]

    async def reply(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> str | None:
        """See `User.reply`.

        Raises:
            ChatFailed, BadLine: as `opening`.
        """
        if self._max_turns is not None and sum(turn.role == "user" for turn in turns) >= self._max_turns:
            return None
        return await self._next_line(scenario, turns, persona)

    def asked(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None = None
    ) -> list[dict[str, str]]:
        """What the model is asked for its next line: with the turns of a logged conversation, what it was asked."""
        heard = {id(turn) for turn in replies(turns)}
        messages = [
            {"role": "system", "content": self._prompt(scenario, persona, self._marker)},
            {"role": "user", "content": GREETING},
        ]
        for turn in turns:
            if turn.role == "user":
                messages.append({"role": "assistant", "content": turn.content})
            elif id(turn) in heard:
                # The marker is the user's own word: an agent that says it could otherwise talk the user into leaving.
                messages.append({"role": "user", "content": self._without_marker(turn.content)})
        return messages

    def _without_marker(self, text: str) -> str:
        while self._marker in text:  # taking one out may make another
            text = text.replace(self._marker, "")
        return text

    def describe(self, scenario: Scenario | None = None) -> dict[str, Any]:
        """What results say of it: the model, and how it is asked."""
        about: dict[str, Any] = {
            "type": "model",
            **self.model.describe(),
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
            "seed": self._seed,
            "done_marker": self._marker,
        }
        if self._max_turns is not None:
            about["max_turns"] = self._max_turns
        if self._prompt is not user_prompt:
            about["prompt"] = getattr(self._prompt, "__qualname__", type(self._prompt).__name__)
        return about

    async def _ask_once(self, name: str, scenario: Scenario, persona: str | None) -> str:
        """The opening, asked for by one task however many conversations wait for it. One that failed is not kept."""
        task = self._asking.get(name)
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._asking[name] = asyncio.create_task(self._first_line(scenario, persona))
            task.add_done_callback(_heed)
        return await asyncio.shield(task)

    async def _first_line(self, scenario: Scenario, persona: str | None) -> str:
        line = await self._next_line(scenario, (), persona)
        if line is None:
            raise self._bad("wants to leave before it has said anything", self._marker)
        return line

    async def _next_line(
        self, scenario: Scenario, turns: Sequence[ConversationTurn], persona: str | None
    ) -> str | None:
        messages = self.asked(scenario, turns, persona)
        said = await self.model.complete(
            messages,
            key=self._key(scenario, messages[2:]),
            temperature=self._temperature,
            max_tokens=self._max_tokens,
        )
        line = line_of(said)
        if self._marker in line:
            say_unheard(said)
            return None
        if not line:
            raise self._bad("spoke for the assistant" if said.strip() else "said nothing", said)
        if loops(line):
            raise self._bad("says one thing over and over", said)
        if line != said.strip():
            say_unheard(said)
        return line

    def _bad(self, what: str, said: str) -> BadLine:
        say_unheard(said)
        model = self.model.describe().get("model", type(self.model).__name__)
        shown = said if len(said) <= _SHOWN else said[:_SHOWN] + "..."
        return BadLine(f"the user ({model} at temperature {self._temperature:g}) {what}: {shown!r}")

    def _key(self, scenario: Scenario, said: Sequence[Mapping[str, str]]) -> str:
        facts = [self._seed, scenario.id, [[message["role"], message["content"]] for message in said]]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _heed(task: asyncio.Task[str]) -> None:
    """Look at how a task ended: whoever waited for it is told, and where nobody does any more, it is no news."""
    if not task.cancelled():
        task.exception()
