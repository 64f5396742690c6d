"""What a record keeps of an image so that another run can be held against it, without its pixels. Imports no torch.

A sketch is a handful of random projections (Johnson and Lindenstrauss): the mean square of the differences of two
sketches estimates the mean squared error of the two images without bias, for one image to a factor of about two
(√(2/8) = 50 %), for the mean over 64 images to 6 %. So every image of a cell can be golden at 64 bytes each.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PROJECTIONS = 8
PEAK = 255.0


@lru_cache(maxsize=4)
def _signs(size: int) -> np.ndarray:
    """(size, PROJECTIONS) of ±1, the same on every machine: numpy promises raw bits, not what is drawn with them."""
    bits = np.random.PCG64(0).random_raw(-(-size * PROJECTIONS // 64)).astype("<u8")
    signs = np.unpackbits(bits.view(np.uint8))[: size * PROJECTIONS]
    return (2 * signs.astype(np.int8) - 1).reshape(size, PROJECTIONS)


def sketch(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 3, H, W) -> float64 (N, 8), in levels of 0..255: exact integers over √(3·H·W)."""
    flat = np.asarray(images).reshape(len(images), -1)
    signs = _signs(flat.shape[1]).astype(np.float64)
    return np.stack([row.astype(np.float64) @ signs for row in flat]) / np.sqrt(flat.shape[1])


def squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated mean squared error of each image, (N,), from two sketches (N, 8).

    >>> black = np.zeros((1, 3, 64, 64), np.uint8)
    >>> squared_error(sketch(black), sketch(black))
    array([0.])
    """
    return ((a - b) ** 2).mean(-1)


def psnr(error: float | np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of a mean squared error; infinite where there is none."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / np.asarray(error, np.float64))
