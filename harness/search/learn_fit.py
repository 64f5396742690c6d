"""The levels and coefficients of a plan, fitted to where a model's trajectories lead. Forward calls only, no gradient.

With z = x/α and r = σ/α every plan of one call a step that follows the line of fixed noise exactly is

    z_{i+1} = (r_{i+1}/r_0)·z_0 + Σ_{j≤i} W_ij·D_j,      Σ_j W_ij = 1 − r_{i+1}/r_0,      D_j = denoise(x_j, r_j)

(Shaul et al. 2024, 2403.01329, eq. 11, under that condition). The result is clean, r_n = 0, or at the model's lowest
trained level, where the hand-made plans on such a schedule end too. W is a theoretical method's, DPM-Solver++ 2M on the
present levels, plus what is learned, so that weights follow when levels move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.search.learn_images import CLEAN, Split, geometric, rms
from samplers.core.levels import Level, NoiseLevels, Process
from samplers.core.plan import Plan
from samplers.core.stage import Capabilities, Stage
from samplers.solvers.dpmpp import DPMpp

FOLLOWS = 1e-6  # what a plan may miss the line of fixed noise by
CLOSEST = 0.01  # neighbouring levels keep log σ apart by so much
RIDGE = 1e-4  # of a stage's least squares, towards the theoretical weights
LAST_RIDGE = 1e-6  # of the last stage's
ROUNDS = 3  # of reweighting in the last stage's least squares
DAMPINGS = ((10.0, 1.0, 0.1), (100.0, 1e3, 1e4))  # times the last one that served, tried in turn
FLOOR = 0.5  # of the median error: what the robust loss takes for as good as nothing
ENOUGH = 1e-3  # an iteration that gains less in the mean log error is the last


Attempt = Callable[[np.ndarray], "tuple[Table, Tensor]"]  # a step of the parameters -> where it leads, and its answers


@dataclass(frozen=True)
class Table:
    """log σ/α of the n calls (n,), falling, and the weights W (n, n), lower triangular.

    `end`: σ/α of the result, 0 or the model's lowest trained level.
    """

    logs: np.ndarray
    weights: np.ndarray
    end: float = 0.0

    @property
    def ratios(self) -> np.ndarray:
        """σ/α of the calls and of the end, (n + 1,)."""
        return np.append(np.exp(self.logs), self.end)

    @property
    def along(self) -> float:
        """What is left of the start in the result."""
        return self.end * float(np.exp(-self.logs[0]))

    def to_plain(self) -> dict[str, Any]:
        return {"logs": self.logs.tolist(), "weights": self.weights.tolist(), "end": self.end}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Table:
        return cls(np.array(plain["logs"]), np.array(plain["weights"]), plain["end"])

    @classmethod
    def of(cls, plan: Plan) -> Table | None:
        """A plan's own; None where it draws noise, leaves the line of fixed noise or its levels do not fall."""
        levels = [stage.level for stage in plan.stages]
        ratios, alphas = (np.array([getattr(level, name) for level in levels]) for name in ("ratio", "alpha"))
        if plan.draws or not (np.diff(ratios) < 0).all():
            return None
        rows = plan.influence()[1:, : 1 + len(levels)]
        end = plan.stages[-1].result
        after = np.append(alphas[1:], end.alpha)
        weights = rows[:, 1:] / after[:, None]
        along = np.append(ratios[1:], end.ratio) / ratios[0]
        if np.abs(rows[:, 0] * alphas[0] / after - along).max() > FOLLOWS:
            return None
        for i in range(len(levels)):
            weights[i, i] = 1 - along[i] - weights[i, :i].sum()
        return cls(np.log(ratios), weights, float(end.ratio))

    def moved(self, logs: np.ndarray, process: Process) -> Table:
        """With other levels; what was learned beside the theoretical weights stays."""
        learned = self.weights - theoretical(self.logs, process, self.end)
        return Table(logs, theoretical(logs, process, self.end) + learned, self.end)

    def changed(self, row: int, column: int, by: float) -> Table:
        """With another weight, at the expense of its row's newest."""
        weights = self.weights.copy()
        weights[row, column] += by
        weights[row, row] -= by
        return replace(self, weights=weights)

    def plan(self, process: Process) -> tuple[Plan, NoiseLevels]:
        """As a plan over its own levels, its newest weights such that constants are integrated to rounding."""
        levels = NoiseLevels.from_ratios(process, self.ratios)
        start, stages = levels[0], []
        for i, row in enumerate(self.weights):
            then = levels[i + 1]
            own = then.sigma / start.sigma
            past = [then.alpha * weight for weight in row[:i]]
            newest = then.alpha - start.alpha * own - sum(past)
            states = (*[0.0] * i, own)
            stages.append(Stage(levels[i], then, states, (newest, *past[::-1])))
        return Plan(start, tuple(stages), Capabilities(order=1, nfe=len(stages))), levels


