"""A conversation between a person and an agent, with what can be done about it.

Invariant: the conversation is what was answered. A reply that is stopped or fails leaves it as it was before the
message, so that what `/reward` judges and `/save` writes is what both sides have read.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from ..agents.multi_turn import MultiTurnAgent
from ..core.errors import EXIT_DATA, EXIT_USAGE, DataError, StatesetError
from ..core.outcome import StopReason
from ..core.records import append_record, as_record
from ..core.reward import GroupReward, RewardFunction, RewardResult
from ..core.tool_calls import TOOL, ToolCall, spoken
from ..core.trajectory import ConversationTurn
from .console import describe, exit_code
from .terminal import Terminal

COMMANDS = {
    "/help": "what can be typed",
    "/reward": "what the run's reward thinks of this conversation",
    "/save FILE": "add this conversation to a JSONL file that training.data_file reads",
    "/reset": "forget this conversation and begin another",
    "/quit": "end (Ctrl-D too)",
}
_LONGEST = 160


class Talk:
    """One person and one agent.

    Args:
        agent: forked for each conversation.
        reward: gives the reward, or raises a `StatesetError` that says why there is none.
        terminal: where it is shown.
        seed: with the messages it decides every reply.

    Attributes:
        turns: of the conversation.
        failed: the exit code of the first command that could not be done; 0 while there is none.
    """

    def __init__(
        self, agent: MultiTurnAgent, reward: Callable[[], RewardFunction], terminal: Terminal, seed: int
    ) -> None:
        self.turns: list[ConversationTurn] = []
        self._agent, self._reward, self._terminal, self._seed = agent, reward, terminal, seed
        self.failed = 0
        self._number = 0
        self._fork = agent.fork(self._key)

    async def take(self, line: str) -> bool:
        """Answer a message or do what a line that begins with "/" says; False if that is to end.

        Raises:
            StatesetError: a reply failed.
        """
        if not line.strip():
            return True
        if line.startswith("//"):
            line = line[1:]
        elif line.startswith("/"):
            return await self._do(*line.strip().partition(" ")[::2])
        await self._answer(line)
        return True

    def close(self) -> None:
        """Free what the engine keeps of the conversation."""
        self._fork.release()

    @property
    def _key(self) -> str:
        return f"chat/{self._seed}/{self._number}"

    async def _do(self, name: str, argument: str) -> bool:
        match name, argument.strip():
            case "/quit" | "/exit", "":
                return False
            case "/help", "":
                width = max(map(len, COMMANDS))
                self._terminal.line("\n".join(f"{name:<{width}}  {what}" for name, what in COMMANDS.items()))
                self._terminal.line("//text" + " " * (width - 6) + "  say /text to the agent\nCtrl-C stops a reply")
            case "/reset", "":
                self.reset()
            case "/reward", "":
                await self._judge()
            case "/save", "":
                self._refuse("/save needs a file: /save demonstrations.jsonl")
            case "/save", file:
                self._save(file)
            case known, given if given and any(known == one.split()[0] for one in COMMANDS):
                self._refuse(f"{known} takes nothing, and was given {given!r}")
            case _:
                near = difflib.get_close_matches(name, [one.split()[0] for one in COMMANDS], n=1)
                hint = f"did you mean {near[0]}?" if near else "/help lists them all"
                self._refuse(f"there is no command {name}; {hint} A message may begin with //")
        return True

    def _refuse(self, why: str, code: int = EXIT_USAGE) -> None:
        """Say why a command is not done."""
        self.failed = self.failed or code
        self._terminal.note(why)

    def reset(self) -> None:
        """Begin another conversation."""
        self._fork.release()
        self._number += 1
        self._fork = self._agent.fork(self._key)
        self.turns = []
        self._terminal.note("a new conversation")

    async def _answer(self, text: str) -> None:
        reply: ConversationTurn | None = None
        calls: list[ToolCall] = []
        async with aclosing(self._fork.stream_turn(self.turns, text, {})) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    self._terminal.say(piece)
                    continue
                reply = piece
                if piece.role == TOOL:
                    self._show_call(calls.pop(0) if calls else None, piece)
                else:
                    calls = list(piece.tool_calls)
        self._terminal.end_line()
        if reply is None:
            raise StatesetError("the agent's stream ended without a reply")
        if reply.stop_reason is StopReason.CONTEXT and reply.span is None and not reply.content:
            size = reply.metadata.get("max_context")
            limit = f" of {size} tokens" if size else ""
            self._terminal.note(
                f"the conversation fills the model's context{limit}: your message is taken back. /reset begins another"
            )
            return
        self.turns += [ConversationTurn("user", text), *reply.steps, reply]
        self._remark(reply)

    def _remark(self, reply: ConversationTurn) -> None:
        if reply.tool_calls:
            self._terminal.note("(it called tools once more than it may, and so said nothing)")
        elif not spoken(reply).strip():
            self._terminal.note("(it said nothing)")
        if reply.stop_reason is StopReason.LENGTH:
            longest = self._fork.config.max_new_tokens
            self._terminal.note(f"(cut after {longest} tokens; --max-new-tokens takes more)")

    def _show_call(self, call: ToolCall | None, result: ConversationTurn) -> None:
        how = result.tool_result
        name = call.name if call else (how.name if how else "") or "a call"
        arguments = ", ".join(f"{key}={_json(value)}" for key, value in call.arguments.items()) if call else ""
        failed = f"{how.error.value}: " if how is not None and how.error is not None else ""
        self._terminal.note(_folded(f"  {name}({arguments}) -> {failed}{result.content}"))

    async def _judge(self) -> None:
        if not self.turns:
            self._refuse("there is nothing to judge yet")
            return
        try:
            reward = self._reward()
        except StatesetError as error:
            self._refuse(f"no reward: {describe(error)}", exit_code(error))
            return
        if isinstance(reward, GroupReward):
            self._refuse(f"no reward: {reward.label} compares conversations, and this is one by itself")
            return
        told = {"system_prompt": self._fork.config.system_prompt} if self._fork.config.system_prompt else {}
        try:
            result = await reward.evaluate(self.turns, told)
        except Exception as error:  # a judge's server, or somebody's own code: the conversation goes on
            self._refuse(f"no reward: {describe(error)}", exit_code(error))
            return
        if result.score is None:
            self._terminal.note(f"no reward: {result.metadata.get('unscored', 'it did not say why')}")
            return
        self._terminal.line("\n".join(_judgement(result)))

    def _save(self, name: str) -> None:
        file = Path(name).expanduser()
        if not self.turns:
            self._refuse("there is nothing to save yet")
            return
        record = as_record(self.turns, self._fork.config.system_prompt, self._fork.said_beside_calls)
        try:
            count = append_record(file, record)
        except (OSError, DataError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            first, *more = reason.splitlines()
            self._refuse(f"not saved to {file}: {first}" + (" (and more of the kind)" if more else ""), EXIT_DATA)
            return
        self._terminal.note(f"saved to {file}, which holds {count} conversation{'s' if count > 1 else ''}")


def _judgement(result: RewardResult) -> list[str]:
    lines = [f"reward {result.score:.3f}"]
    parts: Sequence[tuple[str, float | None, str]] = [
        (name, part.score, f"  x {part.weight:g}") for name, part in result.components.items()
    ] or [(name, value, "") for name, value in result.breakdown.items()]
    width = max((len(name) for name, _, _ in parts), default=0)
    for name, score, weight in parts:
        lines.append(f"  {name:<{width}}  {'none' if score is None else f'{score:.3f}'}{weight}")
    if result.turn_rewards:
        lines.append("  by turn: " + "  ".join(f"{value:.3f}" for value in result.turn_rewards))
    return lines


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _folded(text: str) -> str:
    one = " ".join(text.split("\n"))
    return one if len(one) <= _LONGEST else one[: _LONGEST - 1] + "…"
