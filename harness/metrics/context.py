"""What metrics need to know of the cell and the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from harness.data.base import Data
    from harness.models.mixture import Mixture

Once = Callable[[tuple, Callable[[], Any]], Any]


def memory() -> Once:
    """A worker's memory: `once(key, make)` makes a thing the first time and hands it out again later."""
    kept: dict[tuple, Any] = {}

    def once(key: tuple, make: Callable[[], Any]) -> Any:
        if key not in kept:
            kept[key] = make()
        return kept[key]

    return once


@dataclass
class Context:
    """Given to every metric of a cell. One `once` for all cells of a worker: it keeps the networks."""

    data: Data
    cache_dir: Path  # reference statistics are kept here, named by content
    task: str = "txt2img"
    device: str = "cpu"
    model_is_embedded: bool = True
    reference_count: int = 2048  # reference images of FID, KID, precision and recall
    seed: int = 0  # seeds the bootstrap
    stochastic: bool = False  # whether the sampler adds noise on the way: then there is no discretisation error
    reference_latents: Callable[[list[int]], torch.Tensor] | None = None  # of a run of many steps from the same noise
    reference_name: str | None = None  # what the record calls that run
    makes_images: bool = True  # False: points of an analytic model, which no metric of images can see
    exact_latents: Callable[[list[int]], torch.Tensor] | None = None  # the exact solution, where the model knows it
    exact_floor: Callable[[list[int]], torch.Tensor] | None = None  # where a run ends whose last step alone errs
    exact_name: str | None = None  # how that was solved
    law: Mixture | None = None  # the true law of final latents, by class, where the model knows it
    once: Once = field(default_factory=memory)
