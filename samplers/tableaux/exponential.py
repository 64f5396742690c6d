"""Tableaux of explicit exponential Runge–Kutta methods, with coefficients that are functions of z = hL.

For y' = Ly + N(y): Y_i = e^{c_i z} y + h·Σ_j a_ij(z) N(Y_j), y' = e^z y + h·Σ_i b_i(z) N(Y_i).
Hochbruck & Ostermann 2010, Acta Numerica 19. Their classical order is checked by two-coloured trees
(samplers/tableaux/coloured.py); `stiff_order` is what is left of it where z is not small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from samplers.tableaux import coloured
from samplers.tableaux.butcher import Tableau, called, check_head
from samplers.tableaux.expressions import expression, number, phi

HIGHEST = 6  # classical order that is asked for: 1500 two-coloured trees
_ROWS = 1e-12
_Z = (-0.2, -0.7, -1.9, -4.3)  # where identities in z are put to the test; φ is analytic
_STIFF = 1e-10


@dataclass(frozen=True, eq=False)
class ExponentialTableau:
    """`coefficients(z) -> (a, b)`, a (s, s) strictly lower triangular and b (s,), for real and complex z; c (s,)."""

    name: str
    order: int
    coefficients: Callable[[complex | float], tuple[np.ndarray, np.ndarray]]
    c: np.ndarray
    source: str
    note: str = ""

    @property
    def stages(self) -> int:
        return len(self.c)

    def keeps_constants(self) -> bool:
        """Whether a constant N is integrated exactly: Σ_j a_ij(z) = c_i φ_1(c_i z), Σ b_i(z) = φ_1(z).

        Lawson's methods do not.
        """
        return all(_row_sums_missed(self, z) < _ROWS for z in _Z)


def read(entry: Mapping[str, Any], name: str) -> ExponentialTableau:
    """A tableau from its entry of a data file: {order, source, c, a, b}, coefficients as text in φ_k(c·z).

    ValueError in one line for what is no explicit exponential tableau.
    """
    check_head(entry, name)
    rows, b, nodes = entry["a"], entry["b"], entry.get("c")
    if not (isinstance(nodes, list) and len(nodes) == len(b) == len(rows)):
        raise ValueError(f"tableau {name}: a, b and c must be of one length")
    if not all(isinstance(row, list) and len(row) <= i for i, row in enumerate(rows)):
        raise ValueError(f"tableau {name}: row i of a has at most i − 1 coefficients: exponential methods are explicit")
    try:
        a = [[expression(text) for text in row] for row in rows]
        weights = [expression(text) for text in b]
        c = np.array([float(number(text)) for text in nodes])
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"tableau {name}: {error}") from None

    def coefficients(z: complex | float) -> tuple[np.ndarray, np.ndarray]:
        matrix = np.zeros((len(c), len(c)), type(z))
        for i, row in enumerate(a):
            matrix[i, : len(row)] = [value(z) for value in row]
        return matrix, np.array([value(z) for value in weights], type(z))

    return ExponentialTableau(name, entry["order"], coefficients, c, entry.get("source", ""), entry.get("note", ""))


def check(tableau: ExponentialTableau) -> ExponentialTableau:
    """The tableau, if its row sums at z = 0 are its nodes and it has the classical order that it declares; else a
    ValueError in one line."""
    a, _ = tableau.coefficients(0.0)
    if not np.isfinite(a).all():
        raise ValueError(f"tableau {tableau.name} is not finite at z = 0")
    missed = np.abs(a.sum(axis=1) - tableau.c)
    if tableau.c[0] != 0 or missed.max() > _ROWS * max(1, np.abs(a).sum(axis=1).max()):
        i = int(np.argmax(missed))
        raise ValueError(
            f"tableau {tableau.name}: row {i + 1} of a adds up to {a[i].sum():.12g} at z = 0 and its node c is "
            f"{tableau.c[i]:.12g}: they must be equal, and the first node 0"
        )
    if tableau.order > HIGHEST:
        raise ValueError(f"tableau {tableau.name}: order={tableau.order} of an exponential method is at most {HIGHEST}")
    found, size, tree = order(tableau, tableau.order)
    if found < tableau.order:
        raise ValueError(
            f"tableau {tableau.name} declares order {tableau.order} and has order {found}: the condition of the tree "
            f"{coloured.drawn(tree)} of {found + 1} nodes (L linear) is missed by {size:.2g}; correct the "
            "coefficients, or declare the order it has"
        )
    return tableau


def order(tableau: ExponentialTableau, upto: int = HIGHEST) -> tuple[int, float, tuple]:
    """The classical order, at most `upto`, the size of what stands against one more, and its tree."""
    a, b = taylor(tableau, upto)
    return coloured.order(a, b, tableau.c, upto)


def taylor(tableau: ExponentialTableau, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Taylor coefficients in z of a (terms, s, s) and b (terms, s): Cauchy's integral over the circle |z| = 1, by
    points enough for rounding, since φ is entire."""
    points = 32
    around = np.exp(2j * np.pi * np.arange(points) / points)
    values = [tableau.coefficients(complex(z)) for z in around]
    a, b = (np.fft.fft(np.stack(each), axis=0)[:terms].real / points for each in zip(*values, strict=True))
    return a, b


