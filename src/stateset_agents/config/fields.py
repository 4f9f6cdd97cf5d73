"""The kinds of values that config keys hold.

Invariant: a number is a number. `true` is not 1, `.nan` and `.inf` are refused, and the text "5e-6" is read as a number
where a number is wanted, because that is what YAML 1.1 makes of the documents' own example.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")


class Section(BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, hide_input_in_errors=True
    )

    @classmethod
    def narrowed(cls, raw: object) -> type[Section]:
        """The section that `raw` is checked by, where that depends on what it says."""
        return cls

    @classmethod
    def owner(cls, key: str) -> str | None:
        """What a key that this section refuses is for, where a section beside it or the command line takes it."""
        return "it is --output-dir on the command line (in Python: output_dir=)" if key == "output_dir" else None


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("want a number")
    return value


def _dotted(value: Any) -> Any:
    if isinstance(value, str) and not _DOTTED.fullmatch(value):
        raise ValueError('want a dotted Python name such as "my_module.MyClass"')
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("want text that is not blank")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Positive = Annotated[Whole, Field(ge=1)]
NotNegative = Annotated[Whole, Field(ge=0)]
Real = Annotated[float, BeforeValidator(_number)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]
Dotted = Annotated[str, BeforeValidator(_dotted)]

ProfileName = Literal["conservative", "balanced", "aggressive", "experimental"]


def read_switch(value: Any) -> bool | None:
    """A yes-or-no text of an environment variable as bool; None where it is neither."""
    lowered = str(value).strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    return None
