"""What the authors' own packages say of small networks and of images that have to be resized: a recorded fixture.

The packages ask for libraries of their time, which do not go beside ours. So they were run once, in an environment of
their own, and tests/test_metrics_published.py holds our metrics to what they said. To do that again:

    uv venv AUTHORS --python 3.11
    uv pip install --python AUTHORS --no-deps hpsv2==1.2.0 image-reward==1.5 lpips==0.1.4 \
        transformers==4.33.3 tokenizers==0.13.3 huggingface-hub==0.17.3 timm==0.6.13 fairscale==0.4.13 clint args
    # torch and the rest are ours; a file that hpsv2's wheel forgot
    echo "$PWD/.venv/lib/python3.11/site-packages" > AUTHORS/lib/python3.11/site-packages/zz_ours.pth
    cp .venv/lib/python3.11/site-packages/open_clip/bpe_simple_vocab_16e6.txt.gz \
        AUTHORS/lib/python3.11/site-packages/hpsv2/src/open_clip/
    PYTHONPATH=tests AUTHORS/bin/python tests/published_packages.py > tests/fixtures/published_packages.json

Weights and images are numpy's random numbers by name, so both sides have the same.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import types
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

SIDE = 48  # of what the networks see
SIZES = ((48, 48), (64, 64), (60, 97), (111, 70), (33, 20))  # (H, W) of images: as is, smaller, wide, high, larger
PROMPTS = (
    "a large red circle",
    "A small BLUE square,  “quoted” &amp; more",
    "a red circle, a blue square: 12 of them!",
    "a café",
    "large " * 90,
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "large", "small", "red", "blue", "circle", "square"]
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
BERT = {
    "vocab_size": 40,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 128,
    "max_position_embeddings": 48,
    "encoder_width": 64,
    "add_cross_attention": True,
    "layer_norm_eps": 1e-12,
}
BACKBONES = {"squeeze": "squeezenet1_1", "alex": "alexnet"}  # of LPIPS, by torchvision's name


def weights(shapes: Mapping[str, Iterable[int]]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, each by its name; those of norms are near 1."""
    import torch

    found = {}
    for name, shape in shapes.items():
        drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=tuple(shape))
        norm = name.endswith("weight") and drawn.ndim == 1
        scale = 0.2 if drawn.ndim < 2 else 1.5 / np.sqrt(drawn[0].size)
        found[name] = torch.as_tensor(norm + scale * drawn).float()
    return found


def fill(net: torch.nn.Module, only: str = "") -> None:
    """Give a network the `weights` of its names."""
    state = {name: value for name, value in net.state_dict().items() if name.startswith(only)}
    numbers = {name: value.shape for name, value in state.items() if value.is_floating_point()}
    net.load_state_dict(net.state_dict() | weights(numbers))


