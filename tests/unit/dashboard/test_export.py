"""The page as a folder of files."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dashboard_site import group, make_run
from stateset_agents.cli.dashboard import app
from stateset_agents.core.errors import ConfigError, RunFolderError
from stateset_agents.dashboard.export import bundle, write_export
from stateset_agents.dashboard.page_files import STATIC, page_files
from stateset_agents.tracking.run_folder import RunFolder

ROOT = Path(__file__).parents[3]


def test_the_vendored_library_is_what_its_note_says():
    vendor = STATIC / "vendor" / "uplot-1.6.32"
    sums = dict(
        reversed(pair) for pair in re.findall(r"^ +([0-9a-f]{64})  (\S+)$", (vendor / "ORIGIN.md").read_text(), re.M)
    )
    assert set(sums) == {"uPlot.iife.min.js", "uPlot.min.css"}
    for name, expected in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == expected
    assert "MIT" in (vendor / "LICENSE").read_text()


def test_the_page_never_parses_markup_and_asks_nobody_else():
    own = {name: path.read_text() for name, path in page_files().items() if not name.startswith("vendor/")}
    assert len(own) > 10
    for name, text in own.items():
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            " style=",
        ):
            assert forbidden not in text, (name, forbidden)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=", own["index.html"])


def test_modules_become_one_script_in_the_order_in_which_they_need_each_other():
    sources = {
        "first.js": 'import { twice } from "./second.js";\nconst here = 1;\nuse(twice(here));\n',
        "second.js": 'import { here } from "./third.js";\nexport async function wait() {}\n'
        "export function twice(x) { return here * x; }\n",
        "third.js": "export const here = 2;\n",
    }
    text = bundle(sources, "first.js")
    assert [text.index(f'MODULES["{name}.js"] =') for name in ("third", "second", "first")] == sorted(
        text.index(f'MODULES["{name}.js"] =') for name in ("first", "second", "third")
    )
    assert "import" not in text
    assert "export" not in text
    assert "return { wait, twice };" in text


def test_every_import_of_the_page_is_one_that_the_bundle_understands():
    for name, path in page_files().items():
        if name.endswith(".js") and "/" not in name:
            text = path.read_text()
            understood = re.findall(r'^import \{[^}]*\} from "\./([\w.-]+)";$', text, re.M)
            assert len(understood) == len(re.findall(r"^import\b", text, re.M)), name
            assert set(understood) <= set(page_files())


def test_an_export_holds_curves_groups_and_config(tmp_path, one_run):
    target = tmp_path / "page"
    assert write_export(one_run.parent, target) == f"The page is {target / 'index.html'}; it opens from disk."
    data = json.loads((target / "data.js").read_text().removeprefix("globalThis.GRPO_EXPORT = ").removesuffix(";\n"))
    run = data["answers"]["one"]
    assert run["series"]["step"] == list(range(1, 21))
    assert run["overview"]["learning"]["verdict"] == "yes"
    assert len(run["groups"]["groups"]) == len(run["files"]) == 40
    assert (target / run["files"]["3/train/0"]).read_text().startswith('GRPO_RECEIVE("groups/0-4.js", {"step": 3,')
    html = (target / "index.html").read_text()
    assert 'type="module"' not in html
    assert "Content-Security-Policy" in html
    assert (target / "vendor" / "uplot-1.6.32" / "LICENSE").is_file()


def test_an_export_has_a_bounded_number_of_groups_and_says_how_many_it_left_out(tmp_path, one_run, monkeypatch):
    monkeypatch.setattr("stateset_agents.dashboard.export.MOST_GROUPS", 5)
    write_export(one_run, tmp_path / "page")
    data = json.loads(
        (tmp_path / "page" / "data.js").read_text().removeprefix("globalThis.GRPO_EXPORT = ").removesuffix(";\n")
    )
    groups = data["answers"]["one"]["groups"]
    assert [one["step"] for one in groups["groups"]] == [1, 6, 11, 15, 20]
    assert groups["left_out"] == 35
    assert len(list((tmp_path / "page" / "groups").iterdir())) == 5


def test_nothing_that_was_said_is_markup_in_an_export(tmp_path):
    evil = "</script><script>alert(1)</script><!-- \u2028 \ud800"
    with RunFolder.create(tmp_path / "run", config_yaml="a: '</script>'\n") as folder:
        folder.log_trajectories(1, [group(evil, [0.0, 1.0], says=evil)])
        folder.log_metrics({"step": 1, "reward_mean": 0.5, "</script>": 1.0})
        folder.set_status("failed", evil)
    write_export(tmp_path / "run", tmp_path / "page")
    for file in (tmp_path / "page" / "data.js", tmp_path / "page" / "groups" / "0-0.js"):
        assert "<" not in file.read_text(encoding="utf-8")


def test_an_export_overwrites_nothing(tmp_path, one_run):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="holds something already: name a folder that is new or empty"):
        write_export(one_run, tmp_path / "page")
    with pytest.raises(RunFolderError, match="holds no run"):
        write_export(tmp_path / "page", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_runs_are_found_in_folders_and_links_are_not_followed(tmp_path, one_run, site):
    make_run(tmp_path / "runs" / "deep" / "er" / "two", 1)
    make_run(tmp_path / "elsewhere" / "three", 1)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / ".hidden").mkdir()
    assert [run["name"] for run in site(tmp_path / "runs").ask("runs")["runs"]] == ["deep/er/two", "one"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["missing"], 3, "run folder error: missing does not exist, so there is no run to show"),
        (["file"], 3, "run folder error: file is a file, not a folder, so there is no run to show"),
        (["."], 3, "holds no run: neither it nor a folder in it has a status.json or metrics.jsonl"),
        (["run", "--host", "::"], 2, "config error: --host is ::, where others than this machine can look"),
        (["run", "--host", "192.168.1.5"], 2, "or say --insecure-no-auth"),
        (["run", "--host", "no such host", "--insecure-no-auth"], 2, "is no address of this machine"),
        (["run", "--port", "70000"], 2, "Invalid value for '--port'"),
        (["run", "--export", "run"], 2, "holds something already"),
        ([], 2, "Missing argument 'RUN_FOLDER'"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(tmp_path, monkeypatch, arguments, code, complaint):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "file").write_text("x")
    if "run" in arguments:
        make_run(tmp_path / "run", 1)
    ended = CliRunner().invoke(app, arguments)
    assert (ended.exit_code, complaint in ended.stderr) == (code, True), ended.stderr


def test_a_port_that_is_taken_is_named(tmp_path, one_run):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "stateset_agents.cli.dashboard", str(one_run), "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"port {port} is taken: choose another one with --port" in ended.stderr


def test_help_loads_neither_a_server_nor_torch():
    code = """
import sys
from stateset_agents.cli.dashboard import main
sys.argv[1:] = ["--help"]
try:
    main()
finally:
    print(sorted({"torch", "starlette", "uvicorn", "numpy"} & set(sys.modules)), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == "[]\n"
    assert "RUN_FOLDER" in ended.stdout


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_page(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    kept = {
        f"stateset_agents/dashboard/static/{path.relative_to(STATIC).as_posix()}"
        for path in STATIC.rglob("*")
        if path.is_file()
    }
    assert kept <= names
