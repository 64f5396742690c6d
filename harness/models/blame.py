"""Which part of a model first gave NaN or infinity: a run that ended so is run once more, with every part watched.

Nothing is looked at in a run that ends well: a look at a tensor waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.base import Model


class _Found(Exception):
    """Ends the second run where the first value is not finite."""


def first_to_fail(model: Model, run: Callable[[], object]) -> str | None:
    """One line on the part that first gives NaN or infinity in `run`, and why where that can be seen; None: no part."""
    calls: dict[str, int] = {}

    def watch(part: str, network: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, named: Any, made: Any) -> None:
            calls[part] = calls.get(part, 0) + 1
            if not _finite(given) or not _finite(named):
                raise _Found(
                    f"model {model.name}: the sampler, and no network, first gave NaN or infinity: what the {part} was "
                    f"given at its call {calls[part]} is not finite"
                )
            if not _finite(made):
                raise _Found(f"model {model.name}: the {part} first gave NaN or infinity{_why(part, network)}")

        return hook

    hooks = [
        network.called.register_forward_hook(watch(network.name, network.module), with_kwargs=True)
        for network in model.networks
    ]
    try:
        run()
    except _Found as found:
        return str(found)
    except FloatingPointError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _finite(values: Any) -> bool:
    """Whether every number in a tensor, or in the tensors of a tuple, list, mapping or output, is finite."""
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool(values.isfinite().all())
    if isinstance(values, dict):
        return all(_finite(value) for value in values.values())
    return not isinstance(values, (tuple, list)) or all(_finite(value) for value in values)


def _why(part: str, network: nn.Module) -> str:
    """Its weights are at fault, or else the range of its numbers."""
    spoilt = [name for name, value in network.state_dict().items() if not _finite(value)]
    if spoilt:
        return f": {len(spoilt)} of its tensors hold such values, {spoilt[0]} first; fetch its weights again"
    dtype = next(network.parameters()).dtype
    if dtype != torch.float16:
        return f" in {dtype}, from finite weights"
    do = "model.vae_precision=fp32" if part.startswith("vae") else "precision=bf16 or precision=fp32"
    return f" in {dtype}, whose range ends at 65504: set {do}"
