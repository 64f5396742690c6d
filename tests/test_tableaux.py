"""Every tableau has the order it declares, by rooted trees: exact fractions, and float64 to 1e-12 of the terms."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from five_modes import PROCESS

from samplers.tableaux import butcher, catalogue, collocation, coloured, exponential, trees
from samplers.tableaux.expressions import expression, number, phi

VE = PROCESS.ve()
EXPLICIT, IMPLICIT, EXPONENTIAL = (
    catalogue.explicit_names(),
    catalogue.implicit_names(),
    catalogue.exponential_names(),
)


# ------------------------------------------------------------------------------------------------------------- trees


def test_trees_are_those_of_the_book():
    """Hairer, Nørsett, Wanner 1993, table II.2.1 and II.2.2."""
    assert [len(trees.trees(n)) for n in range(1, 11)] == [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]
    assert all(len(set(trees.trees(n))) == len(trees.trees(n)) for n in range(1, 9))
    assert [trees.density(t) for t in trees.trees(4)] == [24, 12, 8, 4]
    # n!/(γ σ) counts monotonic labellings, of which there are (n − 1)! over all trees
    for n in range(1, 8):
        labellings = sum(Fraction(math.factorial(n), trees.density(t) * trees.symmetry(t)) for t in trees.trees(n))
        assert labellings == math.factorial(n - 1)


def test_two_coloured_trees():
    assert [len(coloured.trees(n)) for n in range(1, 5)] == [2, 4, 11, 34]
    only_n = [t for t in coloured.trees(5) if "L" not in coloured.drawn(t)]
    assert len(only_n) == len(trees.trees(5))
    assert sorted(coloured.density(t) for t in only_n) == sorted(trees.density(t) for t in trees.trees(5))


@pytest.mark.parametrize(
    "name", ["rk4", "kutta3", "butcher5", "dormand_prince5", "lawson5", "butcher6_2", "bogacki_shampine5"]
)
def test_conditions_hold_exactly_in_fractions(name):
    entry = catalogue._entries("explicit")[name]
    size = len(entry["b"])
    a = np.full((size, size), Fraction(0), dtype=object)
    for i, row in enumerate(entry["a"]):
        a[i, : len(row)] = [number(text) for text in row]
    b = np.array([number(text) for text in entry["b"]], dtype=object)
    weights = trees.Weights(a, b)
    for n in range(1, entry["order"] + 1):
        assert all(weights.of(t) == Fraction(1, trees.density(t)) for t in trees.trees(n))
    assert any(weights.of(t) != Fraction(1, trees.density(t)) for t in trees.trees(entry["order"] + 1))


# ---------------------------------------------------------------------------------------------------------- every one


def test_there_are_more_than_a_hundred_and_no_two_are_one():
    assert len(EXPLICIT) + len(IMPLICIT) + len(EXPONENTIAL) >= 150
    for names, get in ((EXPLICIT, catalogue.explicit), (IMPLICIT, catalogue.implicit)):
        seen = {}
        for name in names:
            found = get(name)
            assert found.source and found.name == name and names.count(name) == 1
            key = (found.stages, *np.round(np.append(found.a, found.b), 8))
            assert key not in seen, (name, seen[key])
            seen[key] = name


@pytest.mark.parametrize("name", EXPLICIT)
def test_explicit_order(name):
    found = catalogue.explicit(name)
    assert found.is_explicit and found.c.min() == 0 and found.c.max() <= 1
    top = min(found.order + 1, 9)
    assert trees.order(found.a, found.b, top) == min(found.order, top)
    called = butcher.called(found)
    assert called.stages <= found.stages and trees.order(called.a, called.b, min(top, 6)) >= min(found.order, 6)


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_order_and_that_of_its_sweeps(name):
    found = catalogue.implicit(name)
    assert not found.is_explicit or "star_2" in name
    top = min(found.order + 1, 9)
    assert trees.order(found.a, found.b, top) == min(found.order, top)
    for sweeps in (1, 2, 3):
        swept = butcher.iterated(found, sweeps, newest=False)
        assert swept.order == min(found.order, sweeps + 1) == trees.order(swept.a, swept.b, swept.order)
        assert swept.is_explicit and swept.stages <= 1 + sweeps * found.stages
        assert butcher.iterated(found, sweeps, newest=True).order >= swept.order


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_exponential_order(name):
    found = catalogue.exponential_tableau(name)
    order, missed, _ = exponential.order(found, found.order + 1)
    assert order == found.order and missed > 1e-4
    a, b = found.coefficients(0.0)  # what is left of it without a linear part is a Runge–Kutta method
    assert np.allclose(a.sum(axis=1), found.c) and trees.order(a, b, found.order) == found.order
    assert found.keeps_constants() is not name.startswith("lawson")


# Hochbruck & Ostermann 2005, section 5 and 2010, section 2.3; Luan & Ostermann 2014 (of which up to 4 is asked here).
STIFF = {
    "exp_euler": 1,
    "etdrk2": 2,
    "dpmpp_2s": 2,
    "res_3s": 3,
    "dpmpp_3s": 3,
    "etd3rk": 2,
    "etd4rk": 2,
    "krogstad4": 3,
}
STIFF |= {"strehmel_weiner4": 3, "friedli4": 3, "cfree4": 2, "hochbruck_ostermann4": 4, "exprk5s8": 4, "lawson_rk4": 0}


@pytest.mark.parametrize("name", STIFF)
def test_stiff_orders_are_the_published_ones(name):
    assert exponential.stiff_order(catalogue.exponential_tableau(name)) == STIFF[name]


def test_generated_methods_are_the_tables_of_the_book():
    """Hairer & Wanner 1996, tables IV.5.1 to IV.5.12; Jay 2015 for IIIC* and IIID."""
    root3, root5, root6 = map(math.sqrt, (3, 5, 6))
    known = {
        "gauss_2": [[1 / 4, 1 / 4 - root3 / 6], [1 / 4 + root3 / 6, 1 / 4]],
        "radau_ia_2": [[1 / 4, -1 / 4], [1 / 4, 5 / 12]],
        "radau_iia_2": [[5 / 12, -1 / 12], [3 / 4, 1 / 4]],
        "lobatto_iiia_3": [[0, 0, 0], [5 / 24, 1 / 3, -1 / 24], [1 / 6, 2 / 3, 1 / 6]],
        "lobatto_iiib_3": [[1 / 6, -1 / 6, 0], [1 / 6, 1 / 3, 0], [1 / 6, 5 / 6, 0]],
        "lobatto_iiic_3": [[1 / 6, -1 / 3, 1 / 6], [1 / 6, 5 / 12, -1 / 12], [1 / 6, 2 / 3, 1 / 6]],
        "lobatto_iiic_star_3": [[0, 0, 0], [1 / 4, 1 / 4, 0], [0, 1, 0]],
        "lobatto_iiid_3": [[1 / 12, -1 / 6, 1 / 12], [5 / 24, 1 / 3, -1 / 24], [1 / 12, 5 / 6, 1 / 12]],
    }
    for name, a in known.items():
        assert np.allclose(catalogue.implicit(name).a, a, rtol=0, atol=1e-15), name
    assert np.allclose(catalogue.implicit("radau_iia_3").c, [(4 - root6) / 10, (4 + root6) / 10, 1], atol=1e-15)
    assert np.allclose(catalogue.implicit("lobatto_iiia_4").c, [0, (5 - root5) / 10, (5 + root5) / 10, 1], atol=1e-15)
    sixth = collocation.generated("gauss", 6)
    powers = np.arange(1, 13)
    assert np.allclose(sixth.b @ sixth.c[:, None] ** (powers - 1), 1 / powers, rtol=0, atol=1e-15)


def test_every_single_coefficient_counts():
    """A slip of 1e-9 in any coefficient of a, b or c is refused, in an explicit and an exponential tableau."""
    for name in ("rk4", "dormand_prince5"):
        good = catalogue.explicit(name)
        for key, at in [("a", (i, j)) for i in range(good.stages) for j in range(i)] + [
            ("b", i) for i in range(good.stages)
        ]:
            values = {"a": good.a.copy(), "b": good.b.copy()}
            values[key][at] += 1e-9
            with pytest.raises(ValueError, match=r"adds up to|has order"):
                butcher.check(butcher.Tableau(name, good.order, values["a"], values["b"], good.c, ""))
    entry = catalogue._entries("exponential")["krogstad4"]
    for i, row in enumerate(entry["a"]):
        for j, text in enumerate(row):
            rows = [list(each) for each in entry["a"]]
            rows[i][j] = f"{text} + z/1000000000" if j else f"{text} + 1/1000000000"
            with pytest.raises(ValueError, match=r"adds up to|has order"):
                exponential.check(exponential.read({**entry, "a": rows}, "wrong"))


# --------------------------------------------------------------------------------------------- slips that were printed


def order_of(a, b):
    matrix = np.zeros((len(b), len(b)))
    for i, row in enumerate(a):
        matrix[i, : len(row)] = row
    return trees.order(matrix, np.array(b, float)), matrix.sum(axis=1)


def test_classical_slips_that_circulate_are_found_with_their_size():
    """Tables that are copied from page to page, as they stand there (samplers/tableaux/introduction.md)."""
    weights = [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]
    turned = [[], [1 / 5], [3 / 40, 9 / 40], [44 / 45, -56 / 15, 32 / 9]]
    turned += [[19372 / 6561, -25360 / 2187, 64448 / 6561, 212 / 729]]
    turned += [[-9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656], weights]
    order, rows = order_of(turned, [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40])
    assert order == 1 and rows[4:6] - [8 / 9, 1] == pytest.approx([424 / 729, -2 * 9017 / 3168])
    order, rows = order_of([[1 / 2], [-1 / 2, 2]], [-1 / 2, 3 / 2])
    assert order == 1 and np.dot([-1 / 2, 3 / 2], rows) == 2
    assert order_of([[1 / 2, 1 / 2], [-1 / 2, 1 / 2]], [1 / 2, 1 / 2])[1].tolist() == [1, 0]
    low, high = 1 / 4 - math.sqrt(15) / 6, 1 / 4 + math.sqrt(15) / 6
    four = [[1 / 4, low, high, 1 / 4], [high, 1 / 4, low, 1 / 4], [1 / 4, high, 1 / 4, low], [low, 1 / 4, high, 1 / 4]]
    order, rows = order_of(four, [1 / 8, 3 / 8, 3 / 8, 1 / 8])
    assert order == 1 and rows == pytest.approx(1)


HALF, ETD4 = ["0", "1/2", "1/2", "1"], ["2*phi2(1) - 4*phi3(1)", "2*phi2(1) - 4*phi3(1)", "-phi2(1) + 4*phi3(1)"]
THREE = ["0", "4*phi2(1) - 8*phi3(1)", "-phi2(1) + 4*phi3(1)"]
A52 = "1/4*phi2(1) - phi3(1) + 2*phi2(1/2) - 4*phi3(1/2)"
# nodes; a_i2 …; b_2 … (the first column makes up for the rest); order declared, found, size of what is missed
EXPONENTIAL_SLIPS = {
    "krogstad": (HALF, [[], ["4*phi2(1/2)"], ["0", "2*phi2(1)"]], ETD4, 4, 2, 0.25),
    "strehmel_weiner": (HALF, [[], ["2*phi2(1/2)"], ["-2*phi2(1)", "4*phi2(1)"]], THREE, 4, 2, 0.25),
    "hochbruck_ostermann": (
        [*HALF, "1/2"],
        [[], ["4*phi2(1/2)"], ["phi2(1)", "phi2(1)"], [A52, A52, f"phi2(1/2) - ({A52})"]],
        ["0", "0", "-phi2(1) + 4*phi3(1)", "4*phi2(1) - 8*phi3(1)"],
        4,
        2,
        0.25,
    ),
    "etdrk4": (HALF, [[], ["phi1(1/2)"], ["0", "2*phi1(1/2)"]], ETD4, 4, 2, 1 / 6),
    "minchev": (
        HALF,
        [
            [],
            ["4/25*phi1(1/2) + 24/25*phi2(1/2)"],
            ["21/5*phi2(1) - 108/5*phi3(1)", "1/20*phi1(1) - 33/10*phi2(1) + 123/5*phi3(1)"],
        ],
        [
            "-1/10*phi1(1) + 1/5*phi2(1) - 4*phi3(1) + 12*phi4(1)",
            "1/30*phi1(1) + 23/5*phi2(1) - 8*phi3(1) - 4*phi4(1)",
            "1/30*phi1(1) - 7/5*phi2(1) + 6*phi3(1) - 4*phi4(1)",
        ],
        4,
        2,
        0.18,
    ),
    "sunstar": (["0", "1/3", "2/3"], [[], ["8/9*phi2(2/3)"]], ["0", "3/2*phi2(1)"], 3, 2, 1 / 18),
}


@pytest.mark.parametrize("name", EXPONENTIAL_SLIPS)
def test_exponential_slips_that_circulate_are_found_with_their_size(name):
    nodes, rest, weights, declared, found, size = EXPONENTIAL_SLIPS[name]

    def whole(first, others):
        return [" - ".join([first, *(f"({text})" for text in others)]), *others]

    a = [[], *(whole(f"{c}*phi1({c})", row) for c, row in zip(nodes[1:], rest, strict=True))]
    entry = {"order": declared, "c": nodes, "a": a, "b": whole("phi1(1)", weights)}
    order, missed, _ = exponential.order(exponential.read(entry, name), declared)
    assert (order, missed) == (found, pytest.approx(size, abs=0.005))
    with pytest.raises(ValueError, match=f"declares order {declared} and has order {found}"):
        exponential.check(exponential.read(entry, name))


# --------------------------------------------------------------------------------------------------------- expressions


def test_coefficients_are_read_as_printed():
    assert number("1/3") == Fraction(1, 3) and number(2) == 2 and number(" -(1+2)*3/4 ") == Fraction(-9, 4)
    assert number("(3-sqrt(3))/6") == pytest.approx(0.5 - 1 / math.sqrt(12), abs=1e-16)
    assert number("2/sqrt(3)*cos(pi/18)") == pytest.approx(1.1371580426, abs=1e-10) and number("0.25") == 0.25
    assert expression("phi1(1/2)/2 - z**2")(-1.0) == pytest.approx(1 - math.exp(-0.5) - 1)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1/0", "1//2", "__import__('os')", "open", "2**999", "phi10(1)", "phi1(1, 2)", "phi1(z)", "[1]", "1j",
     "1 if 1 else 2", "(" * 200 + "1" + ")" * 200, "1+" * 1500 + "1", "sqrt(-1)", "9e999", "'1'", "1;2", "a.b",
     "lambda: 1", "sqrt(phi1(1))", "phi1(phi1(1))", "2**-1"],
)  # fmt: skip
def test_what_is_no_coefficient_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"is no coefficient|characters long") as error:
        expression(text)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 500


@pytest.mark.parametrize("k", range(6))
def test_phi_is_its_integral(k):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s = (nodes + 1) / 2
    for z in (-40.0, -6.0, -3.0, -2.99, -1.0, -1e-9, 0.0, 0.5, 3.0):
        share = weights @ (np.exp((1 - s) * z) * s ** (k - 1)) / 2 if k else math.exp(z)
        integral = pytest.approx(float(share) / math.factorial(max(k - 1, 0)), rel=2e-13, abs=0)
        assert phi(k, z) == integral and phi(k, complex(z)).real == integral, z
