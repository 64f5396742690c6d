"""The world the embedded model knows: captioned drawings of one or two shapes, 64x64.

Image number `i` is a function of `i` alone, so a reference set has no end and needs no files.
A caption says everything that is nameable in its drawing; radius, place and shade vary a little within a name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 50),
    "green": (40, 160, 60),
    "cyan": (50, 200, 220),
    "blue": (50, 80, 230),
    "purple": (150, 50, 180),
}
SIZES = {"small": (6.5, 8.0), "large": (11.0, 13.0)}  # radius in pixels
BACKGROUNDS = {
    "white": (245, 245, 245),
    "grey": (135, 135, 135),
    "black": (15, 15, 15),
    "pink": (255, 190, 205),
    "navy": (20, 25, 90),
}
POSITIONS = {  # centre of a lone object, pixels
    "at the top left": (18, 18),
    "at the top": (32, 18),
    "at the top right": (46, 18),
    "at the left": (18, 32),
    "in the center": (32, 32),
    "at the right": (46, 32),
    "at the bottom left": (18, 46),
    "at the bottom": (32, 46),
    "at the bottom right": (46, 46),
}
RELATIONS = ("left of", "right of", "above", "below")

COLOUR_NAMES, SIZE_NAMES = tuple(COLOURS), tuple(SIZES)
BACKGROUND_NAMES, POSITION_NAMES = tuple(BACKGROUNDS), tuple(POSITIONS)

# The image number's top bit range decides the split, the caption's hash decides which captions it may show.
HELD_OUT_ONE_IN = 8


def _splitmix(x: np.ndarray) -> np.ndarray:
    """One round of splitmix64: a well-mixed 64-bit word for each 64-bit word."""
    with np.errstate(over="ignore"):
        x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _uniform(index: np.ndarray, draw: int) -> np.ndarray:
    """Float64 in [0, 1), a function of (image number, draw number)."""
    with np.errstate(over="ignore"):
        word = _splitmix(_splitmix(index.astype(np.uint64)) + np.uint64(draw) * np.uint64(0xD1342543DE82EF95))
    return (word >> np.uint64(11)).astype(np.float64) / float(1 << 53)


@dataclass(frozen=True)
class Scenes:
    """Names (integer codes, shape (N,)) and free parameters of N drawings.

    `objects` is 1 or 2. `position` counts for one object, `relation` for two (object 0 RELATION object 1).
    `shape`, `colour`, `size` are (N, 2); column 1 is meaningless where there is one object.
    `centre` (N, 2, 2) and `radius` (N, 2) are in pixels, `shade` (N, 3) are brightness factors near 1 of object 0,
    object 1 and the background.
    """

    objects: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    background: np.ndarray
    position: np.ndarray
    relation: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    shade: np.ndarray

    def __len__(self) -> int:
        return len(self.objects)

    def caption_code(self) -> np.ndarray:
        """One integer for each distinct caption, (N,) uint64."""
        one = self.objects == 1
        code = np.where(one, self.position, len(POSITIONS) + self.relation)
        code = code * len(BACKGROUNDS) + self.background
        for k in (0, 1):
            thing = (self.shape[:, k] * len(COLOURS) + self.colour[:, k]) * len(SIZES) + self.size[:, k]
            code = code * (len(SHAPES) * len(COLOURS) * len(SIZES)) + np.where(one & (k == 1), 0, thing)
        return code.astype(np.uint64)

    def held_out(self) -> np.ndarray:
        """True where the caption belongs to the evaluation split, (N,) bool."""
        return _splitmix(self.caption_code() ^ np.uint64(0x5EED)) % np.uint64(HELD_OUT_ONE_IN) == 0

    def captions(self) -> list[str]:
        """The sentence that names everything nameable in each drawing."""
        return [self._caption(n) for n in range(len(self))]

    def _caption(self, n: int) -> str:
        def thing(k: int) -> str:
            return f"a {SIZE_NAMES[self.size[n, k]]} {COLOUR_NAMES[self.colour[n, k]]} {SHAPES[self.shape[n, k]]}"

        ground = f"on a {BACKGROUND_NAMES[self.background[n]]} background"
        if self.objects[n] == 1:
            return f"{thing(0)} {POSITION_NAMES[self.position[n]]} {ground}"
        return f"{thing(0)} {RELATIONS[self.relation[n]]} {thing(1)} {ground}"

    def take(self, rows: np.ndarray) -> Scenes:
        return Scenes(**{name: value[rows] for name, value in vars(self).items()})


def scenes(index: np.ndarray | range, two_objects: float = 0.5) -> Scenes:
    """The drawings numbered `index`, any integers ≥ 0; a share `two_objects` of all has two objects."""
    index = np.asarray(index, dtype=np.int64)
    n = len(index)

    def pick(draw: int, count: int) -> np.ndarray:
        return np.minimum((_uniform(index, draw) * count).astype(np.int64), count - 1)

    objects = 1 + (_uniform(index, 0) < two_objects).astype(np.int64)
    shape = np.stack([pick(1, len(SHAPES)), pick(2, len(SHAPES))], 1)
    colour = np.stack([pick(3, len(COLOURS)), pick(4, len(COLOURS))], 1)
    size = np.stack([pick(5, 2), pick(6, 2)], 1)
    same = (shape[:, 0] == shape[:, 1]) & (colour[:, 0] == colour[:, 1]) & (size[:, 0] == size[:, 1])
    colour[:, 1] = np.where(same, (colour[:, 1] + 1) % len(COLOURS), colour[:, 1])  # two objects always differ
    background, position, relation = pick(7, len(BACKGROUNDS)), pick(8, len(POSITIONS)), pick(9, len(RELATIONS))

    low, high = np.array(list(SIZES.values())).T
    u = np.stack([_uniform(index, 10), _uniform(index, 11)], 1)
    radius = low[size] + u * (high - low)[size]
    jitter = np.stack([_uniform(index, d) for d in (12, 13, 14, 15)], 1).reshape(n, 2, 2) * 2 - 1
    centre = np.empty((n, 2, 2))
    alone = np.array(list(POSITIONS.values()), dtype=np.float64)[position]
    centre[:] = alone[:, None] + 2.0 * jitter
    two = objects == 2
    along = np.where(relation < 2, 0, 1)  # axis on which the two are apart
    first = np.where((relation == 0) | (relation == 2), 18.0, 46.0)  # "left of", "above": object 0 has the low end
    apart = np.stack([first, 64.0 - first], 1)
    rows = np.arange(n)
    for k in (0, 1):
        near = apart[:, k] + 2.0 * jitter[:, k, 0]
        free = 32.0 + 8.0 * jitter[:, k, 1]
        centre[rows, k, along] = np.where(two, near, centre[rows, k, along])
        centre[rows, k, 1 - along] = np.where(two, free, centre[rows, k, 1 - along])
    shade = 1.0 + 0.08 * (2 * np.stack([_uniform(index, d) for d in (16, 17, 18)], 1) - 1)
    return Scenes(objects, shape, colour, size, background, position, relation, centre, radius, shade)


def split_scenes(count: int, held_out: bool, start: int = 0, two_objects: float = 0.5) -> Scenes:
    """`count` drawings whose captions are all in the evaluation split (or all in the training split).

    The walk over image numbers starts at `start`; the same arguments always give the same drawings.
    """
    kept: list[np.ndarray] = []
    found, at = 0, start
    while found < count:
        index = np.arange(at, at + max(256, 2 * count))
        index = index[scenes(index, two_objects).held_out() == held_out]
        kept.append(index)
        found, at = found + len(index), at + max(256, 2 * count)
    return scenes(np.concatenate(kept)[:count] if kept else np.arange(0), two_objects)


def _signed_distance(shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Distance to the outline in pixels, negative inside; x, y are offsets from the centre, (N, H, W)."""

    def polygon(vertices: list[tuple[float, float]]) -> torch.Tensor:
        # Even-odd rule for the sign, distance to the nearest edge for the size.
        best = torch.full_like(x, 1e9)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
            ax_, ay_, bx_, by_ = ax * r, ay * r, bx * r, by * r
            ex, ey, px, py = bx_ - ax_, by_ - ay_, x - ax_, y - ay_
            t = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0, 1)
            best = torch.minimum(best, (px - t * ex) ** 2 + (py - t * ey) ** 2)
            crosses = ((ay_ > y) != (by_ > y)) & (x < ex * (y - ay_) / torch.where(ey == 0, 1e-9, ey) + ax_)
            inside ^= crosses
        return torch.where(inside, -best.sqrt(), best.sqrt())

    angle = [-np.pi / 2 + k * np.pi / 5 for k in range(10)]
    star = [
        ((1.0 if k % 2 == 0 else 0.45) * np.cos(a), (1.0 if k % 2 == 0 else 0.45) * np.sin(a))
        for k, a in enumerate(angle)
    ]
    a = 0.34
    cross = [(a, 1), (a, a), (1, a), (1, -a), (a, -a), (a, -1), (-a, -1), (-a, -a), (-1, -a), (-1, a), (-a, a), (-a, 1)]
    distance = (x * x + y * y).sqrt()
    every = torch.stack(
        [
            distance - r,
            torch.maximum(x.abs(), y.abs()) - 0.88 * r,
            polygon([(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)]),
            polygon(star),
            polygon(cross),
            (distance - 0.76 * r).abs() - 0.24 * r,
        ]
    )
    return every.gather(0, shape.view(1, -1, 1, 1).expand(1, *x.shape))[0]


