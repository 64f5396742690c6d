"""The samplers by tableau are the methods they say, on levels of every kind; a user's own file; the command."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from five_modes import PROCESS

from samplers import registry, schedules, slopes
from samplers.conditions import convergence
from samplers.core.levels import NoiseLevels, RectifiedFlow
from samplers.tableaux import __main__ as command
from samplers.tableaux import catalogue

VE = PROCESS.ve()
ROOT = Path(__file__).resolve().parents[1]


def levels(steps, end="sigma_min", process=PROCESS, schedule="exponential"):
    return schedules.build(schedule, process, steps, end=end)


def plan(steps=12, end="sigma_min", process=PROCESS, **sampler):
    return registry.build_plan(sampler, levels(steps, end, process))


# --------------------------------------------------------------------------------------------------------------- plans


def same(one, other, tolerance=1e-10, **shared):
    return plan(**one, **shared).same_method(plan(**other, **shared), tolerance)


def test_known_samplers_are_tableaux():
    full = {"lower_order_final": False}
    for end in ("sigma_min", "zero"):
        for clock, other in (("sigma", "sigma"), ("t", "flow")):
            assert same(
                {"solver": "rk", "tableau": "heun2", "clock": clock}, {"solver": "heun", "clock": other}, end=end
            )
        assert same({"solver": "exp_rk", "tableau": "etdrk2"}, {"solver": "exp_heun"}, end=end)
        assert same(
            {"solver": "exp_rk", "tableau": "dpmpp_2s_end"}, {"solver": "exp_heun", "solver_type": "phi_1"}, end=end
        )
        for order in (2, 3):
            single = {"solver": "dpmpp_single", "order": order, **full}
            assert same({"solver": "exp_rk", "tableau": f"dpmpp_{order}s"}, single, end=end)
        assert same(
            {"solver": "irk", "tableau": "gauss_1", "sweeps": 1}, {"solver": "rk", "tableau": "midpoint"}, end=end
        )
        assert same({"solver": "rk", "tableau": "euler"}, {"solver": "euler"}, end=end)
        assert same({"solver": "exp_rk", "tableau": "exp_euler"}, {"solver": "ddim"}, end=end)
    noisy = {"solver": "ancestral", "method": "dpmpp_2s", "eta": 0.7}
    assert same({"solver": "exp_rk", "tableau": "dpmpp_2s", "eta": 0.7}, noisy)
    assert same({"solver": "rk", "tableau": "euler", "eta": 0.7}, {"solver": "ancestral", "eta": 0.7})
    assert not same({"solver": "rk", "tableau": "heun2"}, {"solver": "rk", "tableau": "ralston2"}, 1e-3)


def test_lawson_is_the_tableau_in_the_clock_where_the_linear_part_is_gone():
    """x/σ obeys d(x/σ)/dλ = e^λ·x0: Lawson's Euler weighs x0 by h at the start of the step, and not by 1 − e^{−h}."""
    found = plan(solver="exp_rk", tableau="lawson_euler", steps=3).stages[0]
    h = found.result.lam - found.level.lam
    assert found.x0 == pytest.approx((found.result.alpha * h * math.exp(-h),))
    assert same(
        {"solver": "exp_rk", "tableau": "generalised_lawson_euler"}, {"solver": "exp_rk", "tableau": "exp_euler"}
    )


def test_adams_is_unip_and_its_hybrids_are_methods_that_have_names():
    for order in (1, 2, 3, 4):
        unip = {
            "solver": "unipc",
            "order": order,
            "variant": "vary_coeff",
            "corrector": False,
            "lower_order_final": False,
        }
        assert same({"solver": "abnorsett", "order": order}, unip, 1e-8)
    assert same({"solver": "abnorsett", "order": 1, "inner": [1.0]}, {"solver": "exp_rk", "tableau": "etdrk2"})
    assert same({"solver": "abnorsett", "order": 1, "inner": [0.5]}, {"solver": "exp_rk", "tableau": "res_2s"})


