"""What a run shows of a service that is down.

Invariant: a run that waits is seen to be alive: its status says what it waits for, and its heart beats.
"""

from __future__ import annotations

import contextlib

from ..core.errors import RunFolderError
from ..core.standstill import Outage
from ..tracking.alerts import Alerts
from ..tracking.progress import duration
from .parts import RunParts


class OutageWatch:
    """Told of each outage.

    Args:
        parts: where it is shown.
        alerts: what else tells of it.
    """

    def __init__(self, parts: RunParts, alerts: Alerts | None) -> None:
        self._parts, self._alerts = parts, alerts

    def __call__(self, outage: Outage) -> None:
        """Show it."""
        text = f"waiting for {outage.service}, down for {duration(outage.seconds)}"
        if outage.waited_for:
            self._parts.phase("" if outage.over else text)
            folder = self._parts.folder
            if folder is not None and folder.written:  # a resume may still be refused
                with contextlib.suppress(RunFolderError):  # the step will meet the same disk, and say so
                    folder.set_status("running", "" if outage.over else text)
        if self._alerts is not None:
            after = f"{outage.service} answers again after {duration(outage.seconds)}"
            named = outage.reason.startswith(outage.service)
            why = outage.reason if named else f"{outage.service}: {outage.reason}"
            self._alerts.service(outage.service, after if outage.over else why, down=not outage.over)
