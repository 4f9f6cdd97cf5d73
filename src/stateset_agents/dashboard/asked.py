"""What a request asks for, as numbers: what is none is refused with 400 and what was expected."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request

_LARGEST = 2**53
"""Up to here a browser counts exactly."""


def whole(request: Request, name: str, default: int | None = None, *, least: int = -_LARGEST) -> int:
    """A whole number.

    Args:
        request: with a query.
        name: of the parameter.
        default: where it is not given; None if it must be.
        least: the smallest that makes sense.

    Raises:
        HTTPException: it is none, or missing.
    """
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        found = int(text or "", 10) if len(text or "") < 20 else None
    except ValueError:
        found = None
    if found is None or not least <= found <= _LARGEST:
        raise HTTPException(400, f"{name} is a whole number" + (f", {least} or more" if least >= 0 else ""))
    return found


def optional_whole(request: Request, name: str) -> int | None:
    """A whole number, or None where it is left out or empty.

    Raises:
        HTTPException: it is something else.
    """
    return whole(request, name) if request.query_params.get(name) else None


def optional_number(request: Request, name: str) -> float | None:
    """A number, or None where it is left out or empty.

    Raises:
        HTTPException: it is something else, or not finite.
    """
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise HTTPException(400, f"{name} is a number")
    return found