def stiff_order(tableau: ExponentialTableau) -> int:
    """The order that holds whatever L is: conditions 1 to 4 of Hochbruck & Ostermann 2005, table 1, those of the last
    order in the weak form (b at z = 0). At most 4."""
    best = 0
    for p in range(1, 5):
        weak = max(_stiff(tableau, p, 0.0, *pair) for pair in ((-0.7, -1.9), (-1.9, -4.3), (-4.3, -0.2)))
        strong = max(_stiff(tableau, p, z, *pair) for z in _Z for pair in ((-0.7, -1.9), (-1.9, -4.3), (-4.3, -0.2)))
        best = p if weak < _STIFF else best
        if strong >= _STIFF:
            break
    return best


def _stiff(tableau: ExponentialTableau, p: int, z: float, one: float, two: float) -> float:
    """What the conditions of order p are missed by; operators between factors make each z independent."""
    b = tableau.coefficients(z)[1]
    c = tableau.c
    missed = [abs(_psi_end(tableau, p, z))]
    if p == 1:
        missed.append(float(np.abs(_psi(tableau, 1, one)).max()))
    if p >= 3:
        missed.append(abs(float(b @ _psi(tableau, p - 1, one))))
    if p == 4:
        inner = tableau.coefficients(one)[0]
        missed += [abs(b @ inner @ _psi(tableau, 2, two)), abs((b * c) @ _psi(tableau, 2, one))]
    return float(max(missed))


def _psi_end(tableau: ExponentialTableau, j: int, z: float) -> float:
    """ψ_j = φ_j(z) − Σ b_k(z) c_k^{j−1}/(j−1)!."""
    return float(phi(j, z) - tableau.coefficients(z)[1] @ tableau.c ** (j - 1) / _factorial(j - 1))


def _psi(tableau: ExponentialTableau, j: int, z: float) -> np.ndarray:
    """ψ_{j,i} = φ_j(c_i z) c_i^j − Σ_k a_ik(z) c_k^{j−1}/(j−1)!."""
    exact = np.array([phi(j, c * z) * c**j for c in tableau.c])
    return exact - tableau.coefficients(z)[0] @ tableau.c ** (j - 1) / _factorial(j - 1)


def _row_sums_missed(tableau: ExponentialTableau, z: float) -> float:
    return float(max(np.abs(_psi(tableau, 1, z)).max(), abs(_psi_end(tableau, 1, z))))


def _factorial(n: int) -> float:
    return float(np.prod(np.arange(1, n + 1)))


def lawson(base: Tableau, generalised: bool) -> ExponentialTableau:
    """Lawson's method over an explicit one: the Runge–Kutta method on e^{−Lt} y (Lawson 1967, SINUM 4, 372–380).

    `generalised`: on what is left when N at the start of the step, held, is integrated exactly (Krogstad 2005, the
    generalised integrating factor of one term), so that a constant N is kept.
    """
    base = called(base)
    gap = np.tril(base.c[:, None] - base.c[None, :], -1)

    def coefficients(z: complex | float) -> tuple[np.ndarray, np.ndarray]:
        a, b = base.a * np.exp(z * gap), base.b * np.exp(z * (1 - base.c))
        if generalised:
            a[:, 0] = [c * phi(1, c * z) for c in base.c] - a[:, 1:].sum(axis=1)
            b[0] = phi(1, z) - b[1:].sum()
        return a, b

    title = "generalised Lawson 41 (Krogstad 2005)" if generalised else "Lawson 1967"
    name = f"{'generalised_' if generalised else ''}lawson_{base.name}"
    return ExponentialTableau(name, base.order, coefficients, base.c, f"{title} over {base.name}: {base.source}")
