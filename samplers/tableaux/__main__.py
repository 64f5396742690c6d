"""List every tableau: `python -m samplers.tableaux [NAME …] [--slopes] [--markdown docs/tableaux.md]`.

A line a tableau: its family, stages, denoiser calls a step, the order that its conditions give beside the one declared,
and with `--slopes` the one that it shows on a denoiser that is known (samplers/slopes.py; minutes). Exit code
1 where an order is not the declared one without a reason. Needs no model and no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samplers import registry, slopes
from samplers.tableaux import butcher, catalogue, exponential, trees

NEAR = 0.4  # how far a slope may lie from the order
HALVINGS = 14  # how often the first step of a multistep method is halved, since its start is of lower order
SWEEPS = 3  # the most sweeps of an implicit method whose slope is measured
ADAMS = [(order, inner) for inner in ([], [1.0], [0.5], [0.5, 1.0]) for order in (1, 2, 3, 4, 5)]
FAMILIES = {
    "rk": "explicit Runge–Kutta (`sampler=rk sampler.tableau=NAME`)",
    "irk": "implicit Runge–Kutta by fixed-point sweeps (`sampler=irk sampler.tableau=NAME sampler.sweeps=K`)",
    "exp_rk": "exponential Runge–Kutta on x0 in λ (`sampler=exp_rk sampler.tableau=NAME`)",
    "abnorsett": "exponential Adams and hybrids (`sampler=abnorsett sampler.order=P sampler.inner=[…]`)",
}


@dataclass(frozen=True)
class Row:
    solver: str
    name: str
    stages: int
    calls: int | None  # denoiser calls per step of the sampler in `knobs`
    declared: int
    found: int | None  # by the order conditions; None where trees of that order are not asked for
    remark: str
    source: str
    sampler: registry.Sampler  # whose slope is measured


def rows(names: Sequence[str] = ()) -> Iterator[Row]:
    """One row for each tableau that is named, or for all."""
    every = (
        *((_explicit, name) for name in catalogue.explicit_names()),
        *((_implicit, name) for name in catalogue.implicit_names()),
        *((_exponential, name) for name in catalogue.exponential_names()),
    )
    for make, name in every:
        if not names or name in names:
            yield make(name)
    for order, inner in ADAMS:
        name = _adams_name(order, inner)
        if not names or name in names:
            yield _adams(name, order, inner)


def _explicit(name: str) -> Row:
    found = catalogue.explicit(name)
    order = trees.order(found.a, found.b, min(found.order + 1, trees.HIGHEST))
    return _row("rk", found, order, found.note, tableau=name)


def _implicit(name: str) -> Row:
    found = catalogue.implicit(name)
    order = trees.order(found.a, found.b, min(found.order + 1, trees.HIGHEST))
    sweeps = max(1, min(found.order - 1, SWEEPS))
    clock = "sigma" if found.c.min() >= 0 and found.c.max() <= 1 else "lambda"
    shown = f"order {butcher.iterated(found, sweeps, False).order} with sweeps={sweeps}"
    remark = "; ".join(filter(None, (shown, found.note)))
    return _row("irk", found, order, remark, tableau=name, sweeps=sweeps, clock=clock)


def _exponential(name: str) -> Row:
    found = catalogue.exponential_tableau(name)
    order = exponential.order(found, min(found.order + 1, exponential.HIGHEST))[0]
    remark = [f"stiff order {exponential.stiff_order(found)}"]
    if not found.keeps_constants():
        remark.append("does not keep a constant x0")
    remark += [found.note] if found.note else []
    return _row("exp_rk", found, order, "; ".join(remark), tableau=name)


def _row(solver: str, found: Any, order: int, remark: str, **knobs: Any) -> Row:
    sampler = registry.sampler({"solver": solver, **knobs})
    calls = sampler.declares(1).nfe
    return Row(solver, found.name, found.stages, calls, found.order, order, remark, found.source, sampler)


def _adams_name(order: int, inner: Sequence[float]) -> str:
    return f"order={order}" + (f" inner=[{','.join(f'{c:g}' for c in inner)}]" if inner else "")


def _adams(name: str, order: int, inner: list[float]) -> Row:
    sampler = registry.sampler({"solver": "abnorsett", "order": order, "inner": inner})
    declared = sampler.declares(1)
    source = "Norsett 1969" if not inner else "Ostermann, Thalhammer, Wright 2006, BIT 46"
    remark = {(): "ABNorsett", (1.0,): "predict, evaluate, correct, evaluate"}.get(tuple(inner), "hybrid")
    return Row("abnorsett", name, 1 + len(inner), declared.nfe, declared.order, None, remark, source, sampler)


# -------------------------------------------------------------------------------------------------------------- slopes


@dataclass(frozen=True)
class Shown:
    """What was measured beside what runs declares, and why the two differ, where they do."""

    order: int
    slope: float
    error: float
    steps: int

    @property
    def below(self) -> bool:
        return not self.slope >= self.order - NEAR

    @property
    def reason(self) -> str:
        if self.slope > self.order + NEAR:
            return f"reaches rounding ({self.error:.0e}) at {self.steps} steps, where smaller terms are still falling"
        return "BELOW what is declared" if self.below else ""


def shown(row: Row) -> Shown:
    halvings = HALVINGS if row.solver == "abnorsett" else 0
    return Shown(row.sampler.declares(1).order, *slopes.slope(row.sampler, halvings))


def _line(row: Row, seen: Shown | None) -> str:
    found = "-" if row.found is None else str(row.found)
    words = [f"{row.solver:<9} {row.name:<34} {row.stages:>3} {row.calls:>3} {row.declared:>3} {found:>3}"]
    if seen is not None:
        words.append(f"{seen.slope:6.2f} of {seen.order} ({seen.error:.1e} at {seen.steps})")
    return "  ".join([*words, *filter(None, (row.remark, seen.reason if seen else "")), row.source])


def markdown(found: Sequence[tuple[Row, Shown | None]]) -> str:
    """docs/tableaux.md: an introduction and a table a family."""
    text = [_introduction(len(found))]
    for solver, title in FAMILIES.items():
        text += [f"\n## {title[0].upper()}{title[1:]}\n"]
        text += ["| name | stages | calls | order | slope | remarks | source |"]
        text += ["| --- | ---: | ---: | ---: | ---: | --- | --- |"]
        for row, seen in found:
            if row.solver == solver:
                slope = f"{seen.slope:.2f}" if seen else ""
                remarks = "; ".join(filter(None, (row.remark, seen.reason if seen else "")))
                cells = (f"`{row.name}`", row.stages, row.calls, row.declared, slope, remarks, row.source)
                text.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(text) + "\n"


def _introduction(count: int) -> str:
    return Path(__file__).with_name("introduction.md").read_text(encoding="utf-8").strip().format(count=count)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m samplers.tableaux", description="List tableaux and their orders.")
    parser.add_argument("names", nargs="*", help="of these alone")
    parser.add_argument("--slopes", action="store_true", help="measure the order on a denoiser that is known (minutes)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file")
    asked = parser.parse_args(words)
    found: list[tuple[Row, Shown | None]] = []
    if not asked.names or len(asked.names) > 1:
        print(f"{'sampler':<9} {'name':<34} stages, calls a step, order declared and by its conditions")
    for row in rows(asked.names):
        found.append((row, shown(row) if asked.slopes else None))
        print(_line(*found[-1]), flush=True)
    missing = sorted(set(asked.names) - {row.name for row, _ in found})
    if missing:
        print(f"error: unknown tableau {missing[0]!r}: without a name all are listed", file=sys.stderr)
        return 2
    if asked.markdown:
        asked.markdown.parent.mkdir(parents=True, exist_ok=True)
        asked.markdown.write_text(markdown(found), encoding="utf-8")
    wrong = [row.name for row, seen in found if row.found not in (None, row.declared) or (seen and seen.below)]
    print(f"{len(found)} tableaux and variants, {len(wrong)} of another order than declared {' '.join(wrong)}".strip())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
