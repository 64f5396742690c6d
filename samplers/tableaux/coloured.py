"""Two-coloured trees, and the classical order of an exponential Runge–Kutta method by them.

B-series of y' = Ly + N(y): a node is L, with one branch at most (L is linear), or N, with any number. Berland, Owren,
Skaflestad 2005, SINUM 43, 1715–1727. Coefficients enter by their Taylor series: a chain of l L's above an N-node with
branches t_1 … t_m weighs Σ_j a_ij^{(l)} Φ_j(t_1)…Φ_j(t_m), a chain of l L's alone c_i^l/l!, and all must be 1/γ.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from samplers.tableaux.trees import TOLERANCE, forests

Tree = tuple  # (is it an L-node, branches)


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """Every two-coloured tree of so many nodes, each once: 2, 4, 11, 34, …"""
    chains = [(True, ())] if nodes == 1 else [(True, (below,)) for below in trees(nodes - 1)]
    return (*chains, *((False, tuple(branches)) for branches in forests(trees, nodes - 1)))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree[1]))


@cache
def density(tree: Tree) -> int:
    return size(tree) * math.prod(map(density, tree[1]))


def order(a: np.ndarray, b: np.ndarray, c: np.ndarray, upto: int) -> tuple[int, float, Tree]:
    """(order, at most `upto`; the size of the worst condition of the first order that fails; its tree).

    a (terms, s, s), b (terms, s): Taylor coefficients in z, at least `upto` terms.
    """
    exact, terms = _Weights(a, b, c), _Weights(np.abs(a), np.abs(b), c)
    for nodes in range(1, upto + 1):
        worst = (0.0, 0.0, ())
        for tree in trees(nodes):
            missed = abs(exact.of(tree) - 1 / density(tree))
            relative = missed / max(terms.of(tree), 1 / density(tree))
            worst = max(worst, (relative, missed, tree), key=lambda each: each[0])
        if worst[0] > TOLERANCE:
            return nodes - 1, worst[1], worst[2]
    return upto, 0.0, ()


class _Weights:
    def __init__(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        self.a, self.b, self.c = a, b, c
        self._known: dict[Tree, np.ndarray] = {}

    def of(self, tree: Tree) -> float:
        chain, rest = _stripped(tree)
        return 1 / math.factorial(chain) if rest is None else float(self.b[chain] @ self._product(rest))

    def _product(self, branches: tuple[Tree, ...]) -> np.ndarray:
        product = np.ones(len(self.c))
        for branch in branches:
            product = product * self._stage(branch)
        return product

    def _stage(self, tree: Tree) -> np.ndarray:
        if tree not in self._known:
            chain, rest = _stripped(tree)
            self._known[tree] = (
                self.c**chain / math.factorial(chain) if rest is None else self.a[chain] @ self._product(rest)
            )
        return self._known[tree]


def _stripped(tree: Tree) -> tuple[int, tuple[Tree, ...] | None]:
    """How many L-nodes stand on top, and the branches of the N-node below them; None where they end on y itself."""
    chain = 0
    while tree[0]:
        chain += 1
        if not tree[1]:
            return chain, None
        tree = tree[1][0]
    return chain, tree[1]


def drawn(tree: Tree) -> str:
    return ("L" if tree[0] else "") + "[" + "".join(map(drawn, tree[1])) + "]"
