"""How much of the source is left: SSIM, PSNR, feature distance and LPIPS against what img2img or inpaint began with.

After an inversion also against what the decoder makes of the source's latents, which is the most that a round trip can
come back to, and against those latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError, nearest
from harness.metrics import bootstrap
from harness.metrics.base import Batch, Options, PerImageMetric
from harness.metrics.context import Context
from harness.metrics.features import extractors, files
from harness.models import pickles

if TYPE_CHECKING:
    import torch

WINDOW, SIGMA = 11, 1.5  # pixels, of SSIM's Gaussian window (Wang et al. 2004)
PSNR_CAP = 100.0  # dB, where there is no difference at all: a mean over images stays finite


class Similarity(PerImageMetric):
    """Inside and outside the mask SSIM and PSNR are taken over those pixels alone; an SSIM window reaches 5 px over."""

    name = "similarity"
    image_columns = (
        *("psnr", "psnr_inside", "psnr_outside", "ssim", "ssim_inside", "ssim_outside"),
        *("feature_distance", "lpips"),
        *("roundtrip_psnr", "roundtrip_lpips", "roundtrip_error"),
    )
    columns = (*bootstrap.columns(*image_columns), "lpips_definition")
    tasks = ("img2img", "inpaint", "edit", "invert")

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__(context, options)
        self.extractor = extractors.get(options["extractor"], context)
        self.lpips = options["lpips"] if has_lpips(options["lpips"]) else None
        if self.lpips:
            self.network = context.once(
                ("lpips", self.lpips, context.device), lambda: Lpips(self.lpips, context.device)
            )

    @classmethod
    def check(cls, options: Options) -> None:
        files.check_extractor(options["extractor"])
        valid = ("off", *files.LPIPS)
        # YAML reads a bare `off` as false.
        if options["lpips"] is not False and options["lpips"] not in valid:
            raise InputError(f"lpips={options['lpips']!r} is not valid; {nearest(options['lpips'], valid)}")

    def measure(self, batch: Batch) -> dict[str, np.ndarray]:
        if batch.sources is None:
            return {}
        images, sources = batch.images.float(), batch.sources.float()
        maps = {"psnr": ((images - sources) ** 2).mean(1), "ssim": ssim_map(images, sources)}
        out: dict[str, torch.Tensor] = {name: value.mean((1, 2)) for name, value in maps.items()}
        if batch.masks is not None:
            inside = batch.masks[:, 0].float()
            for name, value in maps.items():
                out[f"{name}_inside"] = _mean_over(value, inside)
                out[f"{name}_outside"] = _mean_over(value, 1 - inside)
        values = {name: value.double().numpy() for name, value in out.items()}
        for name in values.keys() & {"psnr", "psnr_inside", "psnr_outside"}:
            values[name] = _decibel(values[name])
        apart = batch.features(self.extractor) - batch.features(self.extractor, "sources")
        values["feature_distance"] = np.linalg.norm(apart.astype(np.float64), axis=1)
        if self.lpips:
            values["lpips"] = self.network(batch.images, batch.sources)
        return values | self._round_trip(batch)

    def _round_trip(self, batch: Batch) -> dict[str, np.ndarray]:
        if batch.restored is None or batch.latents is None or batch.source_latents is None:
            return {}
        apart = ((batch.images.float() - batch.restored.float()) ** 2).mean((1, 2, 3)).double().numpy()
        begun = batch.source_latents.double().cpu().flatten(1)
        moved = batch.latents.double().cpu().flatten(1) - begun
        values = {
            "roundtrip_psnr": _decibel(apart),
            "roundtrip_error": (moved.norm(dim=1) / begun.norm(dim=1)).numpy(),
        }
        if self.lpips:
            values["roundtrip_lpips"] = self.network(batch.images, batch.restored)
        return values

    def compute(self) -> dict[str, float | str | bool | None]:
        definition = f"lpips-{self.lpips}, torchmetrics" if self.lpips else None
        return {**super().compute(), "lpips_definition": definition}


def ssim_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """SSIM at every pixel, mean of the channels, (N, H, W); windows see the image mirrored beyond its border."""
    import torch
    import torch.nn.functional as F

    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {tuple(a.shape[-2:])}")
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    taps = (line / line.sum()).tolist()
    a, b = (F.pad(x, (WINDOW // 2,) * 4, mode="reflect") for x in (a, b))

    def smooth(x: torch.Tensor) -> torch.Tensor:
        # Shifted sums: several times faster on a CPU than a convolution of one channel.
        for axis in (-2, -1):
            length, total = x.shape[axis] - WINDOW + 1, None
            for shift, tap in enumerate(taps):
                part = x.narrow(axis, shift, length)
                total = part * tap if total is None else total.add_(part, alpha=tap)
            x = total
        return x

    mean_a, mean_b, aa, bb, ab = (smooth(x) for x in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(1)


def _mean_over(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean of each map over its chosen pixels, (N,); NaN where none is chosen."""
    return (values * chosen).sum((1, 2)) / chosen.sum((1, 2))


def _decibel(squared_error: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255.0**2 / squared_error), PSNR_CAP)


def has_lpips(net: str | bool) -> bool:
    return net in files.LPIPS and files.hub_file(files.LPIPS[net]).is_file()


class Lpips:
    """torchmetrics' LPIPS network on uint8 images."""

    def __init__(self, net: str, device: str) -> None:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        with pickles.weights_only():
            self.net = LearnedPerceptualImagePatchSimilarity(net_type=net).net.eval().to(device)
        self.device = device

    def __call__(self, images: torch.Tensor, sources: torch.Tensor) -> np.ndarray:
        import torch

        a, b = (x.to(self.device).float() / 127.5 - 1 for x in (images, sources))
        with torch.inference_mode():
            return self.net(a, b).flatten().double().cpu().numpy()
