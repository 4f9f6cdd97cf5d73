"""The alerts of one run: its rules, and where they are told.

Invariant: an alert never ends a run and never makes it wait. What goes wrong in telling one is logged once. Which rules
fire is part of a run's state; what was told of stands beside the run, in its folder.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config.alerts import AlertRule, AlertsSection
from ...core.errors import ConfigError
from ..disk import require_makeable
from .rules import Level, Row, built_in_rules, rule_of
from .told import RUN, Alert, Told
from .webhook import Webhook

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""That the end of a run waits for a webhook."""
HASTY_SECONDS = 3.0
"""The same where somebody waits for the process to end."""
MOST_CHARACTERS = 500
"""That are told of why a run ended."""
LOOK_SECONDS = 1.0
"""Between two looks for silence."""


class Alerts:
    """See the module.

    Args:
        rules: of the config.
        section: where they are told.
        folder: the run folder; a relative file is below it.
        attainable: the highest reward that an episode can get, if known.
    """

    def __init__(
        self, rules: Sequence[AlertRule], section: AlertsSection, folder: Path, *, attainable: float | None = None
    ) -> None:
        self._section, self._folder = section, folder
        own = [rule for rule in map(rule_of, rules) if rule is not None]
        self._rules = [*(built_in_rules(attainable) if section.built_in else []), *own]
        self._silences = [(rule.title, rule.silent_minutes * 60) for rule in rules if rule.silent_minutes is not None]
        self._unseen = {f"alerts[{index}]": rule.metric for index, rule in enumerate(rules) if rule.metric is not None}
        self._webhook = (
            None if section.webhook_env is None else Webhook(section.webhook_env, key=f"{section.called}.webhook_env")
        )
        self._told: Told | None = None
        self._lock = threading.Lock()
        self._down: set[str] = set()
        self._step = 0
        self._heard = time.monotonic()
        self._over = threading.Event()

    @property
    def file(self) -> Path:
        """Where alerts are written."""
        return self._folder / Path(self._section.file).expanduser()

    def check(self, taken: Sequence[str]) -> None:
        """Look before a run whether alerts can be told.

        Args:
            taken: names in the run folder that the run itself writes.

        Raises:
            ConfigError: the webhook has no address, or the file cannot be written.
        """
        if self._webhook is not None:
            self._webhook.check()
        key = f'{self._section.called}.file is "{self._section.file}"'
        folder, file = self._folder.resolve(), self.file.resolve()
        if file == folder or (file.is_relative_to(folder) and file.relative_to(folder).parts[0] in taken):
            raise ConfigError(f"{key}, which the run itself writes: give another name.")
        try:
            require_makeable(file)
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        except OSError as error:
            raise ConfigError(f"{key}, which cannot be written ({error.strerror}).") from error

    def open(self, *, resumes: bool) -> None:
        """Begin, or go on.

        Args:
            resumes: whether the folder holds an earlier part of this run, with what was told of it.
        """
        folder = self._folder.resolve()
        shared = not self.file.resolve().is_relative_to(folder)
        cool_down = self._section.cool_down * 60
        try:
            self._told = Told(
                self.file, folder.name, resumes=resumes, shared=shared, cool_down=cool_down, send=self._send
            )
        except OSError as error:
            log.warning("alerts cannot be written to %s, and none is told: %s", self.file, error)

    def start(self, rows: Sequence[Row]) -> None:
        """The first step follows.

        Args:
            rows: of the steps that are done.
        """
        for rule in self._rules:
            rule.remember(rows)
        self._step, self._heard = int(rows[-1]["step"]) if rows else 0, time.monotonic()
        if self._silences:
            threading.Thread(target=self._listen, name="silence", daemon=True).start()

    def after(self, row: Row) -> None:
        """Look at the row of a step."""
        self._step, self._heard = int(row["step"]), time.monotonic()
        self._look_for_typos(row)
        for name, _ in self._silences:
            self._tell(name, "critical", "steps are made again", fires=False)
        self._tell(RUN, "warning", "the run goes on", fires=False)
        if not self._down:  # an earlier part of the run may have ended while one was
            self._tell("service down", "critical", "no service is down", fires=False)
        self._tell("blocked", "critical", "steps are made again", fires=False)
        for rule in self._rules:
            fires = rule.look(row)  # which is what makes its text
            self._tell(rule.name, rule.level, rule.text, fires=fires, of_step=True)

    def service(self, name: str, text: str, *, down: bool) -> None:
        """A service that rewards or users need is down, or answers again. The alert is over when all of them answer."""
        (self._down.add if down else self._down.discard)(name)
        if self._section.built_in:
            self._tell("service down", "critical", text, fires=bool(self._down))

    def blocked(self, text: str) -> None:
        """A reward or an environment blocks everybody else."""
        if self._section.built_in:
            self._tell("blocked", "critical", text, fires=True)

    def end(self, problem: str = "", *, failed: bool = False) -> None:
        """The run is over.

        Args:
            problem: why it ended before its end, and what to do; nothing to tell where it did not.
            failed: whether that is a failure; else somebody stopped it, and waits for the process.
        """
        self._over.set()
        if problem and self._section.built_in:
            level: Level = "critical" if failed else "warning"
            text = textwrap.shorten(f"failed: {problem}" if failed else problem, MOST_CHARACTERS, placeholder=" ...")
            self._tell(RUN, level, text, fires=True)
        elif not problem:  # a run that is resumed at its end makes no step that could say so
            self._tell(RUN, "warning", "the run is finished", fires=False)
        if self._webhook is not None:
            self._webhook.close(HASTY_SECONDS if problem and not failed else CLOSE_SECONDS)
        with self._lock:
            if self._told is not None:
                self._told.close()
            self._told = None

    def state_dict(self) -> dict[str, Any]:
        """Where each rule stands."""
        return {rule.name: rule.state_dict() for rule in self._rules}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; a rule that was not there then begins anew."""
        for rule in self._rules:
            if rule.name in state:
                rule.load_state_dict(state[rule.name])

    def _tell(self, name: str, level: Level, text: str, *, fires: bool, of_step: bool = False) -> None:
        with self._lock:
            if self._told is None:
                return
            try:
                say = self._told.rule if of_step else self._told.event
                say(name, level, self._step, text, fires=fires)
            except OSError as error:
                log.warning("alerts can no longer be written to %s, and none is told: %s", self.file, error)
                self._told = None

    def _send(self, alert: Alert) -> None:
        log.log(
            logging.WARNING if alert.state == "firing" else logging.INFO,
            "alert %s: %s, step %d: %s",
            alert.state,
            alert.alert,
            alert.step,
            alert.text,
        )
        if self._webhook is not None:
            self._webhook.send(alert)

    def _listen(self) -> None:
        """Tell of silence, from a thread: whoever is silent cannot say so."""
        while not self._over.wait(LOOK_SECONDS):
            silent = time.monotonic() - self._heard
            for name, seconds in self._silences:
                if silent > seconds:
                    self._tell(name, "critical", f"no step since {silent / 60:.1f} minutes", fires=True)

    def _look_for_typos(self, row: Row) -> None:
        """A rule about a metric that there is not would be silent for ever: say so when it could be known."""
        for place, metric in list(self._unseen.items()):
            if metric in row:
                del self._unseen[place]
            elif not metric.startswith("eval_") or any(key.startswith("eval_") for key in row):
                del self._unseen[place]
                near = difflib.get_close_matches(metric, row, n=1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                log.warning('%s.metric is "%s", which this step does not have%s', place, metric, hint)
