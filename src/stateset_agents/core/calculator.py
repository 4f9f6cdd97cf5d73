"""A calculator for expressions that a model wrote.

Invariant: whatever the text says, the answer or a `ValueError` comes at once. The text is parsed and never run: only
numbers, + - * / // % **, parentheses and five functions have a meaning, and length, depth, exponents and digits have
limits that are checked before the work is done.

Numbers are exact fractions, so that 0.1 + 0.2 is 0.3.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

MAX_LENGTH = 300
"""Characters of an expression."""
MAX_BITS = 4096
"""Of a numerator or denominator: about 1,200 digits."""
SHOWN_DIGITS = 12
"""Significant digits of an answer that is no whole number."""

_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": lambda value, digits=0: Fraction(round(value, _small(digits))),
    "sqrt": lambda value: _root(value),
}


def calculator(expression: str) -> str:
    """Calculate the value of an arithmetic expression.

    Args:
        expression: for example "3 * (4.50 + 1)"; may use + - * / // % **, parentheses, abs, max, min, round, sqrt.
    """
    return _shown(_value(_parsed(expression)))


def _parsed(expression: str) -> ast.expr:
    text = expression.translate(_SIGNS).strip().removesuffix("=").strip()
    if not text or len(text) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(text)} characters; it must have 1 to {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "1or 2": what the text deserves is the error below
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is no arithmetic expression; write it like 3 * (4.50 + 1)") from None


def _value(node: ast.expr) -> Fraction:
    # Depth is bounded by the length of the text, which is less than what Python can nest.
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and math.isfinite(number):
            return _bounded(Fraction(str(number)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return Fraction(_UNARY[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            if b == 0 and isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)):
                raise ValueError("division by zero")
            return _bounded(Fraction(_BINARY[type(op)](a, b)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            values = [_value(argument) for argument in arguments]
            try:
                return _bounded(Fraction(_FUNCTIONS[name](*values)))
            except TypeError:
                raise ValueError(f"{name}() does not take {len(values)} numbers") from None
    known = "numbers, + - * / // % **, parentheses, " + ", ".join(sorted(_FUNCTIONS))
    raise ValueError(f"{ast.unparse(node)[:40]!r} has no meaning here; use {known}")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 0 and exponent < 0:
        raise ValueError("division by zero")
    if exponent.denominator != 1:
        if base < 0:
            raise ValueError("a negative number has no real power that is a fraction")
        return _approximate(lambda: float(base) ** float(exponent))
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and size * abs(exponent) > MAX_BITS * 2:
        raise ValueError("the number is too large")
    whole = int(exponent) % 2 if abs(base) == 1 else int(exponent)  # (-1) to any power costs nothing
    return _bounded(base**whole)


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise ValueError("a negative number has no real root")
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if Fraction(top, bottom) ** 2 == value:
        return Fraction(top, bottom)
    return _approximate(lambda: math.sqrt(value))


def _approximate(compute: Callable[[], float]) -> Fraction:
    try:
        return Fraction(compute())
    except (OverflowError, ValueError, ZeroDivisionError):
        raise ValueError("the number is too large") from None


def _small(digits: Fraction) -> int:
    if digits.denominator != 1 or abs(digits) > SHOWN_DIGITS:
        raise ValueError(f"round(x, digits): digits must be a whole number from -{SHOWN_DIGITS} to {SHOWN_DIGITS}")
    return int(digits)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("the number is too large")
    return value


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    try:
        return f"{float(value):.{SHOWN_DIGITS}g}"
    except OverflowError:
        return str(round(value))
