"""One run from its first line to its report: what `grpo-train`, `train(...)` and the quickstart have in common.

Invariant: a run folder is made before the model is loaded and is never overwritten; whatever ends the run early leaves
a folder that says so and can be continued. What a user should know goes to the terminal and, where there is one, to the
log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import yaml

from ..checkpoints import Checkpoint, clean_stale_temporaries
from ..core.errors import ConfigError, Interrupted, TrainingStopped, is_out_of_memory
from ..core.outcome import Outcome
from ..core.standstill import here
from ..tracking.layout import ORIGINS, REPORT
from ..tracking.logging_setup import setup_logging
from ..tracking.progress import LoggedProgress, Progress, describe
from ..tracking.run_folder import RunFolder
from ..tracking.sinks import Sinks, chosen_sinks
from .alerting import AlertWatch, alerts_of
from .announce import announce
from .beforehand import require_memory, require_possible
from .blocked import BlockWatch
from .callbacks import Callback
from .changes import evaluation_record
from .closing import closing_report, finish
from .ending import failed, interrupted
from .exclusive import only_run_of, out_of_memory
from .from_config import build_records
from .outages import OutageWatch
from .parts import RunParts
from .resume import begin_from, computed_in, last_state, remembered_start, take_up
from .run import Run, RunReport, Say
from .signals import StopSignals
from .stop_request import StopRequested
from .trainer import Trainer

log = logging.getLogger(__name__)


async def execute(run: Run) -> RunReport:
    """Train, and write everything to the run folder.

    Raises:
        ConfigError, DataError, ModelError, RunFolderError, CheckpointError: see the message.
        TrainingStopped: the run cannot go on and says why.
        Interrupted: Ctrl-C or SIGTERM, where they are caught; the message says how to continue.
        asyncio.CancelledError: the caller gave the run up; what was done is saved.
    """
    with only_run_of(run.agent):
        if run.config.threads is not None:
            torch.set_num_threads(run.config.threads)
        try:
            return await _execute(run)
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(error) from error
            raise


async def _execute(run: Run) -> RunReport:
    data = build_records(run.config)
    start = require_possible(run, data)
    require_memory(run, data)
    with _folder(run, start) as folder, _progress(run) as progress:
        say = _journal(run, folder, progress)
        announce(run.agent, run.config, run.environment, run.evaluation, run.reward, say, data)
        last = None
        if folder is not None:
            clean_stale_temporaries(folder.checkpoints_dir)
            if run.resume:
                last = last_state(folder, run, say, data)
                start = remembered_start(folder) if last is None else None
        alerts = alerts_of(run)
        watchers = [
            *run.callbacks,
            *([_LogFile()] if run.log_file and not isinstance(progress, LoggedProgress) else []),
        ]
        if alerts is not None and folder is not None:
            watchers.append(AlertWatch(alerts, folder.path))
            alerts.open(resumes=run.resume)
        parts = RunParts(
            folder,
            run.evaluation,
            watchers,
            None if run.quiet else progress,
            Sinks(() if run.source is None or folder is None else chosen_sinks(run.source.logging, folder.path)),
            {"run": run.settings, "evaluation": evaluation_record(run)},
            data,
        )
        trainer = Trainer(run.agent, run.environment, run.reward, run.config, parts)

        def answer(text: str) -> None:
            progress.console.show_cursor(show=True)  # a second signal would leave it hidden
            if not run.quiet:
                progress.say(text)

        signals = StopSignals(trainer.request_stop, answer) if run.catch_signals else None
        limits = {Outcome.REWARD: run.config.reward_timeout, Outcome.ENVIRONMENT: run.config.environment_timeout}
        with (
            signals or contextlib.nullcontext(),
            here().heard_by(OutageWatch(parts, alerts)),
            BlockWatch(
                limits,
                None if signals is None else lambda text: signals.raise_there(TrainingStopped(text)),
                alerts.blocked if alerts is not None else lambda text: None,
            ),
        ):
            try:
                await trainer.prepare(None if last is None else computed_in(last), resumes=run.resume)
                if run.before is not None:
                    await run.before(trainer, say)
                if start is not None:
                    begin_from(trainer, start, say)
                if run.resume and folder is not None:
                    take_up(trainer, folder, last, _as_yaml(run), say)
                if start is not None:  # at once: the new run can be resumed when the old one is gone
                    trainer.save()
                if folder is not None:
                    if run.source is not None:  # not sooner: a run that is refused touches nothing
                        folder.write_text(ORIGINS, json.dumps(dict(run.source.origins), indent=1) + "\n")
                    parts.sinks.start(folder.path, run.settings, trainer.steps)
                await trainer.run()
                more = "" if run.after is None else await run.after(trainer, say)
                saved = finish(trainer, run.save_path)
                text = closing_report(trainer, saved) + (more and f"\n{more}")
                if folder is not None:
                    folder.write_text(REPORT, text)
                    folder.set_status("finished", trainer.stop_reason or "")  # last: everything is there by now
            except (StopRequested, asyncio.CancelledError) as error:
                message = interrupted(run, trainer)
                if alerts is not None:
                    alerts.end(message)
                if not run.catch_signals:
                    say(message)
                    error.add_note(message)  # where the traceback is all that is printed, or far above it
                    raise
                raise Interrupted(message) from None
            except BaseException as error:
                failed(run, trainer, error)
                if alerts is not None:
                    alerts.end(f"{type(error).__name__}: {error}", failed=isinstance(error, Exception))
                raise
        parts.sinks.close()
        if alerts is not None:
            alerts.end()
        progress.close()
        return RunReport(text, run.folder, trainer.rows)


def _progress(run: Run) -> Progress:
    if run.source is not None and run.source.logging.format == "json":
        return LoggedProgress(run.source.output_dir.name)
    return Progress()


@contextmanager
def _folder(run: Run, start: Checkpoint | None) -> Iterator[RunFolder | None]:
    """The run folder, locked for this process; None for a run in memory. A new run may begin from a checkpoint."""
    if run.folder is None:
        yield None
        return
    if run.resume:
        folder = RunFolder.open(run.folder)
        folder.lock()
    else:
        started_from = "" if start is None else str(start.path.absolute())
        folder = RunFolder.create(run.folder, config_yaml=_as_yaml(run), started_from=started_from)
    with folder:
        yield folder


def _as_yaml(run: Run) -> str:
    if run.source is not None:
        return run.source.to_yaml()
    try:
        plain = json.loads(json.dumps(run.settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the settings of the agent, environment or reward are no JSON: {error}") from error
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


class _LogFile(Callback):
    """The steps as lines of the log file. The terminal shows them by itself, and gets warnings only from the log."""

    def __init__(self) -> None:
        self._total = 0

    def on_run_start(self, total_steps: int, start_step: int) -> None:
        self._total = total_steps

    def on_step_end(self, metrics: Mapping[str, Any]) -> None:
        log.info("step %d/%d  %s", metrics["step"], self._total, "  ".join(describe(metrics)))


def _journal(run: Run, folder: RunFolder | None, progress: Progress) -> Say:
    """How to tell the user something: on the terminal, and in the log file where there is one."""
    show: Say = (lambda _: None) if run.quiet else progress.say
    file = run.log_file
    if isinstance(progress, LoggedProgress) and folder is not None and run.source is not None:
        path = None if file is None else folder.path / file
        setup_logging(run.source.logging.level, path, form="json", facts=progress.facts)
        return show
    if file is None or folder is None or run.source is None:
        return show
    setup_logging(run.source.logging.level, folder.path / file)
    for note in run.source.notes:
        log.info("%s", note)

    def say(text: str) -> None:
        show(text)
        log.info("%s", text)

    return say
