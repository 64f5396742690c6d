"""Coefficients as they are printed: "(3-sqrt(3))/6", and of exponential methods "phi1(1/2)/2", φ_1 at half of z = hL.

A small arithmetic, read by hand: a file from a stranger can compute numbers here and nothing else.
"""

from __future__ import annotations

import ast
import cmath
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

Number = Fraction | float | complex
Value = Callable[[Any], Any]  # a function of z, which a coefficient without φ ignores

_LONGEST = 2000  # characters
_DEEPEST = 60
_HIGHEST_POWER = 12
_SERIES = 40
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_FUNCTIONS = {"sqrt": math.sqrt, "cos": math.cos, "sin": math.sin}
PHI_TOP = 9
_GRAMMAR = f"numbers, + - * / ** ( ), sqrt, cos, sin, pi, z, phi0(c) to phi{PHI_TOP}(c)"


def phi(k: int, z: complex | float) -> complex | float:
    """φ_k(z): e^z for k = 0, (φ_{k−1}(z) − 1/(k−1)!)/z; its series where the recursion would cancel."""
    if k == 0:
        return cmath.exp(z) if isinstance(z, complex) else math.exp(z)
    if abs(z) < 3:
        term = total = 1 / math.factorial(k)
        for j in range(1, _SERIES):
            term = term * z / (k + j)
            total += term
        return total
    value = (cmath.exp(z) - 1) / z if isinstance(z, complex) else math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def number(text: str | int | float) -> Fraction | float:
    """A coefficient that does not depend on z: a fraction where it is rational, else a float.

    ValueError in one line for what is no number of the grammar.

    >>> number("1/3"), number("(3-sqrt(3))/6")
    (Fraction(1, 3), 0.21132486540518713)
    """
    value = expression(text)
    try:
        found = value(None)
    except TypeError:
        raise ValueError(f"{_short(text)} depends on z = hL: only an exponential tableau may use phi") from None
    return found


@lru_cache(maxsize=4096)
def expression(text: str | int | float) -> Value:
    """The coefficient as a function of z = hL, real or complex.

    >>> expression("phi1(1/2)/2")(0.0)  # φ_1(0) = 1
    0.5
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{_short(text)} is no coefficient: give a number or text such as '1/3'")
    if isinstance(text, int | float):
        if not math.isfinite(text):
            raise ValueError(f"{text!r} is no coefficient: it is not finite")
        value = Fraction(text) if isinstance(text, int) else text
        return lambda z: value
    if len(text) > _LONGEST or text.count("(") > _DEEPEST:
        raise ValueError(
            f"{_short(text)} is {len(text)} characters long: a coefficient has at most {_LONGEST}, and {_DEEPEST} "
            "parentheses"
        )
    try:
        return _read(ast.parse(text.strip(), mode="eval").body, _DEEPEST)
    except (SyntaxError, RecursionError, MemoryError, ArithmeticError, ValueError) as error:
        why = str(error) if isinstance(error, _Refused | ArithmeticError) else "it cannot be read"
        raise ValueError(f"{_short(text)} is no coefficient: {why}; valid: {_GRAMMAR}") from None


class _Refused(ValueError):
    """Raised for what the grammar does not have."""


def _read(node: ast.expr, deep: int) -> Value:
    if not deep:
        raise _Refused("it is nested too deeply")
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        if not math.isfinite(node.value):
            raise _Refused("it is not finite")
        value = Fraction(node.value) if isinstance(node.value, int) else node.value
        return lambda z: value
    if isinstance(node, ast.Name) and node.id in ("pi", "z"):
        return (lambda z: math.pi) if node.id == "pi" else (lambda z: 1 * z)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inside = _read(node.operand, deep - 1)
        return (lambda z: -inside(z)) if isinstance(node.op, ast.USub) else inside
    if isinstance(node, ast.BinOp):
        return _binary(node, deep)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        return _call(node.func.id, _read(node.args[0], deep - 1))
    raise _Refused(f"{_short(ast.unparse(node))} is not of the grammar")


def _binary(node: ast.BinOp, deep: int) -> Value:
    left = _read(node.left, deep - 1)
    if isinstance(node.op, ast.Pow):
        power = node.right.value if isinstance(node.right, ast.Constant) else None
        if type(power) is not int or not 0 <= power <= _HIGHEST_POWER:
            raise _Refused(f"a power is a whole number from 0 to {_HIGHEST_POWER}")
        return lambda z: left(z) ** power
    if type(node.op) not in _OPERATORS:
        raise _Refused(f"{_short(ast.unparse(node))} is not of the grammar")
    right, apply = _read(node.right, deep - 1), _OPERATORS[type(node.op)]
    if isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant) and not node.right.value:
        raise _Refused("it divides by 0")
    return lambda z: apply(left(z), right(z))


def _call(name: str, inside: Value) -> Value:
    is_phi = name.startswith("phi") and name[3:] in {str(k) for k in range(PHI_TOP + 1)}
    if name not in _FUNCTIONS and not is_phi:
        raise _Refused(f"the function {name!r} is not of the grammar")
    try:
        argument = float(inside(None))
    except TypeError:
        raise _Refused(f"the argument of {name} must be a number, without z or phi") from None
    if is_phi:
        k = int(name[3:])
        return lambda z: phi(k, argument * z)
    value = _FUNCTIONS[name](argument)
    return lambda z: value


def _short(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "…'"
