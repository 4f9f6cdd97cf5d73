"""With what a run was started, and what it saved.

Invariant: nothing here is trusted: a config that is none and a checkpoint that is damaged are told as such. Secrets are
stars.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from ..checkpoints.locate import FINAL_MODEL
from ..checkpoints.manifest import Manifest
from ..core.errors import CheckpointError
from ..core.yaml_strict import YamlProblem, parse_yaml
from ..tracking.layout import CONFIG, ORIGINS
from ..tracking.redaction import redact_config
from .answer import Answer
from .metrics import parse
from .plain_files import read_text
from .runs import Run

_MOST_TEXT = 1_000_000
_REWARD = "reward.json"
_MOST_REWARD = 1e9


def config(run: Run) -> Answer:
    """The resolved config: its text, and each value by its dotted name with where it came from."""
    text = read_text(run.path / CONFIG, _MOST_TEXT)
    if text is None:
        return {"text": None, "values": {}, "problem": f"{CONFIG} is missing"}
    try:
        data = parse_yaml(text).data
    except YamlProblem as problem:
        return {"text": None, "values": {}, "problem": f"{CONFIG}, line {problem.line}: {problem}"}
    if not isinstance(data, dict):
        return {"text": None, "values": {}, "problem": f"{CONFIG} holds no config"}
    return {"values": _flat(redact_config(data)), "origins": _origins(run), "problem": None}


def checkpoints(run: Run) -> Answer:
    """Every checkpoint by what its manifest says; its files are not looked at."""
    return {"checkpoints": [_checkpoint(number, path) for number, path in reversed(run.checkpoints())]}


def verify(run: Run, number: int) -> Answer | None:
    """Compare every file of a checkpoint with what was written; None if there is no such checkpoint."""
    path = dict(run.checkpoints()).get(number)
    if path is None:
        return None
    begin = time.monotonic()
    try:
        Manifest.read(path).verify(path)
    except (CheckpointError, OSError) as error:
        return {"step": number, "good": False, "problem": str(error).replace(str(run.path), "."), "seconds": None}
    return {"step": number, "good": True, "problem": None, "seconds": round(time.monotonic() - begin, 3)}


def attainable(run: Run) -> float | None:
    """The highest reward that an episode can get, as the run's newest save says; None if nobody knows."""
    for path in (run.path / FINAL_MODEL, *(path for _, path in run.checkpoints()[:-4:-1])):
        said = parse((read_text(path / _REWARD, _MOST_TEXT) or "").encode())
        if said is not None:
            found = said.get("attainable")
            return float(found) if isinstance(found, int | float) and 0 < found < _MOST_REWARD else None
    return None


def _checkpoint(number: int, path: Path) -> Answer:
    try:
        manifest = Manifest.read(path)
    except (CheckpointError, OSError) as error:
        return {"step": number, "problem": str(error).replace(str(path), path.name), "age": age(path)}
    return {
        "step": number,
        "problem": None,
        "age": age(path),
        "bytes": manifest.size,
        "files": len(manifest.files),
        "created": manifest.created,
        "versions": manifest.versions,
    }


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every value by its dotted name; lists of plain values stay together."""
    if isinstance(value, dict) and value:
        inner = value.items()
        return dict(
            itertools.chain.from_iterable(_flat(v, f"{path}.{k}" if path else str(k)).items() for k, v in inner)
        )
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return dict(itertools.chain.from_iterable(_flat(item, f"{path}[{i}]").items() for i, item in enumerate(value)))
    return {path: value}


def _origins(run: Run) -> dict[str, str]:
    """Where each value was written, as far as the run noted it."""
    found = parse((read_text(run.path / ORIGINS, _MOST_TEXT) or "").encode("utf-8", "replace")) or {}
    return {key: str(value) for key, value in found.items()}


def age(path: Path) -> float | None:
    """Seconds since it was last changed; None if it is gone."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None
