"""Implicit Runge–Kutta methods of any number of stages, computed from their definition: Hairer & Wanner 1996, IV.5.

Nodes and weights come from Gauss, Radau or Lobatto quadrature on [0, 1]. The matrix follows from simplifying
assumptions, C(q): Σ_j a_ij c_j^{k−1} = c_i^k/k, or D(q): Σ_i b_i c_i^{k−1} a_ij = b_j (1 − c_j^k)/k, and one column
that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.polynomial import legendre

from samplers.tableaux.butcher import Tableau

MOST = 6  # stages: order 12 is beyond what trees are asked for, and a sweep costs so many calls
_BOOK = "Hairer, Wanner 1996, Solving ODEs II, "


@cache
def generated(family: str, stages: int) -> Tableau:
    """`family` and `stages` as in FAMILIES; coefficients to rounding."""
    least, order, make, source = FAMILIES[family]
    if not least <= stages <= MOST:
        raise ValueError(f"{family} has {least} to {MOST} stages here, not {stages}")
    c, b, a = make(stages)
    return Tableau(f"{family}_{stages}", order(stages), a, b, c, source)


def _nodes(stages: int, ends: tuple[int, ...]) -> np.ndarray:
    """Zeros of the shifted polynomial: P_s (Gauss), P_s ± P_{s−1} (Radau), P_s − P_{s−2} (Lobatto); in [0, 1]."""
    series = np.zeros(stages + 1)
    series[stages] = 1
    if len(ends) == 1:
        series[stages - 1] = 1 if ends == (0,) else -1
    if len(ends) == 2:
        series[stages - 2] = -1
    x = np.sort(legendre.legroots(series).real)
    inner = x[(0 in ends) : len(x) - (1 in ends)]
    slope = legendre.legder(series)
    for _ in range(3):  # Newton: roots of a companion matrix are a few ulp off
        inner = inner - legendre.legval(inner, series) / legendre.legval(inner, slope)
    if len(ends) != 1:  # symmetric about the middle, exactly
        inner = (inner - inner[::-1]) / 2
    return np.concatenate([[0.0] * (0 in ends), (inner + 1) / 2, [1.0] * (1 in ends)])


def _weights(c: np.ndarray) -> np.ndarray:
    """The weights of the interpolating quadrature: ∫ over [0, 1] of the Lagrange polynomials of c."""
    return _integrals(c, np.ones(1))[0]


def _integrals(c: np.ndarray, upto: np.ndarray) -> np.ndarray:
    """∫ from 0 to each of `upto` of the Lagrange polynomials of c; Gauss–Legendre is exact for them."""
    x, w = legendre.leggauss(len(c) // 2 + 1)
    at = upto[:, None] * (x + 1) / 2
    values = np.ones((len(c), *at.shape))
    for j, node in enumerate(c):
        for other in np.delete(c, j):
            values[j] *= (at - other) / (node - other)
    return (values @ w / 2).T * upto[:, None]


def _collocation(c: np.ndarray) -> np.ndarray:
    """C(s): stages are where the polynomial through all of them says."""
    return _integrals(c, c)


def _adjoint(c: np.ndarray, b: np.ndarray) -> np.ndarray:
    """D(s) in terms of C(s): b_i a_ij + b_j ã_ji = b_i b_j, with ã collocation on the same nodes."""
    return b[None, :] * (1 - _collocation(c).T / b[:, None])


def _gauss(s: int):
    c = _nodes(s, ())
    return c, _weights(c), _collocation(c)


def _radau_iia(s: int):
    c = _nodes(s, (1,))
    return c, _weights(c), _collocation(c)


def _radau_ia(s: int):
    c = _nodes(s, (0,))
    b = _weights(c)
    return c, b, _adjoint(c, b)


def _lobatto(s: int) -> tuple[np.ndarray, np.ndarray]:
    c = _nodes(s, (0, 1))
    return c, _weights(c)


def _lobatto_iiia(s: int):
    c, b = _lobatto(s)
    a = _collocation(c)
    a[0], a[-1] = 0, b
    return c, b, a


def _lobatto_iiib(s: int):
    c, b = _lobatto(s)
    a = _adjoint(c, b)
    a[:, 0], a[:, -1] = b[0], 0
    return c, b, a


def _lobatto_iiic(s: int):
    """a_i1 = b_1 and C(s − 1)."""
    c, b = _lobatto(s)
    return c, b, _with_column(c, 0, b[0])


def _lobatto_iiic_star(s: int):
    """a_is = 0 and C(s − 1)."""
    c, b = _lobatto(s)
    a = _with_column(c, s - 1, 0.0)
    a[0] = 0
    return c, b, a


def _lobatto_iiid(s: int):
    """The mean of IIIC and IIIC*."""
    c, b = _lobatto(s)
    return c, b, (_lobatto_iiic(s)[2] + _lobatto_iiic_star(s)[2]) / 2


def _with_column(c: np.ndarray, column: int, value: float) -> np.ndarray:
    """C(s − 1) with one column given: the others integrate what polynomials of degree s − 2 leave."""
    s = len(c)
    rest = np.delete(np.arange(s), column)
    powers = np.arange(1, s)
    wanted = c[:, None] ** powers / powers - value * c[column] ** (powers - 1)
    a = np.zeros((s, s))
    a[:, column] = value
    a[:, rest] = np.linalg.solve(np.vander(c[rest], increasing=True).T, wanted.T).T
    return a


Make = Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]
FAMILIES: dict[str, tuple[int, Callable[[int], int], Make, str]] = {
    "gauss": (1, lambda s: 2 * s, _gauss, _BOOK + "IV.5, Gauss methods; Butcher 1964"),
    "radau_ia": (2, lambda s: 2 * s - 1, _radau_ia, _BOOK + "table IV.5.3-4; Ehle 1969"),
    "radau_iia": (1, lambda s: 2 * s - 1, _radau_iia, _BOOK + "table IV.5.5-6; Ehle 1969"),
    "lobatto_iiia": (2, lambda s: 2 * s - 2, _lobatto_iiia, _BOOK + "table IV.5.7-8; Ehle 1969"),
    "lobatto_iiib": (3, lambda s: 2 * s - 2, _lobatto_iiib, _BOOK + "table IV.5.9-10; Ehle 1969"),
    "lobatto_iiic": (2, lambda s: 2 * s - 2, _lobatto_iiic, _BOOK + "table IV.5.11-12; Chipman 1971"),
    "lobatto_iiic_star": (2, lambda s: 2 * s - 2, _lobatto_iiic_star, "Jay 2015, Lobatto methods; Butcher 1964"),
    "lobatto_iiid": (2, lambda s: 2 * s - 2, _lobatto_iiid, "Jay 2015, Lobatto methods, IIID = (IIIC + IIIC*)/2"),
}
