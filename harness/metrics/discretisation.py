"""How far final latents are from those of a run of many steps from the same noise."""

from __future__ import annotations

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Batch, Metric
from harness.metrics.context import Context


class Discretisation(Metric):
    """‖z − z_ref‖ / ‖z_ref‖: root mean square over the first `n` images, and each image by itself."""

    name = "discretisation"
    columns = (*bootstrap.columns("discretisation_error"), "discretisation_reference")
    image_columns = ("discretisation_error",)

    @classmethod
    def applies(cls, context: Context) -> bool:
        """A stochastic sampler has no limit that it could be compared with."""
        return not context.stochastic and context.reference_latents is not None

    def update(self, batch: Batch) -> dict[str, np.ndarray]:
        first = [k for k, index in enumerate(batch.indices) if index < self.options["n"]]
        if not first or batch.latents is None:
            return {}
        indices = [int(batch.indices[k]) for k in first]
        reference = self.context.reference_latents(indices).double().cpu().flatten(1)
        got = batch.latents[first].double().cpu().flatten(1)
        if got.shape != reference.shape:
            raise ValueError(f"reference latents are {tuple(reference.shape)}, the cell's are {tuple(got.shape)}")
        # Squared error and squared norm: sums over images, so the state merges.
        rows = np.stack([((got - reference) ** 2).sum(1).numpy(), (reference**2).sum(1).numpy()], 1)
        self.samples.add(indices, rows)
        out = np.full(len(batch.images), np.nan)
        out[first] = np.sqrt(np.divide(rows[:, 0], rows[:, 1], out=np.full(len(rows), np.nan), where=rows[:, 1] > 0))
        return {"discretisation_error": out}

    def compute(self) -> dict[str, float | str | bool | None]:
        if not len(self.samples):
            return dict.fromkeys(self.columns)
        rows = self.samples.sorted()[1]
        if not rows[:, 1].sum() > 0:  # a reference that is 0 everywhere has no relative distance
            return dict.fromkeys(self.columns)
        value = float(np.sqrt(rows[:, 0].sum() / rows[:, 1].sum()))
        # Derivative of the value in each image's weight: an interval of its mean is one of the value.
        share = rows / np.maximum(rows.mean(0), 1e-300)
        moved = value / 2 * (share[:, 0] - share[:, 1])
        low, high = bootstrap.around(value, moved, self.options["resamples"], self.context.seed)
        return {
            "discretisation_error": value,
            "discretisation_error_low": bootstrap.at_least_0(low),
            "discretisation_error_high": high,
            "discretisation_error_n": len(rows),
            "discretisation_reference": self.context.reference_name,
        }
