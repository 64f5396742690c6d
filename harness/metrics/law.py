"""How far the law of the final states is from the true one: analytic models without guidance, any sampler.

Mean, covariance and sliced 2-Wasserstein distance (Bonneel et al. 2015), each beside its floor: what a perfect sample
of the same size has on average. What starting from pure noise at a finite σ costs is in them, too.
"""

from __future__ import annotations

import hashlib

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Batch, Metric, Options
from harness.metrics.context import Context
from harness.models.mixture import Mixture

VALUES = ("law_mean_error", "law_covariance_error", "sliced_wasserstein")
INFLUENCES = ("law_mean_influence", "law_covariance_influence", "sliced_wasserstein_influence")
FLOORS = ("law_mean_floor", "law_covariance_floor", "sliced_wasserstein_floor")
MOST_COVARIED = 2048  # coordinates: above, no covariance is formed
GRID = 8192  # points at which a projected law's distribution function is known, at least 64 a mode
REACH = 9.0  # standard deviations that the grid reaches from each mode


class Law(Metric):
    name = "law"
    columns = (*bootstrap.columns(*VALUES), *FLOORS)
    needs_images = False

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.moved: dict[str, np.ndarray] = {}

    @classmethod
    def applies(cls, context: Context) -> bool:
        """Whether there is a reference: with guidance the samples follow no known distribution."""
        return context.law is not None

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        if batch.latents is not None:
            ids = self.context.law.class_ids(batch.prompts)
            self.samples.add(batch.indices, np.column_stack([ids, batch.latents.double().cpu().numpy()]))
        return {}

    def compute(self) -> dict[str, float | str | bool | None]:
        rows = self.samples.sorted()[1] if len(self.samples) else np.empty((0, 1))
        if len(rows) < 2:
            return dict.fromkeys(self.columns)
        ids, x = rows[:, 0].astype(np.int64), rows[:, 1:]
        distances = Distances(self.context.law.of_classes(ids), len(ids), self.options["directions"])
        out: dict[str, float | str | bool | None] = dict.fromkeys(self.columns)
        for name, (value, influence) in distances(x).items():
            self.moved[INFLUENCES[VALUES.index(name)]] = influence
            low, high = bootstrap.around(value, influence, self.options["resamples"], self.context.seed)
            bounds = {f"{name}_low": bootstrap.at_least_0(low), f"{name}_high": high}
            out |= {name: value, **bounds, f"{name}_n": len(x)}
        return out | self._floors(distances, ids)

    def image_values(self) -> dict[str, np.ndarray]:
        return self.moved

    def _floors(self, distances: Distances, ids: np.ndarray) -> dict[str, float]:
        """The same distances of perfect samples; the same for all cells of one law and size, so computed once."""
        law, draws = self.context.law, self.options["floor_draws"]
        digest = hashlib.sha256(ids.tobytes())
        for array in (law.means, law.variances, law.weights):
            digest.update(array.tobytes())

        def compute() -> dict[str, float]:
            rng = np.random.default_rng(self.context.seed)
            seen = [distances(law.sample(rng, ids)) for _ in range(draws)]
            return {
                floor: float(np.mean([one[name][0] for one in seen]))
                for name, floor in zip(VALUES, FLOORS, strict=True)
                if name in seen[0]
            }

        return self.context.once(("law floor", digest.hexdigest(), self.options["directions"], draws), compute)


class Distances:
    """Distances of samples of n points from one law; what depends on the law alone is computed once."""

    def __init__(self, law: Mixture, n: int, directions: int) -> None:
        self.mean = law.mean()
        self.scale = np.sqrt(((law.means - self.mean) ** 2 + law.variances).sum(1) @ law.weights)
        self.covariance = law.covariance() if law.dimension <= MOST_COVARIED else None
        axes = np.random.default_rng(0).standard_normal((law.dimension, directions))
        self.axes = axes / np.linalg.norm(axes, axis=0)
        shares = np.arange(1, 2 * n) / (2 * n)  # alternately the middle of a point's share of the law, and its end
        self.quantiles = np.stack([_quantiles(law, axis, shares) for axis in self.axes.T], 1)  # (2n − 1, directions)

    def __call__(self, x: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
        """Of each distance its value for the points x (n, d), and its derivative in each point's weight, (n,).

        The mean of the derivatives over resampled points moves as the distance does. Computing the distance of a
        resample instead would not do: it has fewer distinct points, so it lies farther from any smooth law.
        """
        found = {"law_mean_error": self._mean(x)}
        if self.covariance is not None:
            found["law_covariance_error"] = self._covariance(x)
        return {**found, "sliced_wasserstein": self._sliced(x)}

    def _mean(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        centre = x.mean(0)
        off = centre - self.mean
        size = np.linalg.norm(off)
        return float(size / self.scale), (x - centre) @ off / (size * self.scale or 1.0)

    def _covariance(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        n, centred = len(x), x - x.mean(0)
        off = centred.T @ centred / (n - 1) - self.covariance
        size, scale = np.linalg.norm(off), np.linalg.norm(self.covariance)
        moved = ((centred @ off) * centred).sum(1) * (n / (n - 1)) / (size * scale or 1.0)
        return float(size / scale), moved - moved.mean()

    def _sliced(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """√ of the mean over directions of Σ_i (x_(i) − Q((i − ½)/n))²/n; derivatives are Kantorovich's potentials."""
        projected = x @ self.axes
        order = np.argsort(projected, 0, kind="stable")
        points = np.take_along_axis(projected, order, 0)
        value = float(np.sqrt(((points - self.quantiles[::2]) ** 2).mean()))
        # Between two points a thread of mass goes to the quantile at the end of the lower one's share.
        rises = np.diff(points**2, axis=0) - 2 * self.quantiles[1::2] * np.diff(points, axis=0)
        potential = np.zeros_like(points)
        np.put_along_axis(potential, order[1:], np.cumsum(rises, 0), 0)
        potential = potential.mean(1)
        return value, (potential - potential.mean()) / (2 * value or 1.0)


def _quantiles(law: Mixture, axis: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Quantiles of the law's projection on a direction: a mixture in one dimension, inverted on a grid."""
    centres, widths = law.means @ axis, np.sqrt(law.variances @ axis**2)
    from scipy.special import ndtr  # not at the top: a sweep reads the names of metrics before it has work

    offsets = np.linspace(-REACH, REACH, max(64, GRID // len(centres)))
    grid = np.sort((centres[:, None] + widths[:, None] * offsets).ravel())
    below = sum(w * ndtr((grid - c) / s) for w, c, s in zip(law.weights, centres, widths, strict=True))
    return np.interp(shares, below, grid)
