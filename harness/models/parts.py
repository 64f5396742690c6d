"""Are the parts of a model there, whole, and made for each other? Read from files alone, before anything is loaded.

Each check raises an InputError that names the file, what is wrong with it and what to do. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import InputError
from harness.models import pickles
from harness.models.files import check_is_weights, read_json, safetensors_shapes

Config = Mapping[str, Any]
Shapes = dict[str, list[int]]

STEMS = {"text_encoder": "model"}  # what the files of weights are called; others:
STEM = "diffusion_pytorch_model"
MOST_NAMED = 3  # files or tensors that a message lists
PADDED_TO = (8, 16, 32, 64, 128)  # an embedding may have more rows than there are tokens: the next multiple of these
# What the original checkpoints of Stable Diffusion call their parts.
UNET, EMA, VAE, TEXT = "model.diffusion_model.", "model_ema.", "first_stage_model.", "cond_stage_model."


class Size(NamedTuple):
    """A side of a tensor that the configuration gives as well."""

    tensor: str  # end of its name
    axis: int
    key: str  # of config.json
    default: int | None  # where config.json lacks the key; None: nothing is said then
    needed: bool = True  # whether every network has such a tensor


SIZES = {
    "unet": (
        Size("conv_in.weight", 1, "in_channels", 4),
        Size("conv_out.weight", 0, "out_channels", 4),
        Size("attn2.to_k.weight", 1, "cross_attention_dim", 1280, needed=False),
    ),
    "vae": (
        Size("decoder.conv_in.weight", 1, "latent_channels", 4),
        Size("encoder.conv_in.weight", 1, "in_channels", 3),
    ),
    "text_encoder": (
        Size("embeddings.token_embedding.weight", 0, "vocab_size", None),
        Size("embeddings.token_embedding.weight", 1, "hidden_size", None),
        Size("embeddings.position_embedding.weight", 0, "max_position_embeddings", None),
    ),
}


def listed(names: list[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(name[-100:] for name in names[:MOST_NAMED]) + more


# ------------------------------------------------------------------------------------------------------ the weights


def check_network(
    model: str, kind: str, folder: Path, variant: str | None, pickled: bool = False, fetched: bool = True
) -> None:
    """The weights of a UNet, VAE or text encoder (`kind`): there, whole and of the sizes in their config.json.

    `pickled`: whether files that are not safetensors may be read. `fetched`: False where the hub may yet be asked for
    files that are not there.
    """
    stem = STEMS.get(kind, STEM)
    if fetched:
        _check_there(model, folder, stem, variant, pickled)
    shapes: Shapes = {}
    plain = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
    if plain.exists():
        shapes |= safetensors_shapes(plain)
    index = folder / (f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json")
    if index.exists():
        shapes |= _shards(index, fetched)
    if shapes:
        _check_sizes(kind, folder, shapes)
    elif pickled:
        for file in folder.glob(f"{stem}*"):
            if file.suffix in pickles.PICKLED:
                check_is_weights(file)


def _check_there(model: str, folder: Path, stem: str, variant: str | None, pickled: bool) -> None:
    there = sorted(p.name for p in folder.iterdir() if p.name.startswith(stem) and "index" not in p.name)
    fitting = [n for n in there if variant_of(n, stem) == variant and (n.endswith(".safetensors") or pickled)]
    if fitting:
        return _check_index(folder, stem, variant, fitting)
    kinds = sorted({variant_of(n, stem) or "none" for n in there if n.endswith(".safetensors")})
    say = f"there are: {listed(there)}" if there else "there are no weights at all"
    if any(k != (variant or "none") for k in kinds):
        do = f"say model.variant={'null' if kinds[0] == 'none' else kinds[0]}"
    elif there:
        do = "convert them to safetensors, or say model.allow_pickle=true if you trust their author"
    else:
        do = "give another folder"
    wanted = f"variant {variant}" if variant else "weights without a variant"
    raise InputError(f"model {model}: {folder} has no {wanted} in safetensors ({say}): {do}")


def _check_index(folder: Path, stem: str, variant: str | None, fitting: list[str]) -> None:
    """Weights in several files are found through an index alone."""
    shards = [name for name in fitting if re.search(r"-\d+-of-\d+\.safetensors$", name)]
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    if shards and len(shards) == len(fitting) and not (folder / index).exists():
        raise InputError(f"{folder} has weights in several files ({listed(shards)}) and not their {index}: fetch it")


def variant_of(file: str, stem: str) -> str | None:
    """`fp16` of `model.fp16.safetensors` and `model.fp16-00001-of-00002.safetensors`; None of `model.safetensors`."""
    middle = file[len(stem) :].rsplit(".", 1)[0]
    match = re.fullmatch(r"\.([A-Za-z]\w*)(-\d+-of-\d+)?", middle)
    return match.group(1) if match else None


def _shards(index: Path, fetched: bool) -> Shapes:
    """Shapes of all tensors in the files that an index names, each of which must hold what the index says."""
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise InputError(f"{index} names no files: it has no weight_map")
    names = sorted({str(file) for file in where.values()})
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing and fetched:
        raise InputError(
            f"{index.parent} lacks {len(missing)} of the {len(names)} files that {index.name} names: "
            f"{listed(missing)}; fetch the model again"
        )
    safe = [name for name in names if name.endswith(".safetensors") and name not in missing]
    shapes = {name: safetensors_shapes(index.parent / name) for name in safe}
    absent = [tensor for tensor, file in where.items() if file in shapes and tensor not in shapes[file]]
    if absent:
        raise InputError(f"{index} names {len(absent)} tensors that its files lack: {listed(absent)}; fetch them again")
    if missing:
        return {}
    return {tensor: shape for held in shapes.values() for tensor, shape in held.items()}


def _check_sizes(kind: str, folder: Path, shapes: Shapes) -> None:
    """The sides that config.json gives are those of the weights."""
    config = read_json(folder / "config.json")
    for tensor, axis, key, default, needed in SIZES[kind]:
        found = next((name for name in shapes if name == tensor or name.endswith(f".{tensor}")), None)
        if found is None and needed:
            raise InputError(
                f"the weights in {folder} lack {tensor}, without which there is no {kind}: fetch them again"
            )
        told = config.get(key, default)
        if found is None or not isinstance(told, int):  # a list has a width for each block
            continue
        if axis >= len(shapes[found]) or shapes[found][axis] != told:
            raise InputError(
                f"the weights in {folder} do not fit its config.json: {found} is of shape {shapes[found]}, where "
                f"{key}={told}; take both from one model"
            )


# -------------------------------------------------------------------------------------------------- the single file


def check_single_file(path: Path, shapes: Shapes, other_vae: bool) -> None:
    """A checkpoint under the original names holds a UNet, a text encoder and, unless another is given, a VAE."""

    def holds(prefix: str) -> int:
        return sum(name.startswith(prefix) for name in shapes)

    if not holds(UNET) and holds(EMA):
        raise InputError(
            f"model.path={path} holds the UNet's averaged weights alone ({holds(EMA)} tensors {EMA}*), whose names are "
            f"not whole: write them as {UNET}* with the training code that made them, or take a checkpoint with both"
        )
    if not holds(UNET):
        raise InputError(
            f"model.path={path} is not a checkpoint of Stable Diffusion 1.x or 2.x: no UNet ({UNET}*) is among its "
            f"{len(shapes)} tensors ({listed(sorted(shapes)) or 'none'}); files of other models are for model=pipeline"
        )
    if not holds(TEXT):
        raise InputError(
            f"model.path={path} holds no text encoder ({TEXT}*): take a checkpoint with one, or the folder of a "
            "diffusers pipeline; files of other models (SDXL, Stable Diffusion 3, FLUX) are for model=pipeline"
        )
    if not holds(VAE) and not other_vae:
        raise InputError(
            f"model.path={path} holds no VAE ({VAE}*): give one, model.vae=FOLDER_OR_HUB_ID, for instance that of the "
            "pipeline it was trained from"
        )


def check_single_unet(path: Path, shapes: Shapes, unet: Config) -> None:
    """The UNet of a single file is of the sizes in the configuration that goes with it."""
    first = f"{UNET}input_blocks.0.0.weight"
    if first not in shapes:
        raise InputError(f"model.path={path} lacks {first}, the first layer of its UNet: fetch it again")
    text = [name for name in shapes if name.startswith(UNET) and name.endswith("attn2.to_k.weight")][:1]
    for tensor, key, default in ((first, "in_channels", 4), *((name, "cross_attention_dim", 1280) for name in text)):
        told = unet.get(key, default)
        if isinstance(told, int) and (len(shapes[tensor]) < 2 or shapes[tensor][1] != told):
            raise InputError(
                f"model.path={path} does not fit its configuration: {tensor} is of shape {shapes[tensor]}, where "
                f"unet/config.json has {key}={told}; give another model.config"
            )


# ------------------------------------------------------------------------------------------------ text and what fits


def check_together(folder: Path, unet_folder: str, unet: Config, vae: Config, text: Config) -> None:
    """UNet, VAE and text encoder are of the kinds that a Stable Diffusion is made of, and of sizes that fit."""
    if vae.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise InputError(f"the VAE of {folder} is a {vae['_class_name']}; an AutoencoderKL is needed: give model.vae")
    kind = text.get("model_type", "clip_text_model")
    if kind not in ("clip_text_model", "clip"):
        raise InputError(f"{folder / 'text_encoder'} is a {kind!r}; a clip_text_model (CLIPTextModel) is needed")
    latents = vae.get("latent_channels", 4)
    if unet.get("out_channels", 4) != latents:
        raise InputError(
            f"{folder / unet_folder} predicts {unet.get('out_channels', 4)} channels and the VAE has {latents} "
            "latent ones: take both from one model"
        )
    width, wanted = text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)
    if isinstance(wanted, int) and width != wanted and not unet.get("encoder_hid_dim"):
        raise InputError(
            f"{folder / 'text_encoder'} makes text of width {width} (hidden_size) and {folder / unet_folder} reads "
            f"text of width {wanted} (cross_attention_dim): take both from one model"
        )


def check_tokenizer(folder: Path, text: Config) -> None:
    """A CLIP tokenizer is there with its vocabulary, whose size is that of the text encoder."""
    whole, pair = folder / "tokenizer.json", [folder / name for name in ("vocab.json", "merges.txt")]
    if not whole.is_file() and not all(file.is_file() for file in pair):
        lacking = " and ".join(file.name for file in pair if not file.is_file())
        raise InputError(
            f"{folder} has no vocabulary: {lacking} missing (a tokenizer needs vocab.json and merges.txt, or "
            "tokenizer.json); fetch the model again"
        )
    tokens = _tokens_of_one(whole) if whole.is_file() else _tokens_of_pair(*pair)
    ids = [*tokens.values(), *_added(folder)]
    if not all(isinstance(number, int) for number in ids):
        raise InputError(f"the vocabulary in {folder} is damaged: a token's number is not an integer")
    size, rows = max(ids) + 1, text.get("vocab_size", 49408)
    if rows != size and rows not in {-(-size // padded) * padded for padded in PADDED_TO}:
        raise InputError(
            f"{folder} knows {size} tokens and the text encoder beside it {rows} (vocab_size): they are not of one "
            "model, fetch both again"
        )


def _tokens_of_one(file: Path) -> dict[str, Any]:
    model = read_json(file).get("model")
    model = model if isinstance(model, dict) else {}
    if model.get("type", "BPE") != "BPE":
        raise InputError(f"{file} is a tokenizer of kind {model['type']!r}; that of CLIP (BPE) is needed")
    tokens = model.get("vocab")
    if not isinstance(tokens, dict) or not tokens or not model.get("merges"):
        raise InputError(f"{file} holds no vocabulary (model.vocab and model.merges): fetch the model again")
    return tokens


def _tokens_of_pair(vocabulary: Path, merges: Path) -> dict[str, Any]:
    tokens = read_json(vocabulary)
    if not tokens:
        raise InputError(f"{vocabulary} is empty: fetch the model again")
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{merges} is not readable: {error}") from error
    if not any(len(line.split()) == 2 and not line.startswith("#version") for line in lines):
        raise InputError(f"{merges} holds no merges (two parts of a word a line): fetch the model again")
    return tokens


def _added(folder: Path) -> list[int]:
    """Numbers of the tokens that were added to a vocabulary, of textual inversions for instance."""
    numbers: list[Any] = []
    if (folder / "added_tokens.json").is_file():
        numbers += read_json(folder / "added_tokens.json").values()
    if (folder / "tokenizer.json").is_file():
        added = read_json(folder / "tokenizer.json").get("added_tokens") or []
        numbers += [entry.get("id") for entry in added if isinstance(entry, dict)]
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder")
        numbers += [int(number) for number in decoder if number.isdigit()] if isinstance(decoder, dict) else []
    return numbers