@pytest.mark.parametrize(
    ("order", "inner"), [(1, [0.3]), (2, []), (2, [0.5]), (2, [0.5, 1.0]), (3, [1.0]), (4, []), (4, [0.5]), (5, [])]
)
def test_orders_of_adams_and_its_hybrids(order, inner):
    sampler = {"solver": "abnorsett", "order": order, "inner": inner}
    found = convergence(
        lambda n: (levels(n, process=VE), registry.build_plan(sampler, levels(n, process=VE))), (48, 96, 192)
    )
    assert registry.capabilities(sampler, 9).order == order + bool(inner)
    assert found.order == pytest.approx(order + bool(inner), abs=0.25)


ALL = [
    ({"solver": "rk", "tableau": name, "clock": clock})
    for name in catalogue.explicit_names()
    for clock in ("sigma", "t", "lambda")
]
ALL += [{"solver": "exp_rk", "tableau": name} for name in catalogue.exponential_names()]
ALL += [
    {"solver": "irk", "tableau": name, "sweeps": sweeps, "clock": clock}
    for name in catalogue.implicit_names()
    for sweeps, clock in ((1, "sigma"), (2, "t"), (3, "lambda"))
    if name != "crouzeix3" or clock == "lambda"
]


def test_every_tableau_makes_a_plan_that_holds_its_levels_and_its_count():
    """Two steps from σmax, from σmax with noise, to zero, and from pure noise on a rectified flow."""
    flow = RectifiedFlow()
    pure = NoiseLevels.from_ratios(flow, [math.inf, 5.0, 0.5, 0.0])
    cases = [(levels(6), 0.0), (levels(6), 0.6), (levels(6, "zero"), 0.0), (pure, 0.0)]
    for sampler in ALL:
        lawson = sampler["tableau"].startswith("lawson")
        for at, eta in cases:
            made = registry.build_plan({**sampler, "eta": eta}, at)
            influence, n = made.influence(), made.nfe
            assert np.isfinite(influence).all()
            assert n <= registry.capabilities(sampler, at.steps).nfe and (
                at[at.steps].sigma == 0 or n == registry.capabilities(sampler, at.steps).nfe
            )
            if lawson:
                continue
            for row, level in zip(influence[1:], [*(s.level for s in made.stages[1:]), at[at.steps]], strict=True):
                signal = row[0] * made.start.alpha + row[1 : 1 + n].sum()
                assert signal == pytest.approx(level.alpha, abs=1e-8), sampler


# ------------------------------------------------------------------------------------------------------ what they show

SHOWN = [("rk", "euler"), ("rk", "ralston2"), ("rk", "kutta3"), ("rk", "rk4"), ("rk", "dormand_prince5")]
SHOWN += [("exp_rk", "res_2s"), ("exp_rk", "res_3s"), ("exp_rk", "krogstad4"), ("exp_rk", "lawson_rk4")]
SHOWN += [("irk", "gauss_2"), ("irk", "radau_iia_3")]


@pytest.mark.parametrize(("solver", "name"), SHOWN)
def test_the_slope_is_the_declared_order(solver, name):
    """On the mixture of five Gaussians; all of them by `python -m samplers.tableaux --slopes`."""
    sampler = {"solver": solver, "tableau": name}
    shown, error, _ = slopes.slope(sampler)
    assert shown == pytest.approx(registry.capabilities(sampler, 1).order, abs=0.2) and 1e-13 < error < 0.01


