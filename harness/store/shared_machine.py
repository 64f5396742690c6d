"""What the workers of one machine share: joules of its processors, the price of its hours. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cost_per_1000(price_per_hour: float, images_per_s: float | None, workers: float = 1) -> float | None:
    """Price of 1,000 images of one worker, which pays its share of the machine; None where nothing was generated.

    >>> cost_per_1000(3.6, 2.0, workers=2)
    0.25
    """
    return None if not images_per_s else 1000 * price_per_hour / 3600 / images_per_s / workers


def of_shared_machine(row: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """The columns of a cell that ran beside others of so many workers: the processor's joules were theirs as well."""
    if workers < 2 or row.get("cpu_j_per_image") is None:
        return {}
    said = [part for part in row["energy_definition"].split("; ") if not part.startswith("cpu: ")]
    said.append(f"cpu: none, {workers} workers shared the processor")
    gpu = row["gpu_j_per_image"]
    return {"energy_j_per_image": gpu, "cpu_j_per_image": None, "energy_definition": "; ".join(said)}
