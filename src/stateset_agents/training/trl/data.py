"""Recorded conversations as scenarios: the `train_data` of `train_with_trl_grpo`.

Invariant: nothing is dropped in silence. The user's messages become a script that is played against the agent, a system
message becomes what the agent is told, and a last answer is the ground truth for rewards that compare with one. The
agent's other recorded answers are not used: it gives its own. A record that cannot be read so is refused, with its
place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.messages import json_lines, message_problems, refuse
from ...core.records import CONVERSATION
from ...core.scenario import Scenario

TrainData = str | os.PathLike[str] | Sequence[Mapping[str, Any]]


def scenarios_of(data: TrainData) -> list[Scenario]:
    """The scenarios of training data.

    Args:
        data: a list of `{"messages": [...]}` records, or the path of a JSONL file with one in each line.

    Raises:
        DataError: there are none, or some are malformed; each is named by its line or its place in the list.
    """
    if isinstance(data, (str, os.PathLike)):
        return _checked(json_lines(Path(data), "train_data"), str(data))
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise DataError(
            f"train_data is {type(data).__name__}; it must be a list of {CONVERSATION}, or a JSONL file's path"
        )
    return _checked(((f"train_data[{at}]", record) for at, record in enumerate(data)), "train_data")


def _checked(records: Iterable[tuple[str, Any]], source: str) -> list[Scenario]:
    scenarios: list[Scenario] = []
    problems: list[str] = []
    for place, record in records:
        found = [str(record)] if isinstance(record, DataError) else list(_problems(place, record))
        if found:
            problems += found
        else:
            scenarios.append(_scenario(record["messages"], f"conversation-{len(scenarios)}"))
    refuse(problems)
    if not scenarios:
        raise DataError(f"{source} holds no conversation; it must hold records such as {CONVERSATION}")
    return scenarios


def _problems(place: str, record: Any) -> Iterable[str]:
    if not isinstance(record, Mapping):
        yield f"{place} is {record!r:.60}; it must be {CONVERSATION}"
        return
    for key in record:
        if key != "messages":
            yield f"{place} has the unknown key {key!r}; it must be {CONVERSATION}"
    yield from message_problems(place, "messages", record.get("messages"))


def _scenario(messages: Sequence[Mapping[str, str]], identity: str) -> Scenario:
    told = messages[0]["content"] if messages[0]["role"] == "system" else None
    last = messages[-1]
    return Scenario(
        id=identity,
        user_responses=tuple(message["content"] for message in messages if message["role"] == "user"),
        agent_context=told,
        ground_truth=last["content"] if last["role"] == "assistant" else None,
    )
