"""Running the calls of an agent.

Invariant: each call within the budget gets exactly one result, in the order of the calls, whatever the tool does: it
may fail, hang or return megabytes. A sync tool has a thread of its own, so that the tools of all conversations are
under way at once; only a sequential call is alone among those of its turn.

What a tool raises is told to the model, which may do better next time. A `StatesetError` concerns whoever runs the
program, an `EnvironmentFailed` the world that the tool belongs to: both pass through.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..chat.tool_format import MalformedCall
from ..core.busy import during
from ..core.errors import ConfigError, ContextFull, EnvironmentFailed, StatesetError
from ..core.secrets import Redactor
from ..core.tool_calls import TOOL, ToolCall, ToolError, ToolResult
from ..core.tools import BadArguments, Tool
from ..core.trajectory import ConversationTurn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToolLimits:
    """What an agent's tools may take.

    Attributes:
        calls_per_turn: calls before a reply; those beyond are answered with an error. Malformed ones count.
        seconds_per_call: after which a call has failed. The thread of a sync tool goes on, and nobody listens.
        bytes_per_result: of UTF-8 that the model reads of one result; the rest is cut.
    """

    calls_per_turn: int = 8
    seconds_per_call: float = 30.0
    bytes_per_result: int = 4096

    def __post_init__(self) -> None:
        for name in ("calls_per_turn", "seconds_per_call", "bytes_per_result"):
            value = getattr(self, name)
            whole = name != "seconds_per_call"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
                kind = "whole number" if whole else "number"
                raise ConfigError(f"ToolLimits.{name} is {value!r}; it must be a {kind} above 0")


class Toolbox:
    """The tools of one turn.

    Args:
        tools: with different names.
        limits: what they may take.
    """

    def __init__(self, tools: Sequence[Tool], limits: ToolLimits) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.limits = limits

    async def run(self, calls: Sequence[ToolCall | MalformedCall], left: int) -> list[ConversationTurn]:
        """Make the calls.

        Args:
            calls: of one assistant turn.
            left: how many may still be made; the others are refused.

        Returns:
            A turn with the role "tool" for each call that may be made, and one for all beyond.
        """
        calls = calls[: left + 1]
        over = [asyncio.Event() for _ in calls]
        alone = [self._is_sequential(call) for call in calls]

        async def one(place: int) -> ConversationTurn:
            try:
                for earlier in range(place):
                    if alone[place] or alone[earlier]:
                        await over[earlier].wait()
                return await self._answer(calls[place], refused=place >= left)
            finally:
                over[place].set()

        tasks = [asyncio.create_task(one(place)) for place in range(len(calls))]
        try:
            return await asyncio.gather(*tasks)  # a TaskGroup would wrap what passes through
        finally:
            for task in tasks:
                task.cancel()

    def _is_sequential(self, call: ToolCall | MalformedCall) -> bool:
        return isinstance(call, ToolCall) and call.name in self.tools and self.tools[call.name].sequential

    async def _answer(self, call: ToolCall | MalformedCall, *, refused: bool) -> ConversationTurn:
        if refused:
            spent = f"no more than {self.limits.calls_per_turn} calls before a reply; answer the user"
            return self._error(getattr(call, "name", ""), ToolError.BUDGET, spent)
        if isinstance(call, MalformedCall):
            return self._error("", ToolError.MALFORMED, call.problem)
        tool = self.tools.get(call.name)
        if tool is None:
            known = ", ".join(self.tools)
            return self._error(call.name, ToolError.UNKNOWN_TOOL, f"there is no tool {call.name!r}; there are: {known}")
        try:
            arguments = tool.check(call.arguments)
        except BadArguments as error:
            return self._error(call.name, ToolError.BAD_ARGUMENTS, str(error))
        return await self._run(tool, arguments)

    async def _run(self, tool: Tool, arguments: Mapping[str, Any]) -> ConversationTurn:
        begun = time.monotonic()
        seconds = self.limits.seconds_per_call
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                with during("environment"):
                    value = await _called(tool.function, arguments)
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
            if time.monotonic() - begun > seconds:  # it never awaited, or would not be cancelled
                raise TimeoutError
        except EnvironmentFailed:
            raise
        except ContextFull as error:  # of a model that the tool asks, not of the agent's
            return self._error(tool.name, ToolError.FAILED, str(error), time.monotonic() - begun)
        except StatesetError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._error(tool.name, ToolError.FAILED, "the tool was cancelled", time.monotonic() - begun)
        except (Exception, SystemExit) as error:
            spent = time.monotonic() - begun
            if isinstance(error, TimeoutError) and (limit.expired() or spent > seconds):
                return self._error(tool.name, ToolError.TIMEOUT, f"the tool took longer than {seconds:g} s", spent)
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                error.add_note(f"raised by the tool {tool.name}")
                raise
            logger.debug("the tool %s failed", tool.name, exc_info=error)
            # The model may repeat what it reads to the user.
            message = Redactor.from_environment()(f"{type(error).__name__}: {error}")
            return self._error(tool.name, ToolError.FAILED, message, spent)
        content, cut = _clipped(text, self.limits.bytes_per_result)
        return ConversationTurn(TOOL, content, tool_result=ToolResult(tool.name, None, time.monotonic() - begun, cut))

    def _error(self, name: str, kind: ToolError, message: str, seconds: float = 0.0) -> ConversationTurn:
        told, cut = _clipped(message, self.limits.bytes_per_result)
        content = json.dumps({"error": kind.value, "message": told}, ensure_ascii=False)
        return ConversationTurn(TOOL, content, tool_result=ToolResult(name, kind, seconds, cut))


def _plain(value: Any) -> Any:
    """What stands for a value that JSON has no word for: nothing that differs from run to run, such as an address.

    Raises:
        TypeError: nothing does.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (Decimal, Path)):
        return str(value)
    raise TypeError(
        f"the tool gave a {type(value).__name__}, which is no JSON; return text, or numbers, lists and dicts"
    )


async def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(**arguments)
    value = await _in_a_thread(function, arguments)
    return await value if inspect.isawaitable(value) else value


async def _in_a_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What the function returns, from a thread that ends with the program even if the function never does.

    An executor would do neither: its few threads make calls wait for each other, and it is joined at the end.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(value: Any, error: Exception | None) -> None:
        if answer.done():  # nobody listens any more
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def work() -> None:
        value: Any = None
        failure: Exception | None = None
        try:
            value = context.run(function, **arguments)
        except BaseException as error:  # a future takes no StopIteration, and SystemExit is the tool's own affair
            own = isinstance(error, Exception) and not isinstance(error, StopIteration)
            failure = error if own else RuntimeError(f"{type(error).__name__}: {error}")  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(deliver, value, failure)
        except RuntimeError:
            logger.debug("the tool %s came back after the program's loop was closed", function)

    threading.Thread(target=work, name=f"tool {getattr(function, '__name__', '')}", daemon=True).start()
    return await answer


def _clipped(text: str, size: int) -> tuple[str, bool]:
    """The text in at most `size` bytes of UTF-8, and whether it had more."""
    data = text.encode("utf-8", errors="replace")
    if len(data) <= size:
        return data.decode("utf-8"), False
    return data[:size].decode("utf-8", errors="ignore") + " [cut]", True
