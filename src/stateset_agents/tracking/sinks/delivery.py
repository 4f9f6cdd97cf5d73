"""How metrics reach their sinks.

Invariant: the run folder is the truth and a sink is a copy. What is wrong at the start (a missing package, no login) is
said before any work is done. After that each sink has a thread and a bounded queue of its own: whatever it raises is
logged once, counted, and never stops training, and a call that hangs holds up nobody but that sink.

What each sink has been sent is noted in the run folder (`trackers.json`) and not in checkpoints, which are older: a run
that was killed goes on in the same record: the steps that it does again are not sent again, and those that still waited
to be sent are sent from `metrics.jsonl`. A step's conversations go with its row, never before it.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.secrets import Redactor
from ...core.trajectory import MultiTurnTrajectory, TrajectoryGroup
from ..disk import replace_text
from ..layout import TRACKERS
from ..redaction import redact_config
from ..run_folder import read_metrics
from .base import MetricsSink, SamplesSink

log = logging.getLogger(__name__)

START_SECONDS = 120.0
CLOSE_SECONDS = 60.0
MOST_WAITING = 1000
"""Rows that wait for a slow sink; those beyond are dropped, and counted as failures."""

_Call = Callable[[], None]
_Samples = tuple[int, list[list[object]]]
"""A step, and rows of some of its conversations."""


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
        self._played: dict[int, list[MultiTurnTrajectory]] = {}

    def start(self, folder: Path, config: Mapping[str, Any], start_step: int = 0) -> None:
        """Connect all of them.

        Args:
            folder: the run folder.
            config: the resolved configuration; secrets are taken out here.
            start_step: steps that are done already, on resume. What a sink lacks of them is sent.

        Raises:
            ConfigError: one of them cannot be used; those before it are closed again.
        """
        clean = redact_config(config, self._redactor)
        record = _Record(folder / TRACKERS)
        done = [_numbers(row) for row in (read_metrics(folder) if start_step else []) if row["step"] <= start_step]
        for sink in self.sinks:
            lane = _Lane(sink, record, self.failures)
            try:
                lane.start(folder, clean, start_step)
            except BaseException:
                self.close(failed=True)
                raise
            self._lanes.append(lane)
            lane.catch_up(done)

    def log(self, row: Mapping[str, Any]) -> None:
        """Copy one row of `metrics.jsonl`: its finite numbers, under their step."""
        step, numbers = _numbers(row)
        played, self._played = self._played, {}
        for lane in self._lanes:
            most = lane.sink.samples if isinstance(lane.sink, SamplesSink) else 0
            samples = [(at, [self._row(at, one) for one in ones[:most]]) for at, ones in played.items()] if most else []
            lane.log(step, numbers, samples)

    def sample(self, step: int, groups: Sequence[TrajectoryGroup]) -> None:
        """Copy the first conversations of a step, with the next row, to the sinks that were asked to take some."""
        most = max((lane.sink.samples for lane in self._lanes if isinstance(lane.sink, SamplesSink)), default=0)
        if most:
            episodes = [episode for group in groups for episode in (*group.trajectories, *group.failures)]
            self._played[step] = episodes[:most]

    def close(self, *, failed: bool = False, seconds: float | None = None) -> None:
        """Send what is left, and say how much did not arrive. What was not started has nothing to send.

        Args:
            failed: whether the run did not reach its end.
            seconds: that this may take; None: a minute.
        """
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.close(failed=failed)
        end = time.monotonic() + (CLOSE_SECONDS if seconds is None else seconds)
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

    def catch_up(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Copy the steps before a resumed run that the sink lacks, however many."""
        for step, numbers in rows:
            self._calls.put(partial(self._send, step, numbers))

    def log(self, step: int, numbers: Mapping[str, float], samples: Sequence[_Samples] = ()) -> None:
        """Copy a step, with some conversations of it or of those before, unless the sink has it."""
        if self._calls.qsize() < MOST_WAITING:
            self._calls.put(partial(self._send, step, numbers, samples))
        else:
            self._failed(f"{MOST_WAITING} rows wait for it, and what follows is dropped")

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
        else:
            self._sent = start_step
        self.sink.start(folder, config, start_step)
        self._record.note(self.sink, self._sent, self.sink.state_dict())

    def _send(self, step: int, numbers: Mapping[str, float], samples: Sequence[_Samples] = ()) -> None:
        if step <= self._sent:
            return
        # Noted first: a step that is missing leaves a gap in a curve, one that is there twice breaks it.
        self._sent = step
        self._record.note(self.sink, step)
        self.sink.log(step, numbers)
        if isinstance(self.sink, SamplesSink):
            for at, rows in samples:
                self.sink.log_samples(at, rows)

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
        self._told = False
        try:
            self._sinks = {name: _entry(one) for name, one in json.loads(path.read_text(encoding="utf-8")).items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s): trackers begin new records", path, error)

    def of(self, sink: MetricsSink) -> dict[str, Any] | None:
        return self._sinks.get(sink.name)

    def note(self, sink: MetricsSink, sent: int, state: Mapping[str, Any] | None = None) -> None:
        """Write it down. Where that fails, what was sent is sent all the same."""
        with self._lock:
            kept = self._sinks[sink.name]["state"] if state is None else dict(state)
            self._sinks[sink.name] = {"sent": sent, "state": kept}
            try:
                replace_text(self._path, json.dumps(self._sinks, indent=1), durable=False)
            except OSError as error:
                if not self._told:
                    self._told = True
                    log.warning(
                        "%s cannot be written (%s): after a crash, trackers may show a step twice", self._path, error
                    )


def _entry(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"sent": int(one["sent"]), "state": dict(one["state"])}


def _numbers(row: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The step of a row, and its finite numbers."""
    return int(row["step"]), {key: float(one) for key, one in row.items() if key != "step" and _is_number(one)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
