import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stateset_agents

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "transformers", "peft", "tokenizers", "pydantic", "numpy", "typer", "rich", "fastapi"}


def loaded_by(code: str) -> set[str]:
    report = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", report], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["stateset_agents", "grpo_agent_framework"])
def test_importing_the_package_loads_nothing_heavy(name):
    assert loaded_by(f"import {name}") & HEAVY == set()


def test_the_words_of_the_core_load_no_model_library():
    code = "from stateset_agents import ConversationEnvironment, HelpfulnessReward, ConversationTurn"
    assert loaded_by(code) & {"torch", "transformers", "peft"} == set()


@pytest.mark.parametrize("name", stateset_agents.__all__)
def test_every_public_name_is_where_the_package_says(name):
    assert getattr(stateset_agents, name) is not None


@pytest.mark.parametrize("name", ["", ".training", ".rewards", ".examples"])
def test_what_type_checkers_see_is_what_is_fetched(name):
    package = importlib.import_module(f"stateset_agents{name}")
    tree = ast.parse(Path(package.__file__).read_text())
    for_checkers = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_checkers == package._HOMES
    assert sorted([*package._HOMES, *([] if name else ["__version__"])]) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match=re.escape("module 'stateset_agents' has no attribute 'Agnet'")):
        stateset_agents.Agnet  # noqa: B018


def test_dir_shows_names_that_were_not_fetched_yet():
    result = subprocess.run(
        [sys.executable, "-c", "import stateset_agents; print(*dir(stateset_agents))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(stateset_agents.__all__) <= set(result.stdout.split())


def test_train_stays_the_function_after_its_module_was_imported():
    module = importlib.import_module("stateset_agents.training.train")
    assert stateset_agents.train is module.train
    from stateset_agents.training.train import train

    assert train is stateset_agents.train


def test_the_installed_version_is_the_packages_own():
    from importlib.metadata import version

    assert version("grpo-agent-framework") == stateset_agents.__version__


def test_both_packages_are_marked_as_typed():
    for name in ("stateset_agents", "grpo_agent_framework"):
        assert (ROOT / "src" / name / "py.typed").is_file()
