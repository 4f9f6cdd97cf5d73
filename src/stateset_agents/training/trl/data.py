"""Recorded conversations as scenarios: the `train_data` of `train_with_trl_grpo`.

Invariant: nothing is dropped in silence. The user's messages become a script that is played against the agent, a system
message becomes what the agent is told, and a last answer is the ground truth for rewards that compare with one. The
agent's other recorded answers are not used: it gives its own. A record that cannot be read so is refused, with its
place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.data_file import HALF_CHARACTER, half_characters, read_text
from ...core.errors import DataError
from ...core.scenario import Scenario

TrainData = str | os.PathLike[str] | Sequence[Mapping[str, Any]]

SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
MAX_PROBLEMS = 20
"""Problems told at once; a file of the wrong kind has one in every line."""


def scenarios_of(data: TrainData) -> list[Scenario]:
    """The scenarios of training data.

    Args:
        data: a list of `{"messages": [...]}` records, or the path of a JSONL file with one in each line.

    Raises:
        DataError: there are none, or some are malformed; each is named by its line or its place in the list.
    """
    if isinstance(data, (str, os.PathLike)):
        return _checked(_lines(Path(data)), str(data))
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise DataError(f"train_data is {type(data).__name__}; it must be a list of {SHAPE}, or a JSONL file's path")
    return _checked(((f"train_data[{at}]", record) for at, record in enumerate(data)), "train_data")


def _lines(path: Path) -> Iterable[tuple[str, Any]]:
    for number, line in enumerate(read_text(path, "train_data").split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "values are nested too deep")
            yield place, DataError(f"{place}: not valid JSON: {reason}")
        else:
            yield place, record


def _checked(records: Iterable[tuple[str, Any]], source: str) -> list[Scenario]:
    scenarios: list[Scenario] = []
    problems: list[str] = []
    for place, record in records:
        found = [str(record)] if isinstance(record, DataError) else list(_problems(place, record))
        if found:
            problems += found
        else:
            scenarios.append(_scenario(record["messages"], f"conversation-{len(scenarios)}"))
    if problems:
        more = len(problems) - MAX_PROBLEMS
        shown = [*problems[:MAX_PROBLEMS], f"... and {more} more"] if more > 0 else problems
        raise DataError("\n".join(shown))
    if not scenarios:
        raise DataError(f"{source} holds no conversation; it must hold records such as {SHAPE}")
    return scenarios


def _problems(place: str, record: Any) -> Iterable[str]:
    if not isinstance(record, Mapping):
        yield f"{place} is {record!r:.60}; it must be {SHAPE}"
        return
    for key in record:
        if key != "messages":
            yield f"{place} has the unknown key {key!r}; it must be {SHAPE}"
    messages = record.get("messages")
    if not isinstance(messages, (list, tuple)) or not messages:
        yield f"{place}: messages is {messages!r:.60}; it must be a list of messages, the user's first"
        return
    roles = []
    for at, message in enumerate(messages):
        where = f"{place}: messages[{at}]"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            yield f'{where} is {message!r:.60}; it must be {{"role": ..., "content": ...}} and nothing else'
            return
        if message["role"] not in ("system", "user", "assistant"):
            yield f"{where}.role is {message['role']!r}; it must be system, user or assistant"
            return
        if not isinstance(message["content"], str) or not message["content"].strip():
            yield f"{where}.content is {message['content']!r:.60}; it must be text that is not empty"
        elif any(True for _ in half_characters(message["content"])):
            yield f"{where}.content {HALF_CHARACTER}"
        roles.append(message["role"])
    spoken = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * len(spoken)
    wrong = next((at for at, role in enumerate(spoken) if role != expected[at]), None)
    if not spoken:
        yield f"{place}: nobody says anything; it needs a user message"
    elif wrong is not None:
        yield (
            f"{place}: messages[{wrong + len(roles) - len(spoken)}].role is {spoken[wrong]!r}, where "
            f"{expected[wrong]!r} is due: a system message may come first, then user and assistant take turns"
        )


def _scenario(messages: Sequence[Mapping[str, str]], identity: str) -> Scenario:
    told = messages[0]["content"] if messages[0]["role"] == "system" else None
    last = messages[-1]
    return Scenario(
        id=identity,
        user_responses=tuple(message["content"] for message in messages if message["role"] == "user"),
        agent_context=told,
        ground_truth=last["content"] if last["role"] == "assistant" else None,
    )
