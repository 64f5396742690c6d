"""Rooted trees, and the order of a Runge–Kutta method by them: Butcher 1963; Hairer, Nørsett, Wanner 1993, II.2.

A method has order p when Φ(t) = 1/γ(t) for every rooted tree t of up to p nodes. A tree is the tuple of the trees that
hang on its root, so `()` is the single node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

Tree = tuple  # of trees
HIGHEST = 10  # 1205 trees; the most that is asked of a tableau here
# How far a condition may be missed, relative to Φ with every coefficient made positive. Coefficients that were printed
# to 16 digits meet it, those printed to 10 digits do not.
TOLERANCE = 1e-12


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """Every rooted tree of so many nodes, each once: 1, 1, 2, 4, 9, 20, 48, 115, 286, 719.

    >>> [drawn(tree) for tree in trees(3)]
    ['[[[]]]', '[[][]]']
    """
    return tuple(tuple(branches) for branches in forests(trees, nodes - 1))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


@cache
def density(tree: Tree) -> int:
    """γ: the nodes of the tree times γ of its branches."""
    return size(tree) * math.prod(map(density, tree))


def forests(
    trees: Callable[[int], tuple[Tree, ...]],
    nodes: int,
    largest: int | None = None,
    last: tuple[int, int] | None = None,
) -> Iterator[list[Tree]]:
    """Multisets of `trees` (by their nodes) with so many nodes in all, in falling order, so that each comes once."""
    if nodes == 0:
        yield []
        return
    for first in range(nodes if largest is None else min(nodes, largest), 0, -1):
        for k, tree in enumerate(trees(first)):
            if last is None or (first, -k) <= (last[0], -last[1]):
                for rest in forests(trees, nodes - first, first, (first, k)):
                    yield [tree, *rest]


class Weights:
    """Φ of trees for one method (a, b), each sub-tree worked out once; a of any number type that numpy can hold."""

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self.a, self.b = a, b
        self._known: dict[Tree, np.ndarray] = {}

    def of(self, tree: Tree):
        """Φ(t) = Σ_i b_i Π (branches at stage i)."""
        return self.b @ self._product(tree)

    def _product(self, tree: Tree) -> np.ndarray:
        product = np.ones_like(self.b)
        for branch in tree:
            product = product * self._stage(branch)
        return product

    def _stage(self, tree: Tree) -> np.ndarray:
        if tree not in self._known:
            self._known[tree] = self.a @ self._product(tree)
        return self._known[tree]


def order(a: np.ndarray, b: np.ndarray, upto: int = HIGHEST) -> int:
    """The order of (a, b), at most `upto`; 0 where Σb is not 1.

    >>> order(np.array([[0, 0], [0.5, 0]]), np.array([0, 1]))  # the midpoint rule
    2
    """
    for nodes in range(1, upto + 1):
        if worst(a, b, nodes)[0] > TOLERANCE:
            return nodes - 1
    return upto


def worst(a: np.ndarray, b: np.ndarray, nodes: int) -> tuple[float, float, Tree]:
    """The condition of so many nodes that is missed most: (relative to its terms, in absolute terms, its tree)."""
    exact, terms = Weights(a, b), Weights(np.abs(a), np.abs(b))
    found = []
    for tree in trees(nodes):
        missed = abs(float(exact.of(tree)) - 1 / density(tree))
        found.append((missed / max(float(terms.of(tree)), 1 / density(tree)), missed, tree))
    return max(found, key=lambda each: each[0])


@cache
def symmetry(tree: Tree) -> int:
    """σ: the ways in which the tree maps to itself."""
    alike = [tree.count(branch) for branch in set(tree)]
    return math.prod(map(math.factorial, alike)) * math.prod(map(symmetry, tree))


def drawn(tree: Tree) -> str:
    """A tree as text: [] is the node, [[][]] a root with two leaves."""
    return "[" + "".join(map(drawn, tree)) + "]"