def render(world: Scenes) -> torch.Tensor:
    """Draw the scenes with anti-aliased edges: uint8 RGB, (N, 3, 64, 64)."""
    n = len(world)
    grid = torch.arange(IMAGE_SIZE, dtype=torch.float32) + 0.5
    ground = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32)[torch.from_numpy(world.background)]
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[torch.from_numpy(world.colour)]
    shade = torch.from_numpy(world.shade).float()
    canvas = (ground * shade[:, 2:3]).view(n, 3, 1, 1).expand(n, 3, IMAGE_SIZE, IMAGE_SIZE).clone()
    for k in (0, 1):
        centre, radius = torch.from_numpy(world.centre[:, k]).float(), torch.from_numpy(world.radius[:, k]).float()
        x = (grid.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)).expand(n, IMAGE_SIZE, IMAGE_SIZE)
        y = (grid.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)).expand(n, IMAGE_SIZE, IMAGE_SIZE)
        edge = _signed_distance(torch.from_numpy(world.shape[:, k]), x, y, radius.view(-1, 1, 1))
        cover = (0.5 - edge).clamp(0, 1)
        if k == 1:
            cover = cover * torch.from_numpy(world.objects == 2).float().view(-1, 1, 1)
        cover = cover.unsqueeze(1)
        canvas = canvas * (1 - cover) + cover * (paint[:, k] * shade[:, k : k + 1]).view(n, 3, 1, 1)
    return canvas.clamp(0, 255).round().to(torch.uint8)
