"""How far final states are from the exact solution of the same ODE from the same start: analytic models only."""

from __future__ import annotations

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Batch, Metric
from harness.metrics.context import Context


class Exact(Metric):
    """RMS of |x − x*| over RMS of |x*|, over the first `n` images; of each image the distance |x − x*| itself."""

    name = "exact"
    columns = (*bootstrap.columns("error_to_exact"), "error_to_exact_floor", "exact_definition")
    image_columns = ("exact_distance",)
    needs_images = False

    @classmethod
    def applies(cls, context: Context) -> bool:
        """What a stochastic sampler solves is another equation: its law is measured instead."""
        return not context.stochastic and context.exact_latents is not None

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        first = [k for k, index in enumerate(batch.indices) if index < self.options["n"]]
        if not first or batch.latents is None:
            return {}
        indices = [int(batch.indices[k]) for k in first]
        exact = self.context.exact_latents(indices).numpy()
        got = batch.latents[first].double().cpu().numpy()
        # Squared error and squared norm: sums over images, so the state merges.
        rows = np.stack([((got - exact) ** 2).sum(1), (exact**2).sum(1), self._floor(indices, exact)], 1)
        self.samples.add(indices, rows)
        out = np.full(len(batch.images), np.nan)
        out[first] = np.sqrt(rows[:, 0])
        return {"exact_distance": out}

    def _floor(self, indices: list[int], exact: np.ndarray) -> np.ndarray:
        """Squared error (N,) that the last step makes by itself; 0 where the levels do not end at a clean state."""
        if self.context.exact_floor is None:
            return np.zeros(len(indices))
        return ((self.context.exact_floor(indices).numpy() - exact) ** 2).sum(1)

    def compute(self) -> dict[str, float | str | bool | None]:
        if not len(self.samples):
            return dict.fromkeys(self.columns)
        rows = self.samples.sorted()[1]
        if not rows[:, 1].sum() > 0:  # a solution that is 0 everywhere has no relative distance
            return dict.fromkeys(self.columns)
        value = float(np.sqrt(rows[:, 0].sum() / rows[:, 1].sum()))
        # Derivative of the value in each image's weight: an interval of its mean is one of the value.
        moved = value / 2 * (rows[:, 0] / (rows[:, 0].mean() or 1.0) - rows[:, 1] / rows[:, 1].mean())
        low, high = bootstrap.around(value, moved, self.options["resamples"], self.context.seed)
        return {
            "error_to_exact": value,
            "error_to_exact_low": bootstrap.at_least_0(low),
            "error_to_exact_high": high,
            "error_to_exact_n": len(rows),
            "error_to_exact_floor": float(np.sqrt(rows[:, 2].sum() / rows[:, 1].sum())) or None,
            "exact_definition": self.context.exact_name,
        }
