"""Our samplers in ComfyUI's menus. As `custom_nodes/plan_samplers/__init__.py`, with this project on the Python path:

    from samplers.hosts.comfyui import NODE_CLASS_MAPPINGS, register
    register()

Every sampler that has a plan then stands in KSampler's list as `plan_NAME`; ComfyUI looks it up by that name among its
k-diffusion functions. On flow models the state is seen as what it is there, x = (1 − σ)·x0 + σ·ε.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from samplers import registry
from samplers.hosts.k_diffusion import sample

NODE_CLASS_MAPPINGS: dict[str, Any] = {}  # ComfyUI wants one of every custom node; this one only adds to menus


def register(prefix: str = "plan_") -> list[str]:
    """Add the samplers to ComfyUI's; the names they have there. Registering twice changes nothing."""
    import comfy.k_diffusion.sampling  # pyright: ignore[reportMissingImports] - there inside ComfyUI alone
    import comfy.samplers  # pyright: ignore[reportMissingImports]

    menus = [comfy.samplers.KSampler.SAMPLERS]
    for menu in (getattr(comfy.samplers, name, None) for name in ("SAMPLER_NAMES", "KSAMPLER_NAMES")):
        if isinstance(menu, list) and not any(menu is known for known in menus):
            menus.append(menu)
    made = []
    for sampler in registry.names():
        if registry.is_adaptive(sampler) or registry.has_own_levels(sampler):
            continue
        name = prefix + sampler
        setattr(comfy.k_diffusion.sampling, f"sample_{name}", _function(sampler))
        for menu in menus:
            if name not in menu:
                menu.append(name)
        made.append(name)
    return made


def is_flow(model: Any) -> bool:
    """Whether the model, however it is wrapped, has the state of a rectified flow."""
    import comfy.model_sampling  # pyright: ignore[reportMissingImports]

    while model is not None:
        sampling = getattr(model, "model_sampling", None)
        if sampling is not None:
            return isinstance(sampling, comfy.model_sampling.CONST)
        model = getattr(model, "inner_model", None)
    raise ValueError("this model does not say how its state is scaled (it has no model_sampling): it cannot be sampled")


def _function(sampler: str) -> Callable[..., Any]:
    def sampled(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
        flow = is_flow(model)
        return sample(model, x, sigmas, extra_args, callback, disable, sampler=sampler, flow=flow, **options)

    return functools.update_wrapper(sampled, sample, assigned=("__doc__",), updated=())
