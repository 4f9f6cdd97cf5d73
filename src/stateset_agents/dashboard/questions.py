"""The questions of the page: each method is one, and its name is the end of its address.

Invariant: a question that makes no sense is answered with 400 and what was expected, one about a run or a step that is
not there with 404.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from . import answers, curves, lineage
from .answer import Answer, to_json
from .asked import optional_number, optional_whole, whole
from .conversations import Wanted
from .runs import Run, RunLibrary

MOST_KEYS = 64


class Questions:
    """About the runs of a folder.

    Args:
        library: the runs.
    """

    def __init__(self, library: RunLibrary) -> None:
        self._library = library

    def run_of(self, request: Request) -> Run:
        """The run that is asked about.

        Raises:
            HTTPException: there is none of that name.
        """
        run = self._library.run(request.query_params.get("run", ""))
        if run is None:
            raise HTTPException(404, "there is no run of that name")
        return run

    def runs(self, _: Request) -> Response:
        """Every run with how it stands."""
        return _json(answers.runs(self._library))

    def overview(self, request: Request) -> Response:
        """One run: status, verdict, health, what there is to plot."""
        return _json(answers.overview(self.run_of(request)))

    def series(self, request: Request) -> Response:
        """Curves: `key` names a column and may be given again."""
        return _json(
            curves.series(
                self.run_of(request),
                request.query_params.getlist("key")[:MOST_KEYS] or ["reward_mean"],
                first=optional_whole(request, "first"),
                last=optional_whole(request, "last"),
                points=whole(request, "points", 600, least=2),
            )
        )

    def step(self, request: Request) -> Response:
        """All that one step measured."""
        return _found(answers.step(self.run_of(request), whole(request, "step")), "step")

    def groups(self, request: Request) -> Response:
        """One page of the groups whose conversations are wanted."""
        asked = request.query_params
        wanted = Wanted(
            step=optional_whole(request, "step"),
            phase=asked.get("phase") or None,
            scenario=asked.get("scenario") or None,
            outcome=asked.get("outcome") or None,
            low=optional_number(request, "low"),
            high=optional_number(request, "high"),
        )
        start = whole(request, "start", 0, least=0)
        newest_first = asked.get("order") == "newest"
        return _json(answers.groups(self.run_of(request), wanted, start=start, newest_first=newest_first))

    def group(self, request: Request) -> Response:
        """The conversations of a group."""
        run = self.run_of(request)
        name = (whole(request, "step"), request.query_params.get("phase", "train"), whole(request, "group"))
        return _found(answers.group(run, name), "group")

    def config(self, request: Request) -> Response:
        """The resolved config."""
        return _json(lineage.config(self.run_of(request)))

    def checkpoints(self, request: Request) -> Response:
        """Every checkpoint."""
        return _json(lineage.checkpoints(self.run_of(request)))

    def verify(self, request: Request) -> Response:
        """Whether a checkpoint is what was written."""
        return _found(lineage.verify(self.run_of(request), whole(request, "step")), "checkpoint")

    @property
    def all(self) -> tuple[tuple[str, Callable[[Request], Response]], ...]:
        """Each question by its name."""
        names = ("runs", "overview", "series", "step", "groups", "group", "config", "checkpoints", "verify")
        return tuple((name, getattr(self, name)) for name in names)


def _json(answer: Answer) -> Response:
    return Response(to_json(answer), media_type="application/json")


def _found(answer: Answer | None, what: str) -> Response:
    if answer is None:
        raise HTTPException(404, f"there is no such {what}")
    return _json(answer)
