"""What the code imports is what the project declares."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
OWN = {"stateset_agents", "grpo_agent_framework"}
NAMES = {"docstring_parser": "docstring-parser", "yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}
NAMES |= {"prometheus_client": "prometheus-client", "psycopg_pool": "psycopg"}  # the latter as its extra `pool`


def imported_by(file: Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            tops.add(node.module.partition(".")[0])
    return tops - OWN - set(sys.stdlib_module_names)


def distributions(requirements: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower() for requirement in requirements}


def test_every_import_of_the_package_is_declared_and_every_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    imported = {NAMES.get(name, name) for file in (ROOT / "src").rglob("*.py") for name in imported_by(file)}
    core = distributions(project["dependencies"])
    optional = distributions([need for name, needs in extras.items() if name != "dev" for need in needs])
    assert imported - core - optional == set()
    # transformers imports these where it needs them: gguf for the embedded model's file, jinja2 for chat templates.
    assert core - imported <= {"gguf", "jinja2"}


def test_every_direct_dependency_is_pinned_by_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = distributions([line for line in lines if "==" in line])
    assert distributions([*project["dependencies"], *project["optional-dependencies"]["dev"]]) <= pinned
    local = [line for line in lines if "+" in line.partition("#")[0]]
    assert not local, "a local version ties the file to one machine"


def test_every_extra_that_a_message_recommends_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    recommended = {
        name
        for file in (ROOT / "src").rglob("*.py")
        for names in re.findall(r'extra="(\w+)"|grpo-agent-framework\[(\w+)\]', file.read_text())
        for name in names
        if name not in {"", "allow", "forbid"}  # pydantic has an argument of that name
    }
    assert "wandb" in recommended
    assert recommended <= set(extras)
