"""A pipeline of diffusers from its folder: every part by a class of the two libraries, every weight from its files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models import pickles
from harness.models.base import Spec
from harness.models.networks import comparing, filled, naming, quiet, whole
from harness.models.pipeline_files import NORMALIZER, UNUSED, Facts

if TYPE_CHECKING:
    import torch


def load_pipeline(spec: Spec, folder: Path, known: Facts, dtype: torch.dtype, device: str) -> Any:
    """The pipeline on `device` in `dtype`, without what judges or marks its images, and in evaluation mode."""
    import diffusers
    import torch

    kind = getattr(diffusers, known.index["_class_name"])
    takes = inspect.signature(kind.__init__).parameters
    with quiet(), pickles.weights_only():
        single = _read(known.file) if known.file else {}
        given = {
            name: _part(spec, folder, known, name, entry, dtype, single)
            for name, entry in known.index.items()
            if name in takes
        }
        given.update({name: None for name in takes if name not in given and name in ("safety_checker",)})
        if "add_watermarker" in takes:
            given["add_watermarker"] = False
        if "requires_safety_checker" in takes:
            given["requires_safety_checker"] = False
        with naming(kind.__name__):
            pipe = kind(**given)
        pipe.set_progress_bar_config(disable=True)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        return pipe.to(device)


def _read(file: Path) -> dict[str, Any]:
    """The tensors of a single file by their names."""
    from safetensors.torch import load_file

    with naming(str(file)):
        return load_file(file)


def _part(
    spec: Spec, folder: Path, known: Facts, name: str, entry: Any, dtype: torch.dtype, single: Mapping[str, Any]
) -> Any:
    """One part, or the plain setting that the index has by this name."""
    if not isinstance(entry, list) or len(entry) != 2:
        return entry
    if entry[0] is None or name in UNUSED:
        return None
    kind, networks, how = _class(name, *entry)
    with naming(name):
        if not issubclass(kind, networks):
            return kind.from_pretrained(folder / name, local_files_only=True)
        if name in known.held:
            return _of_single_file(known, folder, name, kind, dtype, single)
        if spec.get("gguf") and name == known.family.network:
            return _of_gguf(spec, folder / name, kind, dtype)
        own = {
            how: dtype,
            "variant": spec.get("variant"),
            "local_files_only": True,
            "use_safetensors": True,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # `whole` refuses them
        }
        return whole(kind.from_pretrained(folder / name, **own), name)


def _of_single_file(
    known: Facts, folder: Path, name: str, kind: Any, dtype: torch.dtype, single: Mapping[str, Any]
) -> Any:
    """A network of the single file, every weight of it from there, made by the configuration in the folder."""
    from diffusers import pipelines
    from diffusers.loaders.single_file import load_single_file_sub_model

    assert known.file is not None
    how = {"torch_dtype": dtype, "local_files_only": True}
    tensors = dict(single)  # what is converted is taken out of it
    read = getattr(kind, "from_single_file", None)
    if read is not None:
        with comparing(folder, known.file, name, kind):
            made = read(tensors, config=str(folder), subfolder=name, **how)
    else:  # a text encoder, for which diffusers has no other function
        library, made_of = known.index[name]
        where = {"cached_model_config_path": str(folder), "pipelines": pipelines, "is_pipeline_module": False}
        made: Any = load_single_file_sub_model(library, made_of, name, tensors, **where, **how)
        made.tie_weights()  # files of T5 hold the one table that two of its layers share once
    return filled(made, known.file, name)


def _of_gguf(spec: Spec, folder: Path, kind: Any, dtype: torch.dtype) -> Any:
    """The network with quantized weights from a GGUF file, which are made whole at each product."""
    from diffusers import GGUFQuantizationConfig

    if not hasattr(kind, "from_single_file"):
        raise InputError(f"model.gguf: diffusers reads no single file of a {kind.__name__}")
    how = {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype), "torch_dtype": dtype}
    return kind.from_single_file(str(expanded(spec["gguf"])), config=str(folder), local_files_only=True, **how)


def _class(name: str, library: str, kind: str) -> tuple[type, type, str]:
    """The class of a part, what networks of its library are, and how they call the type of their weights."""
    import diffusers
    import transformers
    from transformers.feature_extraction_utils import FeatureExtractionMixin
    from transformers.image_processing_base import ImageProcessingMixin

    if [library, kind] == NORMALIZER:
        from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

        return StableUnCLIPImageNormalizer, diffusers.ModelMixin, "torch_dtype"
    if library == "diffusers":
        found, network, how = getattr(diffusers, kind, None), diffusers.ModelMixin, "torch_dtype"
        valid: tuple[type, ...] = (diffusers.ModelMixin, diffusers.SchedulerMixin)
    else:
        found, network, how = getattr(transformers, kind, None), transformers.PreTrainedModel, "dtype"
        valid = (
            transformers.PreTrainedModel,
            transformers.PreTrainedTokenizerBase,
            transformers.ProcessorMixin,
            FeatureExtractionMixin,
            ImageProcessingMixin,
        )
    if not isinstance(found, type) or not issubclass(found, valid):
        raise InputError(f"model_index.json: {name} is {library}.{kind}, which is no part that a pipeline is made of")
    return found, network, how