def theoretical(logs: np.ndarray, process: Process, end: float = 0.0) -> np.ndarray:
    """W (n, n) of DPM-Solver++ 2M over these levels and the end."""
    levels = NoiseLevels.from_ratios(process, np.append(np.exp(logs), end))
    return DPMpp().plan(levels).influence()[1:, 1:] / levels.alpha[1:, None]


@dataclass
class Fitter:
    """Fits tables to the images of one split, which must have its trajectory."""

    split: Split
    process: Process
    difference: float  # step of finite differences
    # Images that `improve_all` takes slopes on; its steps are judged by all, so that few are not fitted as such.
    few: int | None = None

    # ------------------------------------------------------------------------------------------------- running it

    def run(self, table: Table, first: int = 0, known: Tensor | None = None) -> Tensor:
        """The answers D (n, N, …) of a run; calls before `first` are taken from `known`."""
        return self._calls(table, first, known, None)[0]

    def fitted(
        self,
        logs: np.ndarray,
        base: Table | None = None,
        first: int = 0,
        known: Tensor | None = None,
        end: float = 0.0,
    ) -> tuple[Table, Tensor]:
        """Levels with each stage fitted to the trajectory in turn, and the answers: (Table, D).

        Calls before `first` are `known`, and the stages that lead to them are those of `base`, of the same `end`.
        """
        weights = theoretical(logs, self.process, end)
        if base is not None and first > 0:
            weights[: first - 1] = base.weights[: first - 1]
        answers, table = self._calls(Table(logs, weights, end), first, known, self.split)
        return self.with_last(table, answers), answers

    def _calls(self, table: Table, first: int, known: Tensor | None, fit: Split | None) -> tuple[Tensor, Table]:
        split, ratios, weights = self.split, table.ratios, table.weights.copy()
        z0 = self._start(table)
        answers = z0.new_empty(len(table.logs), *z0.shape) if known is None else known.clone()
        for i in range(max(first, 0), len(table.logs)):
            level = self.process.level(ratios[i])
            z = z0
            if i:
                along = float(ratios[i] / ratios[0])
                if fit is not None:
                    weights[i - 1] = self._stage(weights[i - 1], z0, answers[:i], along, float(ratios[i]))
                z = along * z0 + _combined(weights[i - 1, :i], answers[:i])
            answers[i] = split.denoise(level.alpha * z, level)
        return answers, replace(table, weights=weights)

    def _start(self, table: Table) -> Tensor:
        level = self.process.level(table.ratios[0])
        return self.split.start(level) / level.alpha

    def _stage(self, row: np.ndarray, z0: Tensor, answers: Tensor, along: float, ratio: float) -> np.ndarray:
        """The weights that lead to the teacher's z at `ratio`, by least squares near the given ones."""
        assert self.split.trajectory is not None
        newest = answers[-1].double()
        wanted = self.split.trajectory.at(ratio) - along * z0.double() - (1 - along) * newest
        columns = answers[:-1].double() - newest
        return _solved(row, columns, wanted, torch.ones(len(z0), dtype=torch.float64), RIDGE, total=1 - along)

    # ---------------------------------------------------------------------------------------------------- its error

    def ends(self, table: Table, answers: Tensor) -> Tensor:
        """z = x/α of the results (N, …), float64."""
        ends = _combined(table.weights[-1], answers.double())
        return ends.add(self._start(table).double(), alpha=table.along) if table.end else ends

    def results(self, table: Table, answers: Tensor) -> Tensor:
        """The results (N, …), float64."""
        return self._end(table).alpha * self.ends(table, answers)

    def errors(self, table: Table, answers: Tensor) -> np.ndarray:
        return self.split.errors(self.results(table, answers), clean=not table.end)

    def _end(self, table: Table) -> Level:
        return self.process.level(table.end) if table.end else CLEAN

    def _wanted(self, table: Table) -> Tensor:
        """z where the ODE leads, at the table's end."""
        return self.split.lowest / self._end(table).alpha if table.end else self.split.clean

    def with_last(self, table: Table, answers: Tensor, floor: float | None = None) -> Table:
        """With the last stage's weights solved for the robust loss; `floor` as in `loss`."""
        newest = answers[-1].double()
        columns, total = answers[:-1].double() - newest, 1 - table.along
        wanted = self._wanted(table) - table.along * self._start(table).double() - total * newest
        for _ in range(ROUNDS):
            errors = self.errors(table, answers)
            scale = self._scale(errors, FLOOR * float(np.median(errors)) if floor is None else floor)
            row = _solved(table.weights[-1], columns, wanted, scale, LAST_RIDGE, total)
            table = replace(table, weights=np.vstack([table.weights[:-1], row]))
        return table

    def _scale(self, errors: np.ndarray, floor: float) -> Tensor:
        """Each image's weight in a least squares that descends `loss`."""
        return torch.from_numpy(1 / ((errors**2 + floor**2) * self.split.size * len(errors)))

    def descent(self, table: Table, answers: Tensor) -> Descent:
        """Where an optimisation begins."""
        return Descent(table, train=self._said(self.errors(table, answers)))

    # ------------------------------------------------------------------------------------------------- Gauss–Newton

    def improve_levels(self, state: Descent) -> Descent:
        """One iteration on the levels, all weights fitted anew stage by stage wherever they are tried."""
        h, n = self.difference, len(state.table.logs)
        end = state.table.end
        table, answers = self.fitted(state.table.logs, end=end)
        ends, slopes = self.ends(table, answers), []
        for k in range(n):
            logs = table.logs.copy()
            logs[k] -= h
            slopes.append((self.ends(*self.fitted(logs, table, k, answers, end)) - ends) / -h)

        def attempt(step: np.ndarray) -> tuple[Table, Tensor]:
            return self.fitted(_valid(table, step, self.process), end=end)

        return self._descend(state, table, answers, slopes, attempt)

    def improve_all(self, state: Descent) -> Descent:
        """One iteration on levels and weights together; the last stage's weights are solved for exactly."""
        h, table = self.difference, state.table
        n = len(table.logs)
        answers = self.run(table)
        part = self if self.few is None else replace(self, split=self.split.head(self.few))
        known = answers[:, : len(part.split)]
        ends, slopes = part.ends(table, known), []
        for k in range(n):
            logs = table.logs.copy()
            logs[k] -= h
            moved = table.moved(logs, self.process)
            slopes.append((part.ends(moved, part.run(moved, k, known)) - ends) / -h)
        inner = [(i, j) for i in range(1, n - 1) for j in range(i)]
        for i, j in inner:
            moved = table.changed(i, j, h)
            slopes.append((part.ends(moved, part.run(moved, i + 1, known)) - ends) / h)
        slopes += [known[j].double() - known[-1].double() for j in range(n - 1)]

        def attempt(step: np.ndarray) -> tuple[Table, Tensor]:
            tried = table.moved(_valid(table, step[:n], self.process), self.process)
            for (i, j), by in zip(inner, step[n:], strict=False):
                tried = tried.changed(i, j, float(by))
            found = self.run(tried)
            return self.with_last(tried, found, state.floor), found

        return self._descend(state, table, answers, slopes, attempt)

    def _descend(
        self, state: Descent, table: Table, answers: Tensor, slopes: list[Tensor], attempt: Attempt
    ) -> Descent:
        """The best of some damped steps; a state that says it is over where none is better."""
        errors = self.errors(table, answers)
        floor = FLOOR * float(np.median(errors))
        state.floor = floor
        loss = _loss(errors, floor)
        jacobian = torch.stack([slope.flatten(1) for slope in slopes])  # (P, N or few, d)
        count = jacobian.shape[1]
        off = (self.ends(table, answers) - self._wanted(table)).flatten(1)[:count]
        weighted = jacobian * self._scale(errors, floor)[None, :count, None].to(jacobian)
        flat = weighted.flatten(1)
        normal = (flat @ jacobian.flatten(1).T).cpu().numpy()
        down = (flat @ off.flatten()).cpu().numpy()
        for factors in DAMPINGS:
            found = []
            for factor in factors:
                damping = state.damping * factor
                step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-300), down)
                tried, there = attempt(step)
                reached = self.errors(tried, there)
                if np.isfinite(reached).all():
                    found.append((_loss(reached, floor), damping, tried, reached))
            found = [one for one in found if one[0] < loss]
            if found:
                best = min(found, key=lambda one: one[0])
                over = loss - best[0] < 2 * ENOUGH
                return Descent(best[2], max(best[1], 1e-9), over, self._said(best[3]))
        return Descent(table, state.damping, True, self._said(errors))

    def _said(self, errors: np.ndarray) -> dict[str, float]:
        return {"rms": rms(errors, self.split.size), "geometric": geometric(errors)}


