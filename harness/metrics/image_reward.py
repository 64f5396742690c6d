"""ImageReward (2304.05977): a BLIP encoder of image and prompt with a head on top, trained on people's rankings.

The authors' package does not load beside transformers 5, so their weights are put into transformers' BLIP here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics import bootstrap
from harness.metrics.base import Options
from harness.metrics.features import own_weights
from harness.metrics.features.own_weights import ScoreMetric, Source

if TYPE_CHECKING:
    import torch

SOURCE = Source("zai-org/ImageReward", ("ImageReward.safetensors", "ImageReward.pt"), folder=False)
TOKENIZER = Source("google-bert/bert-base-uncased", ("vocab.txt", "tokenizer.json"))
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the rewards of the authors' test set
TOKENS, HEAD_WIDTH = 35, 64
PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# A key of the authors' -> that of transformers' BLIP.
VISION = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"^norm\.", "post_layernorm."),
)


class ImageReward(ScoreMetric):
    name = "image_reward"
    columns = (*bootstrap.columns("image_reward"), "image_reward_definition")
    image_columns = ("image_reward",)

    @classmethod
    def found(cls, options: Options) -> tuple[Path, Path]:
        weights = SOURCE.find(cls.name, options["path"], options["allow_pickle"])
        return weights, TOKENIZER.find(cls.name, options["tokenizer"], True, "tokenizer")

    def load(self, found: tuple[Path, Path]) -> Reward:
        return Reward(own_weights.state_dict(found[0]), found[1], own_weights.label(found[0]), self.context.device)


class Reward:
    """(head(first token of the text that has looked at the image) − MEAN) / STD: about −2 to 2."""

    def __init__(self, state: dict[str, torch.Tensor], tokenizer: Path, label: str, device: str) -> None:
        from transformers import BertTokenizerFast

        self.vision = vision(part(state, "blip.visual_encoder.")).eval().requires_grad_(False).to(device)
        self.text = text(part(state, "blip.text_encoder.")).eval().requires_grad_(False).to(device)
        head = part(state, "mlp.layers.")
        order = sorted({int(name.split(".")[0]) for name in head})
        self.head = [(head[f"{k}.weight"].to(device), head[f"{k}.bias"].to(device)) for k in order]
        self.tokenizer, self.device = BertTokenizerFast.from_pretrained(tokenizer, local_files_only=True), device
        side = self.vision.config.image_size
        resizer = f"pil-bicubic-crop of torchvision to {side}x{side}"
        self.definition = f"(head - mean)/std (2304.05977), {label}, transformers' BLIP, {resizer}"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> np.ndarray:
        import torch

        told = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            seen = self.vision(pixel_values=self._pixels(images)).last_hidden_state
            x = self.text(
                input_ids=told["input_ids"],
                attention_mask=told["attention_mask"],
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.device),
            ).last_hidden_state[:, 0]
            for weight, bias in self.head:
                x = torch.nn.functional.linear(x, weight, bias)
        return ((x[:, 0].double() - MEAN) / STD).cpu().numpy()

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        import torch
        from torchvision.transforms import functional as F

        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in PIXELS)
        side = self.vision.config.image_size
        pixels = torch.stack([F.to_tensor(one) for one in own_weights.cropped(images, side)])
        return ((pixels - mean) / std).to(self.device)


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value.float() for name, value in state.items() if name.startswith(prefix)}


def vision(state: dict[str, torch.Tensor]) -> Any:
    """transformers' BlipVisionModel with the authors' weights; its sizes are those of the tensors."""
    from transformers import BlipVisionConfig, BlipVisionModel

    for pattern, ours in VISION:
        state = {re.sub(pattern, ours, name): value for name, value in state.items()}
    width, patch = (
        state["embeddings.patch_embedding.weight"].shape[0],
        state["embeddings.patch_embedding.weight"].shape[-1],
    )
    layers = 1 + max(int(found[1]) for name in state if (found := re.match(r"encoder\.layers\.(\d+)\.", name)))
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        image_size=patch * round((state["embeddings.position_embedding"].shape[1] - 1) ** 0.5),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    net = BlipVisionModel(config)
    net.load_state_dict(state)
    return net


def text(state: dict[str, torch.Tensor]) -> Any:
    """transformers' BlipTextModel with the authors' weights: every layer looks at the image."""
    from transformers.models.blip.modeling_blip_text import BlipTextConfig, BlipTextModel

    state = {name: value for name, value in state.items() if not name.endswith("position_ids")}
    words, width = state["embeddings.word_embeddings.weight"].shape
    config = BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer.")),
        num_attention_heads=width // HEAD_WIDTH,
        max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        is_decoder=True,  # what makes transformers build the cross attention; nothing is masked by it
    )
    net = BlipTextModel(config, add_pooling_layer=False)
    net.load_state_dict(state)
    return net
