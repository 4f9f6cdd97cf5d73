"""Records to groups of conversations, as if they had been played.

Invariant: the rows of a recorded conversation are those of a rollout in which everybody said the same. It takes the
same way: a fork of the agent is asked for each reply, and an engine gives the recorded one. Every record is rendered
before the first step, so that one which cannot be learned from ends a run at its beginning.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..agents.config import AgentConfig
from ..agents.multi_turn import MultiTurnAgent
from ..agents.runtime import AgentRuntime
from ..chat.codec import ChatCodec
from ..core.errors import DataError, ModelError
from ..core.messages import refuse
from ..core.records import Message, Record
from ..core.trajectory import ConversationTurn, MultiTurnTrajectory, TokenRow, TrajectoryGroup
from ..engines.recorded import NOT_SAMPLED, RecordedEngine
from ..models.quiet import quiet_transformers


@dataclass(frozen=True)
class RecordedGroup:
    """A rendered record, small enough to keep all of a file.

    Attributes:
        record: what was said.
        answers: ids and masks of the rows of each answer.
    """

    record: Record
    answers: tuple[tuple[tuple[array[int], bytes], ...], ...]

    def to_group(self) -> TrajectoryGroup:
        """The conversations with their rewards: 1 for the one to learn, 0 for one to avoid."""
        told = self.record.prompt[:1] if self.record.prompt[0]["role"] == "system" else ()
        group = TrajectoryGroup(self.record.place)
        for number, (answer, rows) in enumerate(zip(self.record.answers, self.answers, strict=True)):
            messages = (*self.record.prompt[len(told) :], *answer)
            group.trajectories.append(
                MultiTurnTrajectory(
                    self.record.place,
                    turns=[ConversationTurn(message["role"], message["content"]) for message in messages],
                    rows=[_row(ids, mask) for ids, mask in rows],
                    reward=float(number == 0),
                )
            )
        return group


async def render_records(
    records: Sequence[Record], config: AgentConfig, runtime: AgentRuntime, on_record: Callable[[int], None]
) -> list[RecordedGroup]:
    """Render every record as the agent's model would read and say it.

    Args:
        records: at least one.
        config: of the agent: its system prompt holds where a record has none, and its memory window everywhere.
        runtime: of the agent.
        on_record: told how many are done.

    Raises:
        DataError: records that are longer than the model's context, or that its tokenizer or chat template cannot
            render; several at once, each with its place.
    """
    rendered: list[RecordedGroup] = []
    problems: list[str] = []
    with quiet_transformers():  # it warns of rows that are too long, which are refused here
        for done, record in enumerate(records, start=1):
            try:
                answers = [await render(record.prompt, answer, config, runtime.codec) for answer in record.answers]
            except (DataError, ModelError) as error:
                problems.append(f"{record.place}: {error}")
                continue
            for name, rows in zip(_names(record), answers, strict=True):
                longest = max(len(row) for row in rows)
                if longest > runtime.max_context:
                    problems.append(
                        f"{record.place}: {name} has {longest} tokens, but the model's context is "
                        f"{runtime.max_context}; shorten it or leave it out"
                    )
            rendered.append(RecordedGroup(record, tuple(tuple(map(_packed, rows)) for rows in answers)))
            on_record(done)
            await asyncio.sleep(0)  # a signal may want to be heard
    refuse(problems)
    return rendered


async def render(
    prompt: Sequence[Message], answer: Sequence[Message], config: AgentConfig, codec: ChatCodec
) -> list[TokenRow]:
    """The training rows of one conversation, as if `answer` had been played after `prompt`.

    Raises:
        DataError, ModelError: the tokenizer or the chat template refuses it.
    """
    replies = [message["content"] for message in answer if message["role"] == "assistant"]
    # A class of the user's own may change what is said. Here it was said already, so that only the settings count.
    agent = MultiTurnAgent(config)
    agent.runtime = AgentRuntime(None, codec, RecordedEngine(codec, replies))
    fork = agent.fork("recorded")
    history = list(prompt)
    for at, message in enumerate(answer):
        if message["role"] == "assistant":
            turn = await fork.process_turn(history[:-1], history[-1]["content"])
            # As in a rollout: later turns see what the ids say, which a tokenizer may spell in another way.
            history.append({"role": "assistant", "content": turn.content})
        else:
            history.append(answer[at])
    return fork.rows


def _names(record: Record) -> tuple[str, ...]:
    return ("the conversation",) if len(record.answers) == 1 else ("the prompt with chosen", "the prompt with rejected")


def _packed(row: TokenRow) -> tuple[array[int], bytes]:
    return array("i", row.ids), bytes(row.mask)


def _row(ids: array[int], mask: bytes) -> TokenRow:
    return TokenRow(list(ids), list(mask), [0.0] * len(ids), [NOT_SAMPLED] * len(ids))
