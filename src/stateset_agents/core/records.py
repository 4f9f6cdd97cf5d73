"""Recorded conversations to learn from: answers to imitate, and pairs of a better and a worse one.

Invariant: every text of a record is used, and none of it twice. The conversation so far is read, the answers are
learned; of a recorded conversation every assistant turn is an answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .messages import json_lines, message_problems, refuse, text_problems

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
