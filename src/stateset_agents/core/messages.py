"""Recorded messages as JSON: one object in each line of a file, and what may be wrong with one.

Invariant: a record is taken as it is or refused with its place. All problems are told together, up to a number that a
terminal bears: a file of the wrong kind has one in every line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .data_file import HALF_CHARACTER, half_characters, read_text, unique_keys
from .errors import DataError

Speaker = Literal["user", "assistant"]

MAX_PROBLEMS = 20


def json_lines(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """Place and value of each line that is not blank; a line that does not parse gives the `DataError` as its value.

    Args:
        path: the file.
        what: what kind of file it is, for messages.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8 or JSON whose values go over several lines.
    """
    text = read_text(path, what)
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        begin, start = start, start + len(line) + 1
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line, object_pairs_hook=unique_keys, parse_constant=_no_constant)
        except DataError as error:
            yield place, DataError(f"{place}: {error}")
        except RecursionError:
            yield place, DataError(f"{place}: not valid JSON: values are nested too deep")
        except ValueError as error:
            indent = len(line) - len(line.lstrip())
            if (lines := _lines_of_value(text, begin + indent)) > 1:
                each = ".[]" if line[indent] == "[" else "."
                raise DataError(
                    f"{what} {path} looks like pretty-printed JSON: the value that begins in line {number} goes over "
                    f"{lines} lines, and a JSONL file has one object in each line.\n"
                    f"  write each object in a line of its own (json.dumps without indent), or: jq -c '{each}' "
                    f"{path.name}"
                ) from None
            yield place, DataError(f"{place}: not valid JSON: {getattr(error, 'msg', error)}")
        else:
            yield place, value


def _lines_of_value(text: str, begin: int) -> int:
    """Over how many lines the JSON value goes that begins at `begin`; 0 if there is no whole value."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return 0
    return text.count("\n", begin, end) + 1


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def refuse(problems: Sequence[str]) -> None:
    """Raise the problems as one `DataError`, if there are any."""
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise DataError("\n".join([*problems[:MAX_PROBLEMS], *([f"... and {more} more"] if more > 0 else [])]))


def message_problems(
    place: str,
    key: str,
    messages: Any,
    *,
    first: Speaker = "user",
    last: Speaker | None = None,
    tools: bool = False,
) -> Iterable[str]:
    """What is wrong with a list of messages.

    Args:
        place: of the record, for messages.
        key: of the list in its record.
        messages: what stands there.
        first: who speaks first. Before a user there may be a system message.
        last: who must speak last; None: either.
        tools: whether the assistant may call tools (`tool_calls`), which then answer in messages of the role "tool".
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        yield f"{place}: {key} is {messages!r:.60}; it must be a list of messages, the {first}'s first"
        return
    roles: list[str] = []
    for at, message in enumerate(messages):
        where = f"{place}: {key}[{at}]"
        calls = tools and isinstance(message, Mapping) and "tool_calls" in message
        shape = {"role", "content", "tool_calls"} if calls else {"role", "content"}
        if not isinstance(message, Mapping) or set(message) != shape:
            yield f'{where} is {message!r:.60}; it must be {{"role": ..., "content": ...}} and nothing else'
            return
        allowed = ("system", "user", "assistant", "tool") if tools else ("system", "user", "assistant")
        if message["role"] not in allowed:
            yield f"{where}.role is {message['role']!r}; it must be {', '.join(allowed[:-1])} or {allowed[-1]}"
            return
        if not calls:
            yield from text_problems(f"{where}.content", message["content"])
        elif any(True for _ in half_characters(dict(message))):
            yield f"{where} {HALF_CHARACTER}"
        elif message["role"] != "assistant" or not isinstance(message["content"], str):
            yield f"{where} has tool_calls; that is for the assistant, beside a content that may be empty"
        else:
            yield from call_problems(f"{where}.tool_calls", message["tool_calls"])
        roles.append(message["role"])
    yield from _turn_problems(place, key, roles, first, last)


def call_problems(where: str, calls: Any) -> Iterator[str]:
    """What is wrong with a list of calls of tools."""
    if not isinstance(calls, (list, tuple)) or not calls:
        yield f"{where} is {calls!r:.60}; it must be a list of calls"
        return
    for at, call in enumerate(calls):
        named = isinstance(call, Mapping) and set(call) == {"name", "arguments"}
        if not named or not isinstance(call["name"], str) or not isinstance(call["arguments"], Mapping):
            yield f'{where}[{at}] is {call!r:.60}; it must be {{"name": "tool", "arguments": {{...}}}}'


def text_problems(where: str, text: Any) -> Iterator[str]:
    """What is wrong with something that should be words."""
    if not isinstance(text, str) or not text.strip():
        yield f"{where} is {text!r:.60}; it must be text that is not empty"
    elif any(True for _ in half_characters(text)):
        yield f"{where} {HALF_CHARACTER}"


def _turn_problems(place: str, key: str, roles: Sequence[str], first: Speaker, last: Speaker | None) -> Iterator[str]:
    told = int(first == "user" and roles[0] == "system")
    spoken = roles[told:]
    due: dict[str | None, tuple[str, ...]] = {
        None: (first,),
        "user": ("assistant",),
        "assistant": ("user", "tool"),
        "tool": ("assistant", "tool"),
    }
    before: Sequence[str | None] = [None, *spoken]
    wrong = next((at for at, role in enumerate(spoken) if role not in due.get(before[at], ())), None)
    if not spoken:
        yield f"{place}: nobody says anything; it needs a user message"
    elif wrong is not None:
        how = "a system message may come first, then user and assistant" if first == "user" else "assistant and user"
        yield (
            f"{place}: {key}[{wrong + told}].role is {spoken[wrong]!r}, where {due[before[wrong]][0]!r} is due: {how} "
            "take turns"
        )
    elif last is not None and spoken[-1] != last:
        yield f"{place}: {key} ends with the {spoken[-1]}; the last message must be the {last}'s"
