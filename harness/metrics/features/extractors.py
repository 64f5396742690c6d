"""Feature extractors of FID, KID, precision/recall and the feature distance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError
from harness.metrics.features import files
from harness.models import pickles

if TYPE_CHECKING:
    import torch

    from harness.metrics.base import FeatureExtractor
    from harness.metrics.context import Context


def get(asked: str, context: Context) -> FeatureExtractor:
    """The extractor that an option asks for, loaded once a worker."""
    kind = files.choose_extractor(asked, context.model_is_embedded)
    path = files.embedded_extractor() if kind == "embedded" else files.hub_file(files.INCEPTION)
    load = EmbeddedExtractor if kind == "embedded" else InceptionExtractor
    return context.once(("extractor", kind, str(path), context.device), lambda: load(path, context.device))


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


class InceptionExtractor:
    """The Inception network of published FIDs, as torch-fidelity ports it; resizes by itself, as TensorFlow 1 did."""

    kind, dim = "inception", 2048
    id = "inception-v3-compat-2048d"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        files.check_extractor("inception")
        with pickles.weights_only():
            self.net = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            )
        self.net.eval().to(device)
        self.device = device

    def resizer(self, size: tuple[int, int]) -> str:
        return "none" if tuple(size) == (299, 299) else "bilinear-tf1 to 299x299"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            parts = [self.net(part.to(self.device))[0].float().cpu() for part in images.split(64)]
        return torch.cat(parts).numpy()
