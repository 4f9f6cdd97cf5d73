"""The page as a folder of files that opens from disk, for a report, an issue or a colleague.

Invariant: the folder needs no server and asks for nothing outside itself. What a run says goes into it as data only,
in script files whose text cannot be taken for markup. It holds all curves, and of each run a bounded number of groups,
evenly chosen; the page says how many were left out.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..tracking.disk import explained
from ..tracking.status import timestamp
from . import answers, curves, lineage
from .answer import to_json
from .conversations import Wanted
from .page_files import page_files
from .runs import Run, RunLibrary

MOST_GROUPS = 400
"""Of each run."""
_POINTS = 2000
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self' file:; "
    "style-src 'self' file:; img-src 'self' file: data:; base-uri 'none'; form-action 'none'\">"
)
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w.-]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)


def write_export(folder: Path, target: Path) -> str:
    """Write the page about the runs of `folder` into a folder that is made for it.

    Returns:
        Where it is, in words.

    Raises:
        RunFolderError: there is no run, or the disk refuses.
        ConfigError: `target` holds something already.
    """
    library = RunLibrary(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"--export is {target}, which holds something already: name a folder that is new or empty")
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / "groups").mkdir()
        files = page_files()
        for name, path in files.items():
            if not name.endswith(".js") or name.startswith("vendor/"):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)
        for path in files["vendor/uplot-1.6.32/uPlot.iife.min.js"].parent.glob("[A-Z]*"):
            shutil.copyfile(path, target / path.relative_to(files["index.html"].parent))
        html = files["index.html"].read_text(encoding="utf-8")
        html = html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{_POLICY}')
        html = html.replace(
            '<script type="module" src="app.js"></script>',
            '<script defer src="data.js"></script>\n<script defer src="app.js"></script>',
        )
        (target / "index.html").write_text(html, encoding="utf-8")
        sources = {name: path.read_text(encoding="utf-8") for name, path in files.items() if "/" not in name}
        (target / "app.js").write_text(bundle(sources, "app.js"), encoding="utf-8")
        found = {run.name: _answers(run, place, target) for place, run in enumerate(library.runs())}
        data = {"at": timestamp().replace("T", " "), "runs": answers.runs(library), "answers": found}
        (target / "data.js").write_text(f"globalThis.GRPO_EXPORT = {_script(data)};\n", encoding="utf-8")
    return f"The page is {target / 'index.html'}; it opens from disk."


def bundle(sources: Mapping[str, str], first: str) -> str:
    """Modules as one classic script: a page that was opened from disk may not import.

    Each module is a function of its own that returns what it exports.

    Args:
        sources: text of each module by file name; imports are one line each and name files beside it.
        first: the module that imports the others.
    """
    parts: list[str] = []
    done: set[str] = set()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        text = sources[name]
        for _, needed in _IMPORT.findall(text):
            add(needed)
        exports = ", ".join(name for _, name in _EXPORT.findall(text))
        body = _IMPORT.sub(r'const \1 = MODULES["\2"];', text)
        body = _EXPORT.sub(r"\1 \2", body)
        parts.append(f'MODULES["{name}"] = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n')

    add(first)
    return '"use strict";\nconst MODULES = {};\n' + "\n".join(parts)


def _answers(run: Run, place: int, target: Path) -> dict[str, Any]:
    with run.lock:
        while not (run.metrics.update(60) and run.conversations.update(60)):
            pass
    keys = run.metrics.keys
    main = "reward_mean" if "reward_mean" in keys else "loss"
    names = [name for name, _ in run.conversations.groups(Wanted())]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(MOST_GROUPS, len(names))).round().astype(int))
    kept = [names[index] for index in chosen.tolist()] if names else []
    files = {}
    for number, name in enumerate(kept):
        file = f"groups/{place}-{number}.js"
        group = answers.group(run, name)
        (target / file).write_text(f"GRPO_RECEIVE({_script(file)}, {_script(group or {})});\n", encoding="utf-8")
        files["/".join(map(str, name))] = file
    listed: list[dict[str, Any]] = []
    page = answers.groups(run, Wanted())
    for start in range(0, len(names), answers.GROUPS_A_PAGE):
        listed += answers.groups(run, Wanted(), start=start)["groups"]
    page["groups"] = [one for one in listed if f"{one['step']}/{one['phase']}/{one['group']}" in files]
    page["left_out"] = len(names) - len(kept)
    return {
        "overview": answers.overview(run),
        "series": curves.series(run, [main, *(key for key in keys if key != main)], points=_POINTS),
        "groups": page,
        "files": files,
        "config": lineage.config(run),
        "checkpoints": lineage.checkpoints(run),
    }


def _script(value: Any) -> str:
    """A value as JavaScript that is no markup wherever it ends up."""
    return to_json({"": value}).decode("utf-8").strip()[len('{"": ') : -1].replace("<", "\\u003c")
