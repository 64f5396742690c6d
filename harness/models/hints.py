"""Control images: what a ControlNet or T2I-Adapter is shown of a source. Those that need no network are drawn here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.models.annotators import ANNOTATORS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BY_NETWORK = tuple(ANNOTATORS)  # drawn by a network that is given, or given as a folder of images

CANNY = {"sigma": 1.0, "low": 0.1, "high": 0.2}  # blur in pixels; limits of the gradient, as shares of the range
INK = {"narrow": 0.5, "wide": 5.0, "least": 32 / 255}  # deviations in pixels; difference from which there is a line


def _luma(image: np.ndarray) -> np.ndarray:
    """float64 (H, W, 3) in [0, 1] to (H, W), Rec. 601, as OpenCV makes an image grey."""
    return image @ [0.299, 0.587, 0.114]


def canny(image: np.ndarray) -> np.ndarray:
    """White edges on black: Canny (1986), by scikit-image."""
    from skimage.feature import canny as edges

    found = edges(_luma(image), sigma=CANNY["sigma"], low_threshold=CANNY["low"], high_threshold=CANNY["high"])
    return found.astype(float)


def scribble(image: np.ndarray) -> np.ndarray:
    """White strokes on black where an image is darker than around, as a pencil draws it (XDoG, Winnemöller 2011)."""
    from scipy.ndimage import gaussian_filter

    near, around = (gaussian_filter(image, (width, width, 0)) for width in (INK["narrow"], INK["wide"]))
    return ((around - near).max(-1) >= INK["least"]).astype(float)


HINTS: dict[str, Callable[[np.ndarray], np.ndarray] | None] = {
    "none": None,  # the source as it is: for tile and colour control, and where the data are control images already
    "canny": canny,
    "grey": _luma,
    "scribble": scribble,
}


def drawn(hint: str, images: Tensor, draw: Callable[[np.ndarray], np.ndarray] | None = None) -> Tensor:
    """Control images float32 (N, 3, H, W) in [0, 1] of images uint8 (N, 3, H, W), each by itself.

    `draw`: what draws a hint of BY_NETWORK, from `annotators.load`.
    """
    import numpy as np
    import torch

    draw = draw or HINTS[hint]
    pixels = images.cpu().float() / 255
    if draw is None:
        return pixels
    found = [draw(one.permute(1, 2, 0).double().numpy()) for one in pixels]
    planes = torch.from_numpy(np.stack([np.atleast_3d(one) for one in found])).float().movedim(-1, 1)
    return planes.expand(-1, 3, -1, -1).contiguous()