def test_the_mixture_is_that_of_the_other_tests():
    import torch
    from five_modes import denoiser, flow, starts

    x = np.array([[0.3, -2.0], [4.0, 1.0]])
    for level in levels(5):
        assert np.allclose(slopes.denoise(x, level), denoiser(torch.from_numpy(x), level).numpy(), rtol=1e-12)
    made = registry.build_plan(
        {"solver": "rk", "tableau": "verner_efficient9", "clock": "lambda"}, levels(300, process=VE)
    )
    end = slopes.run(made, (starts() * PROCESS.ratio_max).numpy())
    assert np.allclose(end, flow(PROCESS.ratio_min).numpy(), rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------------------------------- a user's own file

RK4 = {
    "name": "mine",
    "order": 4,
    "source": "Kutta",
    "a": [[], ["1/2"], ["0", "1/2"], [0, 0, 1]],
    "b": ["1/6", "1/3", "1/3", "1/6"],
}
RES = {"order": 2, "c": ["0", "1/2"], "a": [[], ["phi1(1/2)/2"]], "b": ["phi1(1) - 2*phi2(1)", "2*phi2(1)"]}


def written(folder, entry, name="mine.json"):
    path = folder / name
    path.write_text(entry if isinstance(entry, str) else json.dumps(entry))
    return str(path)


def test_a_tableau_from_a_file_is_the_method_in_it_and_is_named_by_its_digest(tmp_path):
    path = written(tmp_path, RK4)
    assert same({"solver": "rk", "tableau": path}, {"solver": "rk", "tableau": "rk4"})
    own = written(tmp_path, RES, "res.json")
    assert same({"solver": "exp_rk", "tableau": own}, {"solver": "exp_rk", "tableau": "res_2s"})
    gauss = catalogue.implicit("gauss_2")
    own = written(tmp_path, {"order": 4, "a": gauss.a.tolist(), "b": gauss.b.tolist()}, "gauss.json")
    assert same({"solver": "irk", "tableau": own, "sweeps": 3}, {"solver": "irk", "tableau": "gauss_2", "sweeps": 3})
    settled = registry.settled({**registry.load("rk"), "tableau": path})
    assert settled["sha256"] == hashlib.sha256((tmp_path / "mine.json").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="leave it null"):
        registry.settled({**registry.load("rk"), "sha256": "00"})
    assert registry.settled(registry.load("rk")) == registry.load("rk") and not registry.has_own_levels("rk")
    written(tmp_path, {**RK4, "b": ["1/8", "3/8", "3/8", "1/8"], "a": [[], ["1/3"], ["-1/3", "1"], ["1", "-1", "1"]]})
    with pytest.raises(ValueError, match="has changed: its sha256 is"):
        registry.build_plan(settled, levels(3))
    assert same({"solver": "rk", "tableau": path}, {"solver": "rk", "tableau": "three_eighths"})  # read anew


@pytest.mark.parametrize(
    ("solver", "entry", "message"),
    [
        ("rk", {**RK4, "c": [0, "1/2", "1/2", "0.9"]}, r"row 4 of a adds up to 1 and its node c is 0.9 \(0.1 apart\)"),
        ("rk", {**RK4, "order": 5}, r"declares order 5 and has order 4: the condition of the tree \[.*missed by 0.0"),
        ("rk", {**RK4, "b": [0.1666, 0.3333, 0.3333, 0.1667]}, "declares order 4 and has order 0"),
        ("rk", {**RK4, "b": [0.1666, 0.3333, 0.3333, 0.1668]}, "declares order 4 and has order 1"),
        ("rk", {**RK4, "order": 11}, "whole number from 1 to 10"),
        ("rk", {**RK4, "b": ["1/6", "1/3", "1/3"]}, "a must have 3 rows"),
        ("rk", {**RK4, "d": []}, "must have order, a, b and may have"),
        ("rk", {**RK4, "b": ["1/6", "1/3", "1/3", "one"]}, "'one' is no coefficient"),
        ("rk", {**RK4, "b": ["1/6", "1/3", "1/3", "phi1(1)"]}, "depends on z = hL: only an exponential"),
        ("rk", {"order": 2, "a": [["1/2"]], "b": [1]}, "is implicit: sampler=irk"),
        ("rk", {**RK4, "order": True}, "order=True"),
        ("rk", "[]", "no tableau"),
        ("rk", "{", "not JSON"),
        ("irk", {"order": 2, "a": [["1/2", 0]], "b": [1]}, "at most 1 coefficients"),
        ("exp_rk", {**RES, "order": 3}, r"declares order 3 and has order 2"),
        ("exp_rk", {**RES, "c": ["0", "1/3"]}, "adds up to 0.5 at z = 0 and its node c is 0.33"),
        ("exp_rk", {**RES, "b": ["phi1(1) - phi2(1)", "phi2(1)"]}, r"has order 1: .* missed by 0.25"),
        ("exp_rk", {**RES, "a": [["1"], ["1/2"]]}, "explicit"),
        ("exp_rk", {**RES, "b": ["sin(phi1(1))", "1"]}, "argument of sin must be a number"),
        ("exp_rk", RK4, "a, b and c must be of one length"),
    ],
)
def test_a_file_that_does_not_hold_is_refused_in_one_line(tmp_path, solver, entry, message):
    with pytest.raises(ValueError, match=message) as error:
        plan(solver=solver, tableau=written(tmp_path, entry))
    assert "\n" not in str(error.value) and len(str(error.value)) <= 500


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"solver": "rk", "tableau": "rk5"}, "unknown tableau 'rk5': did you mean rk4"),
        ({"solver": "rk", "tableau": "krogstad4"}, "sampler=exp_rk has it"),
        ({"solver": "irk", "tableau": "rk4"}, "sampler=rk has it"),
        ({"solver": "irk", "tableau": "gauss_7"}, "gauss has 1 to 6 stages here, not 7"),
        ({"solver": "exp_rk", "tableau": "lawson_rk5"}, "unknown tableau 'rk5'"),
        ({"solver": "rk", "tableau": "none.json"}, "no tableau file 'none.json'"),
        ({"solver": "rk", "tableau": 4}, "must be a name or a path"),
        ({"solver": "rk", "tableau": ["rk4"]}, "must be a name or a path"),
        ({"solver": "rk", "clock": "time"}, "valid: sigma, lambda, t"),
        ({"solver": "rk", "eta": -1.0}, "must not be negative"),
        ({"solver": "irk", "sweeps": 0}, "from 1 to 12"),
        ({"solver": "irk", "sweeps": [2]}, "from 1 to 12"),
        ({"solver": "irk", "update": "newest"}, "valid: jacobi, seidel"),
        ({"solver": "irk", "tableau": "crouzeix3"}, r"nodes from -0.0686 to 1.07, beyond the step: .*clock=lambda"),
        ({"solver": "abnorsett", "order": 7}, "valid: 1 to 6"),
        ({"solver": "abnorsett", "inner": [0.5, 0.5]}, "growing numbers"),
        ({"solver": "abnorsett", "inner": [1.5]}, "growing numbers"),
        ({"solver": "abnorsett", "inner": 0.5}, "growing numbers"),
        ({"solver": "abnorsett", "inner": "half"}, "growing numbers"),
    ],
)
def test_bad_knobs_get_one_clear_line(sampler, message):
    with pytest.raises(ValueError, match=message) as error:
        plan(**sampler)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 500


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_lists_and_the_committed_page_holds_what_it_lists(tmp_path, capsys):
    out = tmp_path / "page.md"
    assert command.main(["--markdown", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith("0 of another order than declared")

    def cells(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        table = [line.split(" | ") for line in lines if line.startswith("| `")]
        return {(row[0], row[1], row[2], row[3], row[6]) for row in table if len(row) == 7}

    committed = cells(ROOT / "docs" / "tableaux.md")
    assert cells(out) == committed and len(committed) == len(list(command.rows())) >= 180


def test_the_command_measures_and_refuses_names_it_does_not_know(capsys):
    assert command.main(["heun3", "etdrk2", "order=1 inner=[1]", "--slopes"]) == 0
    said = capsys.readouterr().out
    assert "3.01 of 3" in said and said.count("2.00 of 2") == 2
    assert command.main(["heun9"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown tableau 'heun9'")


def test_an_order_that_is_not_shown_is_said(monkeypatch, capsys):
    monkeypatch.setattr(slopes, "slope", lambda knobs, halvings: (2.5, 1e-6, 100))
    assert command.main(["heun3", "--slopes"]) == 1
    assert "BELOW what is declared" in capsys.readouterr().out