def image(height: int, width: int, kind: str = "one") -> np.ndarray:
    """uint8 (H, W, 3): waves and edges, which a resizer without antialiasing shows otherwise, and noise."""
    rng = np.random.default_rng(zlib.crc32(f"{kind} {height} {width}".encode()))
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.1, 2.5) + y * rng.uniform(0.1, 2.5)) for _ in range(3)]
    drawn = (
        128
        + 90 * np.stack(waves, -1)
        + 60 * ((x // 5 + y // 7) % 2)[..., None]
        + 20 * rng.normal(size=(height, width, 3))
    )
    return drawn.clip(0, 255).astype(np.uint8)


def vocabulary(folder: Path) -> Path:
    """The folder with BERT's list of a few words in it."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


# ------------------------------------------------------------------------------ by the packages, in their environment


def hps_v2(folder: Path) -> list[float]:
    """`hpsv2.img_score.score` of each image and prompt, of a small network in the place of ViT-H/14."""
    import torch
    from hpsv2 import img_score
    from hpsv2.src import open_clip
    from PIL import Image

    (folder / "small.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "small.json")
    # Their own arguments (img_score.py) but for name and weights.
    net, _, preprocess = open_clip.create_model_and_transforms(
        "small", None, precision="amp", device="cpu", jit=False, force_quick_gelu=False, force_custom_text=False,
        force_patch_dropout=False, force_image_size=None, pretrained_image=False, image_mean=None, image_std=None,
        light_augmentation=True, aug_cfg={}, output_dict=True, with_score_predictor=False, with_region_predictor=False,
    )  # fmt: skip
    fill(net)
    torch.save({"state_dict": net.state_dict()}, folder / "HPS.pt")
    img_score.model_dict.update(model=net, preprocess_val=preprocess)
    return [
        float(img_score.score(Image.fromarray(image(*size)), prompt, cp=str(folder / "HPS.pt"))[0])
        for size, prompt in zip(SIZES, PROMPTS, strict=True)
    ]


def image_reward(folder: Path) -> dict[str, Any]:
    """`ImageReward.score` of each image and prompt, of small networks in the place of ViT-L and BERT; its tensors."""
    # Its __init__ files import what trains and other scorers.
    for name in ("ImageReward", "ImageReward.models"):
        package = types.ModuleType(name)
        place = next(Path(one) for one in sys.path if (Path(one) / "ImageReward").is_dir())
        package.__path__ = [str(place / name.replace(".", "/"))]
        sys.modules[name] = package
    own = importlib.import_module("ImageReward.ImageReward")
    med, vit = (importlib.import_module(f"ImageReward.models.BLIP.{name}") for name in ("med", "vit"))
    import torch
    from PIL import Image
    from transformers import BertTokenizer

    blip = torch.nn.Module()
    blip.visual_encoder = vit.VisionTransformer(SIDE, 16, embed_dim=64, depth=2, num_heads=1)
    blip.text_encoder = med.BertModel(med.BertConfig(**BERT), add_pooling_layer=False)
    blip.tokenizer = BertTokenizer.from_pretrained(vocabulary(folder))
    net = own.ImageReward.__new__(own.ImageReward)
    torch.nn.Module.__init__(net)
    net.device, net.blip, net.preprocess, net.mlp = "cpu", blip, own._transform(SIDE), own.MLP(64)
    net.mean, net.std = 0.16717362830052426, 1.0333394966054072  # as its __init__ has them
    fill(net.eval())
    with torch.no_grad():
        pairs = zip(SIZES, PROMPTS, strict=True)
        scores = [net.score(prompt, Image.fromarray(image(*size))) for size, prompt in pairs]
    return {"scores": scores, "shapes": {name: str(tuple(value.shape)) for name, value in net.state_dict().items()}}


def backbone(net: str) -> Any:
    """torchvision's network under LPIPS, with our weights in its features."""
    import torchvision

    made = getattr(torchvision.models, BACKBONES[net])(weights=None)
    fill(made, "features.")
    return made


def lpips(net: str) -> list[float]:
    """`lpips.LPIPS` of pairs of images, with the linear layers that the package carries."""
    import torch
    import torchvision
    from lpips import LPIPS

    made = backbone(net)
    setattr(torchvision.models, BACKBONES[net], lambda *given, **named: made)
    own = LPIPS(net=net, verbose=False).eval()
    with torch.no_grad():
        return [
            float(own(*(torch.from_numpy(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in pair))) for pair in pairs()
        ]


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of images of one size."""
    return [(image(*size), image(*size, kind="other")) for size in ((64, 64), (96, 70))]


def main() -> None:
    from importlib.metadata import version

    packages = ("hpsv2", "image-reward", "lpips", "transformers", "timm", "torch", "torchvision", "pillow")
    with tempfile.TemporaryDirectory() as folder:
        said = {
            "made_by": {name: version(name) for name in packages},
            "hps_v2": hps_v2(Path(folder)),
            "image_reward": image_reward(Path(folder)),
            "lpips": {net: lpips(net) for net in BACKBONES},
        }
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
