"""Write the tables of docs/configuration.md: `python scripts/make_configuration_page.py`.

Invariant: what a table says is what the config code does. Each stands between `<!-- begin NAME -->` and
`<!-- end NAME -->` and is made from the schema, the profiles and the recipes alone; the words around the tables are the
page's own. `--check` says whether the page is up to date, and a key without a meaning is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from made_page import written
from pydantic import BaseModel

from stateset_agents.config import (
    PROFILES,
    AgentSection,
    ConfigFile,
    EnvironmentSection,
    LoggingSection,
    LoraSettings,
    RewardSpec,
    TensorboardSection,
    TrainingConfig,
    WandbSection,
)
from stateset_agents.config.alerts import AlertRule, AlertsSection
from stateset_agents.config.algorithm_settings import AlgorithmSettings
from stateset_agents.config.algorithms import RECIPES
from stateset_agents.config.environ import HERE, OTHER_ROOMS
from stateset_agents.config.profiles import COMMON
from stateset_agents.config.schema import MlflowSection, ToolLimitsSection, ToolSpec, TrackerSpec, TrackioSection
from stateset_agents.core.dotted import import_dotted
from stateset_agents.core.reward import KINDS
from stateset_agents.core.rewards.kinds import PACKAGE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_BOUNDS = {"ge": "≥", "gt": "> ", "le": "≤", "lt": "< "}
_BY_PROFILE = frozenset(vars(PROFILES["balanced"])) - {"name", "purpose", "lora_learning_rate"}


def tables() -> dict[str, str]:
    """Every table of the page, by name."""
    sections: dict[str, type[BaseModel]] = {
        "file": ConfigFile,
        "agent": AgentSection,
        "tools": ToolSpec,
        "tool-limits": ToolLimitsSection,
        "environment": EnvironmentSection,
        "rewards": RewardSpec,
        "lora": LoraSettings,
        "logging": LoggingSection,
        "wandb": WandbSection,
        "tensorboard": TensorboardSection,
        "trackio": TrackioSection,
        "mlflow": MlflowSection,
        "trackers": TrackerSpec,
        "logging-alerts": AlertsSection,
        "alerts": AlertRule,
    }
    return {
        **{name: _section(section) for name, section in sections.items()},
        "training": _training(
            [key for key in TrainingConfig.model_fields if key not in AlgorithmSettings.model_fields]
        ),
        "algorithm-settings": _training(AlgorithmSettings.model_fields),
        "profiles": _profiles(),
        "algorithms": _algorithms(),
        "reward-types": _rewards(),
        "variables": _table(("variable", "meaning"), ((f"`{n}`", text) for n, text in {**HERE, **OTHER_ROOMS}.items())),
    }


def _section(section: type[BaseModel]) -> str:
    properties, required = _properties(section)
    rows = []
    for key, schema in properties.items():
        default = "required" if key in required else _shown(schema.get("default"))
        rows.append((f"`{key}`", _kind(schema), default, _meaning(section, key, schema)))
    return _table(("key", "values", "default", "meaning"), rows)


def _training(keys: Iterable[str]) -> str:
    properties, _ = _properties(TrainingConfig)
    rows = []
    for key in keys:
        schema = properties[key]
        default = "`balanced`" if key == "profile" else "by profile" if key in _BY_PROFILE else _shown(COMMON[key])
        rows.append((f"`{key}`", _kind(schema), default, _meaning(TrainingConfig, key, schema)))
    return _table(("key", "values", "default", "meaning"), rows)


def _profiles() -> str:
    keys = [key for key in vars(PROFILES["balanced"]) if key not in ("name", "purpose")]
    shown = {"lora_learning_rate": "`learning_rate` with `lora`"}
    rows = [(shown.get(key, f"`{key}`"), *(_shown(vars(one)[key]) for one in PROFILES.values())) for key in keys]
    purposes = ("purpose", *(one.purpose for one in PROFILES.values()))
    return _table(("", *(f"`{name}`" for name in PROFILES)), [purposes, *rows])


def _algorithms() -> str:
    rows = []
    for name, recipe in RECIPES.items():
        fixed = ", ".join(f"`{key}: {_plain(value)}`" for key, (value, _) in recipe.fixed.items())
        own = ", ".join(f"`{key}: {_plain(value)}`" for key, value in recipe.defaults.items())
        rows.append((f"`{name}`", own or "none", fixed or "none"))
    return _table(("algorithm", "its own defaults", "fixed"), rows)


def _rewards() -> str:
    rows = []
    for name, kind in KINDS.items():
        looks_at = _first_line(import_dotted(f"{PACKAGE}.{kind.address}")) if kind.address else "a reward of your own"
        keys = [
            f"`{key}`{' (required)' if option.needed else ''}: {option.meaning}" for key, option in kind.options.items()
        ]
        rows.append((f"`{name}`", looks_at, "; ".join(keys) or "none"))
    return _table(("type", "what it looks at", "its own keys"), rows)


def _properties(section: type[BaseModel]) -> tuple[Mapping[str, Any], Iterable[str]]:
    whole = section.model_json_schema(by_alias=True)
    return whole["properties"], whole.get("required", ())


def _meaning(section: type[BaseModel], key: str, schema: Mapping[str, Any]) -> str:
    if not schema.get("description"):
        raise ValueError(f"{section.__name__}.{key} has no description: say in the schema what it means")
    text: str = schema["description"]
    return text


def _kind(schema: Mapping[str, Any]) -> str:
    """The values that a key takes: "whole number ≥ 1, or null"."""
    if "anyOf" in schema:
        return ", or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "null":
        return "null"
    if "$ref" in schema:
        return "a mapping"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        items = schema["items"]
        return "list of texts" if items.get("type") == "string" else "list of mappings"
    if schema["type"] == "object":
        return "a mapping of texts"
    bounds = [f"{sign}{_plain(schema[name])}" for name, sign in _BOUNDS.items() if name in schema]
    return " ".join([_KINDS[schema["type"]], " and ".join(bounds).replace("≥", "≥ ").replace("≤", "≤ ")]).strip()


def _shown(value: object) -> str:
    return "the section's own" if isinstance(value, dict) and value else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    """As YAML has it, large and small numbers with an exponent."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) or (isinstance(value, int) and value >= 10**6):
        return f"{value:.4g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    return '""' if value == "" else str(value)


def _first_line(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def filled(page: str) -> str:
    """The page with its tables as they should be.

    Raises:
        ValueError: a table has no place on the page, or a place no table.
    """
    made = tables()
    places = re.findall(r"^<!-- begin (\S+) -->$", page, flags=re.MULTILINE)
    if sorted(places) != sorted(made):
        raise ValueError(f"the page has places for {sorted(places)}, and the tables are {sorted(made)}")
    for name, table in made.items():
        between = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", flags=re.DOTALL)
        page = between.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)
    return page


def main() -> int:
    """Write the page, or with `--check` compare it; 0 when it is (or was) up to date."""
    return written(PAGE, filled(PAGE.read_text(encoding="utf-8")), __doc__)


if __name__ == "__main__":
    sys.exit(main())
