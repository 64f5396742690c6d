"""Feature extractors of FID, KID, precision/recall and the feature distance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import InputError
from harness.metrics.features import files
from harness.models import pickles

if TYPE_CHECKING:
    import torch

    from harness.metrics.base import FeatureExtractor
    from harness.metrics.context import Context


def get(asked: str, context: Context, size: int | None = None) -> FeatureExtractor:
    """The extractor that an option asks for, its network loaded once a worker.

    `size`: images are brought to that many pixels a side before the extractor sees them.
    """
    kind = files.choose_extractor(asked, context.model_is_embedded)
    if kind == "embedded":
        path = files.embedded_extractor()
        found = context.once(
            ("extractor", str(path), context.device), lambda: EmbeddedExtractor(path, context.device)
        )  # fmt: skip
    else:
        found = InceptionExtractor(_inception(context), kind, context.device)
    return found if size is None else Sized(found, size)


def classifier(context: Context) -> FeatureExtractor:
    """The Inception network's logits without their bias, as the Inception score takes them."""
    return InceptionExtractor(_inception(context), "inception", context.device, logits=True)


def _inception(context: Context) -> Any:
    path = files.hub_file(files.INCEPTION)
    return context.once(("inception", str(path), context.device), lambda: load_inception(path, context.device))


class Sized:
    """An extractor of images that are first brought to one size: Pillow's bicubic, as everywhere here."""

    def __init__(self, extractor: FeatureExtractor, size: int) -> None:
        self.extractor, self.side = extractor, size
        self.kind, self.dim, self.id = extractor.kind, extractor.dim, f"{extractor.id}-of-{size}px"

    def resizer(self, size: tuple[int, int]) -> str:
        side = (self.side, self.side)
        first = "" if tuple(size) == side else f"pil-bicubic-squash to {self.side}x{self.side}, then "
        return first + self.extractor.resizer(side)

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        from harness.data.resize import resize

        return self.extractor(resize(images, (self.side, self.side)))


class EmbeddedExtractor:
    """The shipped network for the embedded world: 64x64, 96 features, and heads that name what is drawn.

    The features are the channels of its last convolution averaged over places, as Inception's are in FID. The vector
    behind the heads would be 2 to 3 times blinder: where the classifier is sure, it hardly sees blur or noise.
    """

    kind, dim = "embedded", 96

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load_file

        from harness.embedded import nets

        if not path.is_file():
            raise InputError(f"no feature extractor at {path}: make it with `python -m harness.embedded.train`")
        net = nets.Extractor()
        del net.thumb, net.flaws  # only training needs them
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        self.net = net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self.device, self.id = device, f"embedded-v2-96d-{files.short_hash(path)}"

    def resizer(self, size: tuple[int, int]) -> str:
        return "none" if tuple(size) == (64, 64) else "pil-bicubic-squash to 64x64"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self._trunk(images).mean((2, 3)).float().cpu().numpy()

    def attributes(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        """The class that each head names, (N,) int64 a head."""
        import torch

        with torch.inference_mode():
            logits = self.net.attributes(self.net.squeeze(self._trunk(images).flatten(1)))
        return {name: value.argmax(1).cpu().numpy() for name, value in logits.items()}

    def _trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Features of every place, (N, 96, 4, 4)."""
        from harness.data.resize import resize

        return self.net.places(resize(images, (64, 64)).to(self.device))


def load_inception(path: Path, device: str) -> Any:
    """The Inception network of published FIDs, as torch-fidelity ports it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    files.check_extractor("inception")
    with pickles.weights_only():
        net = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    return net.eval().to(device)


class InceptionExtractor:
    """That network behind one of the resizers that published numbers were made with.

    `inception` resizes inside, as TensorFlow 1 and so torch-fidelity, ADM and EDM did; `inception_clean` as clean-fid
    (2104.11222), Pillow's bicubic without rounding; `inception_pytorch` as pytorch-fid, bilinear without antialiasing.
    """

    SIDE = 299
    RESIZERS: ClassVar = {
        "inception": "bilinear-tf1", "inception_clean": "pil-bicubic-float", "inception_pytorch": "bilinear-pytorch",
    }  # fmt: skip
    kind = "inception"

    def __init__(self, net: Any, resizes: str, device: str = "cpu", logits: bool = False) -> None:
        self.net, self.resizes, self.device, self.logits = net, resizes, device, logits
        self.dim = net.fc.out_features if logits else 2048
        way = resizes.removeprefix("inception").replace("_", "-")
        self.id = f"inception-v3-compat-{'logits' if logits else '2048d'}{way}"

    def resizer(self, size: tuple[int, int]) -> str:
        side = (self.SIDE, self.SIDE)
        return "none" if tuple(size) == side else f"{self.RESIZERS[self.resizes]} to {self.SIDE}x{self.SIDE}"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            parts = [self._features(part).float().cpu() for part in images.split(64)]
        return torch.cat(parts).numpy()

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        if self.resizes == "inception":
            return self.net(images.to(self.device))[int(self.logits)]
        pixels = self._resized(images).to(self.device)
        return _behind_the_resizer(self.net, (pixels - 128) / 128)

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (N, 3, 299, 299), 0 to 255, not rounded."""
        import torch
        from PIL import Image

        side = (self.SIDE, self.SIDE)
        if self.resizes == "inception_pytorch":
            return torch.nn.functional.interpolate(images.float(), side, mode="bilinear", align_corners=False)
        flat = images.cpu().flatten(0, 1).numpy().astype(np.float32)
        found = [np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BICUBIC)) for one in flat]
        return torch.from_numpy(np.stack(found).clip(0, 255)).view(len(images), 3, *side)


def _behind_the_resizer(net: Any, x: torch.Tensor) -> torch.Tensor:
    """The 2,048 features of images (N, 3, 299, 299) from −1 to 1: its own forward would resize them."""
    names = [name for name, _ in net.named_children()]
    for name in names[: names.index("AvgPool") + 1]:
        x = getattr(net, name)(x)
    return x.flatten(1)
