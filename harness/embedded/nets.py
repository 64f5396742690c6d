"""The architectures of the embedded model: every size in one place, shared by training, export and tests."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from harness.embedded import flaws, world

CONTEXT = 24  # tokens, padding included; the longest caption of the world has 21
TEXT_WIDTH = 128
TRAIN_TIMESTEPS = 1000


def tokenizer():
    """A CLIPTokenizer whose byte-pair merges make one token of each word of the world; other words spell out.

    Built by rule, not by a trainer: trained weights are worth nothing under another numbering.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = (*world.SHAPES, *world.COLOURS, *world.MATERIALS, *world.SIZES, *world.GROUNDS, *world.LIGHTS)
    names += (*world.POSITIONS, *world.RELATIONS, "a", "on", "lit", ",")
    words = sorted({word for name in names for word in name.split()})
    merges: list[tuple[str, str]] = []
    for word in words:
        # What earlier merges leave of the word is joined from the left. Later merges rank lower: they cannot undo it.
        parts = _spelt(word, merges)
        for k in range(1, len(parts)):
            merges.append(("".join(parts[:k]), parts[k]))
    joined = [first + second for first, second in merges]
    # Last on purpose: both CLIP implementations find the end of the text as the largest token id.
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, model_max_length=CONTEXT)


def _spelt(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of a word of plain letters: the earliest merge that fits, until none does."""
    parts = [*word[:-1], word[-1] + "</w>"]
    for first, second in merges:
        k = 0
        while k < len(parts) - 1:
            if (parts[k], parts[k + 1]) == (first, second):
                parts[k : k + 2] = [first + second]
            k += 1
    return parts


def vae():
    """AutoencoderKL, 64x64 RGB in [-1, 1] to 4x16x16 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=world.IMAGE_SIZE,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
    )


def text_encoder(vocabulary: int):
    """CLIPTextModel that conditions the UNet (trained with it, never shown to a metric)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def unet(in_channels: int = 4):
    """UNet2DConditionModel; 4 channels for generation, 9 for inpainting (latents, mask, masked latents)."""
    from diffusers import UNet2DConditionModel

    # Attention only at 8x8: at 16x16 it doubles the cost of a step and the relations are learnt without it.
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(56, 112),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def training_noise():
    """The forward process of Stable Diffusion 1.x."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def open_clip_config(vocabulary: int) -> dict:
    """The `open_clip_config.json` of the image-text model that scores; open_clip loads it as `local-dir:`."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": world.IMAGE_SIZE, "layers": 4, "width": 96, "head_width": 24, "patch_size": 8},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary,
                "width": 96,
                "heads": 4,
                "layers": 3,
                # open_clip reads the tokenizer from the folder itself; the name only says that there is one.
                "hf_tokenizer_name": "tokenizer-in-this-folder",
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def save_open_clip(model: nn.Module, folder: Path, vocabulary: int, tok) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config(vocabulary), indent=2) + "\n")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    tok.save_pretrained(folder)


# What the attribute heads name, and how many names each has. Two objects are ordered by place (left or upper first),
# so that a caption and its mirror image ("A left of B", "B right of A") mean the same answer.
HEADS = {
    "objects": 2,
    "ground": len(world.GROUNDS),
    "light": len(world.LIGHTS),
    "position": len(world.POSITIONS),
    "axis": 2,
    "shape_0": len(world.SHAPES),
    "colour_0": len(world.COLOURS),
    "material_0": len(world.MATERIALS),
    "size_0": len(world.SIZES),
    "shape_1": len(world.SHAPES),
    "colour_1": len(world.COLOURS),
    "material_1": len(world.MATERIALS),
    "size_1": len(world.SIZES),
}

# What the extractor names. Trained beside the others, the heads of materials stay at chance. Trained before them they
# learn (99 % of drawings, 91 % of decoded ones), and those of colours stay at chance: this trunk has not had both yet.
SEEN = {name: names for name, names in HEADS.items() if not name.startswith("material")}


def answers(scenes: world.Scenes) -> dict[str, torch.Tensor]:
    """The right class of every head for each scene, (N,) int64, and -1 where the head has no meaning."""
    import numpy as np

    two = scenes.objects == 2
    swap = two & ((scenes.relation == 1) | (scenes.relation == 3))  # "right of", "below": object 1 comes first
    first = np.where(swap, 1, 0)
    rows = np.arange(len(scenes))
    out = {
        "objects": scenes.objects - 1,
        "ground": scenes.ground,
        "light": scenes.light,
        "position": np.where(two, -1, scenes.position),
        "axis": np.where(two, scenes.relation // 2, -1),
    }
    for name in ("shape", "colour", "material", "size"):
        codes = getattr(scenes, name)
        out[f"{name}_0"] = codes[rows, first]
        out[f"{name}_1"] = np.where(two, codes[rows, 1 - first], -1)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in out.items()}


class Extractor(nn.Module):
    """Feature extractor of the embedded FID, and attribute classifier: uint8 RGB (N, 3, 64, 64) to (N, 96).

    Trained on drawings alone: it never sees the VAE, the UNet or their text encoder. A thumbnail head beside the
    attribute heads keeps edges, shades and places in the features, which names alone would let go of; a head that
    tells which flaw an image has, and how much of it, keeps in the pooled features what a sampler spoils.
    """

    DIM = 96
    THUMB = 16
    TRAINING_ONLY = ("thumb", "flaws")  # heads that are not shipped

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 64, 96), []
        for a, b in pairwise(widths):
            layers += [
                nn.Conv2d(a, b, 3, padding=1),
                nn.GroupNorm(8, b),
                nn.SiLU(),
                nn.Conv2d(b, b, 4, stride=2, padding=1),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.squeeze = nn.Linear(96 * 4 * 4, self.DIM)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.SiLU(), nn.Linear(self.DIM, 96), nn.SiLU(), nn.Linear(96, n))
                for name, n in SEEN.items()
            }
        )
        self.thumb = self._head(256, 3 * self.THUMB**2)
        self.flaws = nn.Sequential(nn.Linear(self.DIM, 64), nn.SiLU(), nn.Linear(64, len(flaws.FLAWS)))

    def _head(self, width: int, out: int) -> nn.Module:
        return nn.Sequential(nn.SiLU(), nn.Linear(self.DIM, width), nn.SiLU(), nn.Linear(width, out))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.squeeze(self.places(images).flatten(1))

    def places(self, images: torch.Tensor) -> torch.Tensor:
        """Features of every place, (N, 96, 4, 4); their mean over places is what FID is taken of."""
        return self.trunk(images.float() / 127.5 - 1.0)

    def attributes(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every head, each (N, classes)."""
        return {name: head(features) for name, head in self.heads.items()}
