"""The networks of a model from their files: every weight from there, or an InputError. Imports torch while it loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InputError, one_line
from harness.models import pickles
from harness.models.files import safetensors_shapes
from harness.models.locate import Place, Spec, vae_place, vae_variant
from harness.models.parts import listed

if TYPE_CHECKING:
    import torch

    from harness.models.latent import Parts

MOST_QUOTED = 250  # letters of a library's error


def load_parts(spec: Spec, found: Place, dtype: torch.dtype, vae_dtype: torch.dtype, device: str) -> Parts:
    """UNet, VAE, text encoder and tokenizer on `device`. InputError where their files do not make them whole."""
    import torch
    from transformers import CLIPTokenizer

    from harness.models.latent import Parts

    with quiet(), pickles.weights_only():
        if found.file:
            unet, text_encoder = _of_single_file(found, dtype)
            vae = _vae(spec, vae_dtype) if spec.get("vae") else _vae_of_single_file(found, vae_dtype)
        else:
            unet, text_encoder = _of_folder(spec, found, dtype)
            vae = _vae(spec, vae_dtype)
        with naming("tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(found.folder, subfolder="tokenizer", local_files_only=True)
    # channels_last: convolutions take it faster (figures in latent.py).
    fast = torch.channels_last
    return Parts(
        unet=unet.to(device).to(memory_format=fast),
        vae=vae.to(device).to(memory_format=fast),
        text_encoder=text_encoder.to(device),
        tokenizer=tokenizer,
    )


def _how(spec: Spec, variant: str | None) -> dict[str, Any]:
    """How diffusers and transformers read a folder: what does not fit is listed, and no error of many lines."""
    return {
        "variant": variant,
        "local_files_only": True,
        "use_safetensors": None if spec.get("allow_pickle") else True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # whole refuses them
    }


def _of_folder(spec: Spec, found: Place, dtype: torch.dtype) -> tuple[Any, Any]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    own, subfolder = _how(spec, spec.get("variant")), spec.get("unet") or "unet"
    with naming(subfolder):
        loaded = UNet2DConditionModel.from_pretrained(found.folder, subfolder=subfolder, torch_dtype=dtype, **own)
        unet = whole(loaded, subfolder)
    with naming("text_encoder"):
        loaded = CLIPTextModel.from_pretrained(found.folder, subfolder="text_encoder", dtype=dtype, **own)
        return unet, whole(loaded, "text_encoder")


def _vae(spec: Spec, dtype: torch.dtype) -> Any:
    """The model's own VAE or the one that `model.vae` names."""
    from diffusers import AutoencoderKL

    where, subfolder = vae_place(spec, weights=True)
    variant = vae_variant(where / (subfolder or "")) if spec.get("vae") else spec.get("variant")
    with naming("vae"):
        own = _how(spec, variant)
        return whole(AutoencoderKL.from_pretrained(where, subfolder=subfolder, torch_dtype=dtype, **own), "vae")


def whole(loaded: Any, part: str) -> Any:
    """The network, if its files held every weight: a missing one would be left at random values."""
    network, info = loaded
    missing = sorted(info["missing_keys"])
    other = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get("mismatched_keys", []))
    if missing or other:
        raise _misfit(part, missing, other)
    return network


def _misfit(part: str, missing: list[str], other: list[str]) -> InputError:
    said = [f"{len(missing)} tensors are missing: {listed(missing)}"] if missing else []
    said += [f"{len(other)} are of another shape: {listed(other)}"] if other else []
    return InputError(
        f"the weights of {part} do not fit its config.json: {'; '.join(said)}. Fetch the model again, or the right "
        "model.variant"
    )


def _of_single_file(found: Place, dtype: torch.dtype) -> tuple[Any, Any]:
    """UNet and text encoder of an original checkpoint; the VAE, which may come from elsewhere, is apart."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    assert found.file is not None
    with naming(str(found.file)), comparing(found.folder, found.file, "unet", UNet2DConditionModel):
        pipe = StableDiffusionPipeline.from_single_file(
            str(found.file),
            config=str(found.folder),
            torch_dtype=dtype,
            local_files_only=True,
            safety_checker=None,
            vae=None,
        )
    return pipe.unet, filled(pipe.text_encoder, found.file, "text_encoder")


def filled(network: Any, file: Path, part: str) -> Any:
    """The network, if the file held every weight: what it lacks has a shape and no values. Else InputError."""
    missing = [name for name, value in network.state_dict().items() if value.is_meta]
    if missing:
        raise _misfit(f"the {part} in {file.name}", missing, [])
    return network


def _vae_of_single_file(found: Place, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL

    assert found.file is not None
    with naming(f"the VAE of {found.file}"), comparing(found.folder, found.file, "vae", AutoencoderKL):
        return AutoencoderKL.from_single_file(
            str(found.file), config=str(found.folder), subfolder="vae", torch_dtype=dtype, local_files_only=True
        )


@contextmanager
def comparing(folder: Path, file: Path, part: str, kind: Any) -> Iterator[None]:
    """If diffusers fails on a single file, name the tensors of a network that it lacks or has in other shapes.

    diffusers itself always says "Cannot copy out of meta tensor". Tensors are named as in its folders.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        try:
            wanted, given = _shapes_of_single_file(folder, file, part, kind)
        except Exception:  # what cannot be compared is told in the words of diffusers
            raise error from None
        missing = sorted(wanted.keys() - given.keys())
        other = sorted(name for name, shape in wanted.items() if given.get(name, shape) != shape)
        if missing or other:
            raise _misfit(f"the {part} in {file.name}", missing, other) from error
        raise


def _shapes_of_single_file(folder: Path, file: Path, part: str, kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name -> shape of the tensors that the part's config.json asks for, and of those that the file gives."""
    import torch
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert = SINGLE_FILE_LOADABLE_CLASSES[kind.__name__]["checkpoint_mapping_fn"]
    with torch.device("meta"):  # shapes without values
        wanted = kind.from_config(kind.load_config(folder, subfolder=part))
        held = {name: torch.empty(shape) for name, shape in safetensors_shapes(file).items()}
    if wanted.state_dict().keys() != held.keys():  # else it is in the names of diffusers already
        held = convert(held, config=dict(wanted.config))
    shapes = [{name: tuple(v.shape) for name, v in values.items()} for values in (wanted.state_dict(), held)]
    return shapes[0], shapes[1]


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Whatever a library says of files that it cannot read, in one line that names the part."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise InputError(f"{part} cannot be loaded: {one_line(error)[:MOST_QUOTED]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and hints of the libraries while weights load: the sweep shows its own, errors still raise."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [library.get_verbosity() for library in (of_diffusers, of_transformers)]
    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip((of_diffusers, of_transformers), before, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()
