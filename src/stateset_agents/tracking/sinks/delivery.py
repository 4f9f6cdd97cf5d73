"""How metrics reach their sinks.

Invariant: the run folder is the truth and a sink is a copy. What is wrong at the start (a missing package, no login) is
said before any work is done. After that each sink has a thread and a bounded queue of its own: whatever it raises is
logged once, counted, and never stops training, and a call that hangs holds up nobody but that sink.

What each sink has been sent is noted in the run folder (`trackers.json`) and not in checkpoints, which are older: a run
that was killed goes on in the same record, and the steps that it does again are not sent again.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.secrets import Redactor
from ...core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..disk import replace_text
from ..redaction import redact_config
from ..run_folder import TRACKERS
from .base import MetricsSink, SamplesSink

log = logging.getLogger(__name__)

START_SECONDS = 120.0
CLOSE_SECONDS = 60.0
MOST_WAITING = 1000
"""Rows that wait for a slow sink; those beyond are dropped, and counted as failures."""

_Call = Callable[[], None]


class Sinks:
    """All sinks of a run behind one call each, with the invariant of this module.

    Attributes:
        failures: how often each sink has failed since it was started, by name.
    """

    def __init__(self, sinks: Sequence[MetricsSink] = ()) -> None:
        self.sinks = tuple(sinks)
        self.failures = {sink.name: 0 for sink in self.sinks}
        self._lanes: list[_Lane] = []
        self._redactor = Redactor.from_environment()

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int = 0) -> None:
        """Connect all of them.

        Args:
            folder: the run folder.
            config: the resolved configuration; secrets are taken out here.
            start_step: steps that are done already, on resume.

        Raises:
            ConfigError: one of them cannot be used; those before it are closed again.
        """
        clean = redact_config(config, self._redactor)
        record = _Record(folder / TRACKERS)
        for sink in self.sinks:
            lane = _Lane(sink, record, self.failures)
            try:
                lane.start(folder, clean, start_step)
            except BaseException:
                self.close(failed=True)
                raise
            self._lanes.append(lane)

    def log(self, row: Mapping[str, Any]) -> None:
        """Copy one row of `metrics.jsonl`: its finite numbers, under their step."""
        step = int(row["step"])
        numbers = {key: float(value) for key, value in row.items() if key != "step" and _is_number(value)}
        for lane in self._lanes:
            lane.log(step, numbers)

    def sample(self, step: int, groups: Sequence[TrajectoryGroup]) -> None:
        """Copy the first conversations of a step to the sinks that were asked to take some."""
        for lane in self._lanes:
            sink = lane.sink
            if isinstance(sink, SamplesSink) and sink.samples:
                episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
                lane.log_samples(sink, step, [self._row(step, episode) for episode in episodes[: sink.samples]])

    def close(self, *, failed: bool = False) -> None:
        """Send what is left, and say how much did not arrive. What was not started has nothing to send."""
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.close(failed=failed)
        end = time.monotonic() + CLOSE_SECONDS
        for lane in lanes:
            name = lane.sink.name
            if not lane.ended(end - time.monotonic()):
                log.warning("%s does not answer and is left behind; metrics.jsonl has every row", name)
            if self.failures[name]:
                log.warning("%s failed %d times; metrics.jsonl has every row", name, self.failures[name])

    def _row(self, step: int, episode: MultiTurnTrajectory) -> list[object]:
        said = "\n".join(f"{turn.role}: {turn.content}" for turn in episode.turns)
        return [step, episode.scenario_id, self._redactor(said), episode.reward, episode.outcome.value]


class _Lane:
    """One sink with a thread of its own, which makes all calls in their order."""

    def __init__(self, sink: MetricsSink, record: _Record, failures: dict[str, int]) -> None:
        self.sink = sink
        self._record, self._failures = record, failures
        self._sent = -1
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        """Connect, and wait for that."""
        done: Future[None] = Future()

        def connect() -> None:
            try:
                self._connect(folder, config, start_step)
            except BaseException as error:  # whatever it is, the one who waits is to have it
                done.set_exception(error)
            else:
                done.set_result(None)

        self._thread.start()
        self._calls.put(connect)
        name = self.sink.name
        try:
            done.result(START_SECONDS)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # what the sink raises: `sys.exit` of a client library is no end of us
            if not done.done():
                raise ConfigError(f"{name} did not start within {START_SECONDS:.0f} seconds; leave it out") from None
            raise ConfigError(f"{name} did not start: {error!r}; mend that, or leave it out") from error
        finally:
            if not done.done() or done.exception() is not None:
                self._calls.put(None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Copy a step, unless the sink has it."""

        def send() -> None:
            if step <= self._sent:
                return
            # Noted first: a step that is missing leaves a gap in a curve, one that is there twice breaks it.
            self._sent = step
            self._record.note(self.sink, step)
            self.sink.log(step, numbers)

        self._put(send)

    def log_samples(self, sink: SamplesSink, step: int, rows: Sequence[Sequence[object]]) -> None:
        """Copy a step's conversations, unless the sink has the step."""

        def send() -> None:
            if step > self._sent:
                sink.log_samples(step, rows)

        self._put(send)

    def close(self, *, failed: bool) -> None:
        """Have what waits sent, and the sink closed after it."""
        self._calls.put(lambda: self.sink.close(failed=failed))
        self._calls.put(None)

    def ended(self, seconds: float) -> bool:
        """Wait until everything is sent; whether it is."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _connect(self, folder: Path, config: Mapping[str, Any], start_step: int) -> None:
        before = self._record.of(self.sink)
        if before is not None:
            self.sink.load_state_dict(before["state"])
            self._sent = min(before["sent"], start_step) if self.sink.rewinds else before["sent"]
        self.sink.start(folder, config, start_step)
        self._record.note(self.sink, self._sent, self.sink.state_dict())

    def _put(self, call: _Call) -> None:
        if self._calls.qsize() < MOST_WAITING:
            self._calls.put(call)
        else:
            self._failed(f"{MOST_WAITING} rows wait for it, and what follows is dropped")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # SystemExit too: it is the sink's, not the run's
                self._failed(repr(error))
                log.debug("%s", self.sink.name, exc_info=True)

    def _failed(self, why: str) -> None:
        self._failures[self.sink.name] += 1
        if self._failures[self.sink.name] == 1:
            log.warning("%s failed, training goes on: %s", self.sink.name, why)


class _Record:
    """What each sink was sent, and what it needs to go on; one small file for all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sinks: dict[str, dict[str, Any]] = {}
        try:
            self._sinks = {name: _entry(one) for name, one in json.loads(path.read_text(encoding="utf-8")).items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s): trackers begin new records", path, error)

    def of(self, sink: MetricsSink) -> dict[str, Any] | None:
        return self._sinks.get(sink.name)

    def note(self, sink: MetricsSink, sent: int, state: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            kept = self._sinks[sink.name]["state"] if state is None else dict(state)
            self._sinks[sink.name] = {"sent": sent, "state": kept}
            replace_text(self._path, json.dumps(self._sinks, indent=1), durable=False)


def _entry(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"sent": int(one["sent"]), "state": dict(one["state"])}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
