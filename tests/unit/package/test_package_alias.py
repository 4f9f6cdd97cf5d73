import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import stateset_agents


def run_python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def in_fresh_interpreter(code: str) -> str:
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_both_names_give_the_same_package():
    assert importlib.import_module("grpo_agent_framework") is stateset_agents


def test_a_submodule_is_one_object_when_the_alias_is_imported_first():
    in_fresh_interpreter(
        "import grpo_agent_framework.core.trajectory as alias\n"
        "import stateset_agents.core.trajectory as real\n"
        "assert alias is real and alias.ConversationTurn is real.ConversationTurn"
    )


def test_a_submodule_is_one_object_when_the_alias_is_imported_last():
    in_fresh_interpreter(
        "import stateset_agents.core.trajectory as real\n"
        "import grpo_agent_framework.core.trajectory as alias\n"
        "assert alias is real and alias.ConversationTurn is real.ConversationTurn"
    )


def test_every_submodule_is_one_object_and_keeps_its_own_spec():
    names = [module.name for module in pkgutil.iter_modules(stateset_agents.__path__) if module.ispkg]
    assert "core" in names
    for name in [*names, "core.errors", "core.trajectory", "engines.base"]:
        alias = importlib.import_module(f"grpo_agent_framework.{name}")
        assert alias is importlib.import_module(f"stateset_agents.{name}")
        assert alias.__spec__.name == f"stateset_agents.{name}"
        assert alias.__name__ == f"stateset_agents.{name}"


def test_a_module_that_came_later_needs_no_list(tmp_path, monkeypatch):
    (tmp_path / "came_later.py").write_text("class Thing: ...\n")
    monkeypatch.setattr(stateset_agents, "__path__", [*stateset_agents.__path__, str(tmp_path)])
    alias = importlib.import_module("grpo_agent_framework.came_later")
    assert alias.Thing is importlib.import_module("stateset_agents.came_later").Thing


def test_public_names_can_be_imported_from_the_alias():
    from grpo_agent_framework import ConversationTurn
    from grpo_agent_framework.core.trajectory import ConversationTurn as FromItsHome

    assert ConversationTurn is FromItsHome is stateset_agents.ConversationTurn


def test_reloading_through_the_alias_reloads_the_real_module():
    in_fresh_interpreter(
        "import importlib, sys\n"
        "import grpo_agent_framework.core.outcome as alias\n"
        "before = alias.Outcome\n"
        "assert importlib.reload(alias) is sys.modules['stateset_agents.core.outcome']\n"
        "assert alias.Outcome is not before\n"
        "import grpo_agent_framework\n"
        "assert importlib.reload(grpo_agent_framework) is sys.modules['stateset_agents']\n"
        "from grpo_agent_framework.core.outcome import Outcome\n"
        "assert Outcome is alias.Outcome"
    )


def test_dir_of_the_alias_shows_the_public_names():
    assert set(stateset_agents.__all__) <= set(dir(importlib.import_module("grpo_agent_framework")))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("grpo_agent_framework.nope", "grpo_agent_framework.nope"),
        ("grpo_agent_framework.core.nope", "grpo_agent_framework.core.nope"),
        ("grpo_agent_framework.nope.deeper", "grpo_agent_framework.nope"),
        ("grpo_agent_framework.core.errors.nope", "grpo_agent_framework.core.errors.nope"),
    ],
)
def test_a_missing_submodule_is_named_as_the_caller_wrote_it(name, missing):
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert caught.value.name == missing
    assert f"'{missing}'" in str(caught.value)


def test_a_module_runs_as_a_program_under_the_alias(tmp_path):
    package = tmp_path / "more"
    package.mkdir()
    (package / "program.py").write_text(
        "from .core.outcome import Outcome\n"
        "import stateset_agents.core.outcome as real\n"
        "print(__name__, __package__, Outcome is real.Outcome, (lambda: 0).__code__.co_filename)\n"
        "raise SystemExit(5)\n"
    )
    start = (
        "import runpy, stateset_agents, grpo_agent_framework\n"
        f"stateset_agents.__path__.append({str(package)!r})\n"
        "runpy.run_module('grpo_agent_framework.program', run_name='__main__', alter_sys=True)"
    )
    result = run_python("-c", start)
    expected = f"__main__ grpo_agent_framework True {package / 'program.py'}\n"
    assert (result.stdout, result.stderr, result.returncode) == (expected, "", 5)


def test_python_m_takes_a_module_under_the_alias(tmp_path):
    result = run_python("-m", "grpo_agent_framework.core.outcome", cwd=tmp_path)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_a_missing_program_under_the_alias_is_named(tmp_path):
    result = run_python("-m", "grpo_agent_framework.examples_that_do_not_exist", cwd=tmp_path)
    assert result.returncode == 1
    assert "No module named grpo_agent_framework.examples_that_do_not_exist" in result.stderr


def test_type_checkers_find_the_documented_modules_of_the_alias_in_stubs():
    import grpo_agent_framework

    stubs = Path(grpo_agent_framework.__file__).parents[1] / "grpo_agent_framework"
    found = {stub.relative_to(stubs).with_suffix("").as_posix() for stub in stubs.rglob("*.pyi")}
    assert {"core/agent", "core/environment", "core/reward", "core/trajectory", "training/train"} <= found
    for name in found - {"__init__"}:
        module = name.removesuffix("/__init__").replace("/", ".")
        assert (stubs / f"{name}.pyi").read_text() == f"from stateset_agents.{module} import *\n"
        assert importlib.import_module(f"grpo_agent_framework.{module}")
