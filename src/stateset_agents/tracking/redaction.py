"""Keeping secrets out of a config that a run writes or sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.secrets import MASK, Redactor, is_secret


def redact_config(config: Mapping[str, Any], redactor: Redactor | None = None) -> dict[str, Any]:
    """A copy of a nested config in which secret keys have `***` as their value and texts are redacted."""
    clean = redactor or Redactor.from_environment()

    def walk(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [walk(item) for item in value]
        if isinstance(value, Mapping):
            return redact_config(value, clean)
        return clean(value) if isinstance(value, str) else value

    return {key: MASK if value and is_secret(key) else walk(value) for key, value in config.items()}
