"""Recorded conversations to learn from: answers to imitate, and pairs of a better and a worse one.

Invariant: every text of a record is used, and none of it twice. The conversation so far is read, the answers are
learned; of a recorded conversation every assistant turn is an answer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .messages import json_lines, message_problems, refuse, text_problems
from .trajectory import ConversationTurn

Message = Mapping[str, Any]

CONVERSATION = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
PAIR = '{"messages": [{"role": "user", "content": "..."}], "chosen": "...", "rejected": "..."}'


@dataclass(frozen=True)
class Record:
    """One line of a data file.

    Attributes:
        place: file and line, for messages.
        prompt: messages up to the user's that is answered; a system message may come first.
        answers: each a reply of the assistant, or several with the user's messages between them, and with calls of
            tools (`tool_calls`) and what the tools said. One is to be imitated; of two the first is the better one.
    """

    place: str
    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]


def read_records(path: Path, *, pairs: bool) -> list[Record]:
    """The records of a JSONL file.

    Args:
        path: one JSON object in each line.
        pairs: whether they are pairs; otherwise conversations to imitate.

    Raises:
        DataError: the file is missing or holds none, or some are malformed; each is named by its line.
    """
    shape = PAIR if pairs else CONVERSATION
    records: list[Record] = []
    problems: list[str] = []
    for place, value in json_lines(path, "data file"):
        found = list(_problems(place, value, pairs=pairs))
        problems += found
        if not found and not problems:
            records.append(_pair(place, value) if pairs else _conversation(place, value))
    refuse(problems)
    if not records:
        raise DataError(f"data file {path} holds no record; each line must be {shape}")
    return records


def digest(records: Iterable[Record]) -> str:
    """SHA-256 of what the records say, whatever the file is called."""
    hashed = hashlib.sha256()
    for record in records:
        hashed.update(json.dumps([record.prompt, record.answers], sort_keys=True).encode() + b"\n")
    return hashed.hexdigest()


def as_record(
    turns: Sequence[ConversationTurn], system_prompt: str | None = None, beside_calls: Callable[[str], str] = str
) -> dict[str, Any]:
    """A conversation that was held, as one that can be learned from.

    Args:
        turns: user, assistant and tool turns, ending with a reply.
        system_prompt: what the agent was told before it.
        beside_calls: what a turn says to the user that also calls tools.
    """
    messages: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for turn in turns:
        if turn.tool_calls:
            calls = [call.to_dict() for call in turn.tool_calls]
            messages.append({"role": turn.role, "content": beside_calls(turn.content).strip(), "tool_calls": calls})
        else:
            messages.append(turn.to_message())
    return {"messages": messages}


def append_record(path: Path, record: Mapping[str, Any]) -> int:
    """Add a conversation to a data file, which is made if there is none.

    Returns:
        Conversations that the file holds with it.

    Raises:
        DataError: nobody could learn from the conversation, or the file holds something else; nothing is written.
        OSError: the file cannot be written.
    """
    refuse(list(_problems("this conversation", record, pairs=False)))
    before = len(read_records(path, pairs=False)) if path.exists() and path.stat().st_size else 0
    text = json.dumps(record, ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        if before:
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode("utf-8"))
    return before + 1


def _problems(place: str, value: Any, *, pairs: bool) -> Iterator[str]:
    if isinstance(value, DataError):
        yield str(value)
        return
    shape = PAIR if pairs else CONVERSATION
    if not isinstance(value, Mapping):
        yield f"{place} is {value!r:.60}; it must be {shape}"
        return
    known = ("messages", "prompt", "chosen", "rejected") if pairs else ("messages",)
    for key in value:
        if key not in known:
            yield f"{place} has the unknown key {key!r}; it must be {shape}"
    if not pairs:
        yield from message_problems(place, "messages", value.get("messages"), last="assistant", tools=True)
        return
    if "messages" in value and "prompt" in value:
        yield f"{place} has both messages and prompt, which mean the same: keep one"
    key = "prompt" if "prompt" in value else "messages"
    yield from message_problems(place, key, value.get(key), last="user", tools=True)
    wrong = False
    for side in ("chosen", "rejected"):
        for problem in _answer_problems(place, side, value.get(side)):
            wrong = True
            yield problem
    if not wrong and _answer(value["chosen"]) == _answer(value["rejected"]):
        yield f"{place}: chosen and rejected are the same, so there is nothing to prefer"


def _answer_problems(place: str, side: str, answer: Any) -> Iterable[str]:
    if isinstance(answer, (list, tuple)):
        return message_problems(place, side, answer, first="assistant", last="assistant", tools=True)
    return text_problems(f"{place}: {side}", answer)


def _conversation(place: str, value: Mapping[str, Any]) -> Record:
    messages = value["messages"]
    first = next(at for at, message in enumerate(messages) if message["role"] == "assistant")
    return Record(place, tuple(messages[:first]), (tuple(messages[first:]),))


def _pair(place: str, value: Mapping[str, Any]) -> Record:
    prompt = value["prompt" if "prompt" in value else "messages"]
    return Record(place, tuple(prompt), (_answer(value["chosen"]), _answer(value["rejected"])))


def _answer(answer: str | Sequence[Message]) -> tuple[Message, ...]:
    return ({"role": "assistant", "content": answer},) if isinstance(answer, str) else tuple(answer)