@dataclass
class Descent:
    """Where an optimisation stands."""

    table: Table
    damping: float = 1e-3
    over: bool = False
    train: dict[str, float] | None = None  # rms and geometric mean on the images it is fitted to
    floor: float | None = None

    def to_plain(self) -> dict[str, Any]:
        return {**self.table.to_plain(), "damping": self.damping, "over": self.over, "train": self.train}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Descent:
        return cls(Table.from_plain(plain), plain["damping"], plain["over"], plain["train"])


def run_on(split: Split, table: Table, process: Process) -> np.ndarray:
    """The errors of a table on the images of any split, (N,)."""
    fitter = Fitter(split, process, 0.0)
    return fitter.errors(table, fitter.run(table))


def _loss(errors: np.ndarray, floor: float) -> float:
    """Mean of log(e² + floor²): the log of the geometric mean, flat where an image is right already."""
    return float(np.log(errors**2 + floor**2).mean())


def _combined(row: np.ndarray, answers: Tensor) -> Tensor:
    weights = torch.as_tensor(row, dtype=answers.dtype, device=answers.device)
    return torch.tensordot(weights, answers, 1)


def _solved(row: np.ndarray, columns: Tensor, wanted: Tensor, scale: Tensor, ridge: float, total: float) -> np.ndarray:
    """Least squares of Σ c_j·columns_j = wanted near `row`, images weighted by `scale`; the row sums to `total`."""
    count = len(columns)
    out = row.copy()
    if count:
        flat = (columns.flatten(2) * scale.to(columns)[None, :, None]).flatten(1)
        normal = (flat @ columns.flatten(1).T).cpu().numpy()
        right = (flat @ wanted.flatten()).cpu().numpy()
        pull = ridge * np.trace(normal) / count
        out[:count] = np.linalg.solve(normal + pull * np.eye(count), right + pull * row[:count])
    out[count] = total - out[:count].sum()
    return out


def _valid(table: Table, step: np.ndarray, process: Process) -> np.ndarray:
    """The levels after a step, inside the trained range and apart: the step is shortened until they are."""
    low, high = np.log(process.ratio_min) + (CLOSEST if table.end else 0.0), np.log(process.ratio_max)
    for share in 0.5 ** np.arange(12):
        logs = np.clip(table.logs + share * step, low, high)
        if (np.diff(logs) < -CLOSEST).all():
            return logs
    return table.logs


def distinct(tables: list[np.ndarray], apart: float = 0.02) -> Iterator[int]:
    """The numbers of those level sets that lie apart from all before them."""
    kept: list[np.ndarray] = []
    for k, logs in enumerate(tables):
        if all(np.abs(logs - other).max() > apart for other in kept):
            kept.append(logs)
            yield k
