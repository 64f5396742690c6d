"""Butcher tableaux of Runge–Kutta methods, explicit or implicit, and what is checked before one is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from samplers.tableaux import trees
from samplers.tableaux.expressions import number

MOST_STAGES = 40
_ROWS = 1e-13  # how far a row of coefficients of size 1 may miss its sum


@dataclass(frozen=True, eq=False)
class Tableau:
    """Y_i = y + h·Σ_j a_ij f(Y_j) at time c_i of the step, y' = y + h·Σ_i b_i f(Y_i).

    a (s, s), b (s,), c (s,) float64; `order` as declared, which `check` holds it to.
    """

    name: str
    order: int
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    source: str
    note: str = ""

    @property
    def stages(self) -> int:
        return len(self.b)

    @property
    def is_explicit(self) -> bool:
        return not np.triu(self.a).any()


def read(entry: Mapping[str, Any], name: str) -> Tableau:
    """A tableau from its entry of a data file, coefficients as they are printed: {order, source, a, b, c}.

    Rows of `a` may leave out the zeros at their end, `c` is the row sums where it is not given. ValueError in one line
    for what is no tableau; whether it keeps what it declares is for `check`.
    """
    check_head(entry, name)
    order, rows, b = (entry[key] for key in ("order", "a", "b"))
    size = len(b)
    if not all(isinstance(row, list) and len(row) <= size for row in rows) or len(rows) != size:
        raise ValueError(f"tableau {name}: a must have {size} rows, as b has, of at most {size} coefficients each")
    a = np.zeros((size, size))
    for i, row in enumerate(rows):
        a[i, : len(row)] = [_number(text, name) for text in row]
    given = entry.get("c")
    if given is not None and not (isinstance(given, list) and len(given) == size):
        raise ValueError(f"tableau {name}: c must have {size} numbers, as b has")
    c = a.sum(axis=1) if given is None else np.array([_number(text, name) for text in given])
    for end in (0.0, 1.0):  # a sum of fractions in float64 may miss the ends of the step by rounding
        c[np.abs(c - end) < _ROWS] = end
    weights = np.array([_number(text, name) for text in b])
    return Tableau(name, order, a, weights, c, str(entry.get("source", "")), str(entry.get("note", "")))


def check_head(entry: Mapping[str, Any], name: str) -> None:
    """The keys every tableau has, and their kinds."""
    known = {"name", "order", "source", "note", "a", "b", "c"}
    if not isinstance(entry, Mapping) or not {"order", "a", "b"} <= set(entry) <= known:
        raise ValueError(f"tableau {name} must have order, a, b and may have name, source, note, c")
    order, rows, b = (entry[key] for key in ("order", "a", "b"))
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= trees.HIGHEST:
        raise ValueError(f"tableau {name}: order={order!r} must be a whole number from 1 to {trees.HIGHEST}")
    if not (isinstance(rows, list) and isinstance(b, list) and 1 <= len(b) <= MOST_STAGES):
        raise ValueError(f"tableau {name}: a is a list of rows and b a list of 1 to {MOST_STAGES} weights")


def check(tableau: Tableau) -> Tableau:
    """The tableau, if its row sums are its nodes and it has the order it declares; else a ValueError that says which
    condition it misses, and by how much."""
    missed = np.abs(tableau.a.sum(axis=1) - tableau.c)
    allowed = _ROWS * np.maximum(1, np.abs(tableau.a).sum(axis=1))
    if (missed > allowed).any():
        i = int(np.argmax(missed - allowed))
        raise ValueError(
            f"tableau {tableau.name}: row {i + 1} of a adds up to {tableau.a[i].sum():.12g} and its node c is "
            f"{tableau.c[i]:.12g} ({missed[i]:.2g} apart): they must be equal; give fractions as text, such as '1/3'"
        )
    found = trees.order(tableau.a, tableau.b, tableau.order)
    if found < tableau.order:
        _, size, tree = trees.worst(tableau.a, tableau.b, found + 1)
        raise ValueError(
            f"tableau {tableau.name} declares order {tableau.order} and has order {found}: the condition of the tree "
            f"{trees.drawn(tree)} of {found + 1} nodes is missed by {size:.2g}; correct the coefficients, give them to "
            "16 digits or as fractions, or declare the order it has"
        )
    return tableau


def called(tableau: Tableau) -> Tableau:
    """The same explicit method with the fewest calls: equal rows share one, and a stage that nothing reads has none.

    A first-same-as-last stage that only an error estimate would read goes; its successor is the next step's first.
    """
    if not tableau.is_explicit:
        raise ValueError(f"tableau {tableau.name} is implicit: sampler=irk takes it")
    a, b, c = tableau.a, tableau.b.copy(), tableau.c
    first = [next(k for k in range(i + 1) if np.array_equal(a[k], a[i])) for i in range(len(b))]
    while any(first[i] != i for i in range(len(b))):
        i = next(i for i in reversed(range(len(b))) if first[i] != i)
        a, b = a.copy(), b.copy()
        a[:, first[i]] += a[:, i]
        b[first[i]] += b[i]
        keep = [k for k in range(len(b)) if k != i]
        a, b, c = a[np.ix_(keep, keep)], b[keep], c[keep]
        first = [next(k for k in range(j + 1) if np.array_equal(a[k], a[j])) for j in range(len(b))]
    while b[-1] == 0 or any(not a[:, k].any() and b[k] == 0 for k in range(1, len(b))):
        keep = [k for k in range(len(b)) if k == 0 or a[:, k].any() or b[k] != 0]
        a, b, c = a[np.ix_(keep, keep)], b[keep], c[keep]
    return replace(tableau, a=a, b=b, c=c)


def iterated(tableau: Tableau, sweeps: int, newest: bool) -> Tableau:
    """An implicit method solved by so many fixed-point sweeps from f(y): an explicit method of at most 1 + sweeps·s
    stages, of the order that its own conditions give.

    `newest`: a stage sees those that its sweep has done already (Gauss–Seidel), not all of the sweep before (Jacobi).
    """
    s = tableau.stages
    size = 1 + sweeps * s
    a, c = np.zeros((size, size)), np.zeros(size)
    before = [0] * s
    for sweep in range(sweeps):
        here = [1 + sweep * s + i for i in range(s)]
        for i in range(s):
            for j in range(s):
                a[here[i], here[j] if newest and j < i else before[j]] += tableau.a[i, j]
            c[here[i]] = tableau.c[i]
        before = here
    b = np.zeros(size)
    np.add.at(b, before, tableau.b)
    explicit = called(replace(tableau, a=a, b=b, c=c))
    return replace(explicit, order=trees.order(explicit.a, explicit.b, tableau.order))


def _number(text: Any, name: str) -> float:
    try:
        return float(number(text))
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"tableau {name}: {error}") from None
