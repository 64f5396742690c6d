"""The world the embedded model knows: captioned drawings of one or two lit solids on a textured ground, 64x64.

Image number `i` is a function of `i` alone, so a reference set has no end and needs no files.
A caption says everything that is nameable in its drawing; radius, place, shade and the grain of every texture vary
within a name. Grounds are band-limited noise whose amplitude falls about as 1/f, as a photograph's does: an image with
an empty fine scale would be drawn as well by a crude sampler as by a good one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

IMAGE_SIZE = 64
SHAPES = ("ball", "block", "pyramid", "star", "cross", "ring")
COLOURS = {
    "red": (214, 48, 44),
    "orange": (240, 138, 34),
    "yellow": (240, 214, 52),
    "green": (48, 158, 66),
    "cyan": (54, 196, 214),
    "blue": (52, 84, 222),
    "purple": (150, 58, 182),
}
MATERIALS = ("matte", "shiny", "striped", "dotted", "checkered", "speckled")
SIZES = {"small": (8.0, 9.0), "large": (12.0, 13.5)}  # radius in pixels
GROUNDS = {  # the darker and the lighter tone
    "clouds": ((96, 132, 178), (232, 238, 244)),
    "wood": ((92, 62, 42), (182, 138, 96)),
    "weave": ((58, 64, 62), (176, 178, 160)),
    "marble": ((112, 112, 124), (240, 238, 234)),
    "sand": ((150, 124, 88), (232, 214, 172)),
}
LIGHTS = {  # where the light stands: unit vector to it, x right, y down, z to the viewer
    "from the left": (-0.79, -0.28, 0.55),
    "from the right": (0.79, -0.28, 0.55),
    "from above": (0.0, -0.84, 0.55),
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

SHADOW_SHIFT = 0.42  # how far a shadow falls from the light, over the radius
SHADOW_EDGE = 2.5  # half the width of its soft edge, pixels
WINDOW = 46  # pixels: holds the largest object with its shadow, wherever its centre lies in a pixel

COLOUR_NAMES, SIZE_NAMES, LIGHT_NAMES = tuple(COLOURS), tuple(SIZES), tuple(LIGHTS)
GROUND_NAMES, POSITION_NAMES = tuple(GROUNDS), tuple(POSITIONS)

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
    `shape`, `colour`, `material`, `size` are (N, 2); column 1 is meaningless where there is one object.
    `centre` (N, 2, 2) and `radius` (N, 2) are in pixels, `shade` (N, 3) are brightness factors near 1 of object 0,
    object 1 and the ground, `phase` (N, 2) in [0, 1) is where the ground's pattern starts. `number` is the drawing's.
    """

    number: np.ndarray
    objects: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    material: np.ndarray
    size: np.ndarray
    ground: np.ndarray
    light: np.ndarray
    position: np.ndarray
    relation: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    shade: np.ndarray
    phase: np.ndarray

    def __len__(self) -> int:
        return len(self.objects)

    def caption_code(self) -> np.ndarray:
        """One integer for each distinct caption, (N,) uint64."""
        one = self.objects == 1
        code = np.where(one, self.position, len(POSITIONS) + self.relation)
        code = (code * len(GROUNDS) + self.ground) * len(LIGHTS) + self.light
        for k in (0, 1):
            thing = self.shape[:, k] * len(COLOURS) + self.colour[:, k]
            thing = (thing * len(MATERIALS) + self.material[:, k]) * len(SIZES) + self.size[:, k]
            things = len(SHAPES) * len(COLOURS) * len(MATERIALS) * len(SIZES)
            code = code * things + np.where(one & (k == 1), 0, thing)
        return code.astype(np.uint64)

    def held_out(self) -> np.ndarray:
        """True where the caption belongs to the evaluation split, (N,) bool."""
        return _splitmix(self.caption_code() ^ np.uint64(0x5EED)) % np.uint64(HELD_OUT_ONE_IN) == 0

    def captions(self) -> list[str]:
        """The sentence that names everything nameable in each drawing."""
        return [self._caption(n) for n in range(len(self))]

    def _caption(self, n: int) -> str:
        def thing(k: int) -> str:
            names = SIZE_NAMES[self.size[n, k]], MATERIALS[self.material[n, k]], COLOUR_NAMES[self.colour[n, k]]
            return f"a {' '.join(names)} {SHAPES[self.shape[n, k]]}"

        scene = f"on {GROUND_NAMES[self.ground[n]]}, lit {LIGHT_NAMES[self.light[n]]}"
        if self.objects[n] == 1:
            return f"{thing(0)} {POSITION_NAMES[self.position[n]]} {scene}"
        return f"{thing(0)} {RELATIONS[self.relation[n]]} {thing(1)} {scene}"

    def box(self, n: int, k: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Corners (x, y) in pixels of the box that holds object `k` of drawing `n` with its shadow, and `margin`."""
        centre, radius = self.centre[n, k], self.radius[n, k]
        shifted = centre - SHADOW_SHIFT * radius * np.array(tuple(LIGHTS.values())[self.light[n]][:2])
        low = np.minimum(centre - margin, shifted - SHADOW_EDGE)
        return low - radius, np.maximum(centre + margin, shifted + SHADOW_EDGE) + radius

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
    material = np.stack([pick(19, len(MATERIALS)), pick(20, len(MATERIALS))], 1)
    size = np.stack([pick(5, 2), pick(6, 2)], 1)
    same = (shape[:, 0] == shape[:, 1]) & (colour[:, 0] == colour[:, 1]) & (size[:, 0] == size[:, 1])
    colour[:, 1] = np.where(same, (colour[:, 1] + 1) % len(COLOURS), colour[:, 1])  # two objects always differ
    ground, light = pick(7, len(GROUNDS)), pick(21, len(LIGHTS))
    position, relation = pick(8, len(POSITIONS)), pick(9, len(RELATIONS))

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
    phase = np.stack([_uniform(index, 22), _uniform(index, 23)], 1)
    things = (shape, colour, material, size)
    return Scenes(index, objects, *things, ground, light, position, relation, centre, radius, shade, phase)


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


def _polygon(vertices: list[tuple[float, float]], x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Distance to a polygon with `vertices` on the unit circle's scale, negative inside."""
    best = torch.full_like(x, 1e9)
    inside = torch.zeros_like(x, dtype=torch.bool)  # even-odd rule
    for (ax, ay), (bx, by) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        ax_, ay_, bx_, by_ = ax * r, ay * r, bx * r, by * r
        ex, ey, px, py = bx_ - ax_, by_ - ay_, x - ax_, y - ay_
        t = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        best = torch.minimum(best, (px - t * ex).square() + (py - t * ey).square())
        inside ^= ((ay_ > y) != (by_ > y)) & (x < ex * (y - ay_) / torch.where(ey == 0, 1e-9, ey) + ax_)
    return torch.where(inside, -best.sqrt(), best.sqrt())


_STAR = [
    ((1.0, 0.45)[k % 2] * np.cos(-np.pi / 2 + k * np.pi / 5), (1.0, 0.45)[k % 2] * np.sin(-np.pi / 2 + k * np.pi / 5))
    for k in range(10)
]
_CROSS = [(0.34, 1), (0.34, 0.34), (1, 0.34), (1, -0.34), (0.34, -0.34), (0.34, -1)]
_CROSS += [(-x, -y) for x, y in _CROSS]

_OUTLINES = {
    "ball": lambda x, y, r: (x * x + y * y).sqrt() - r,
    "block": lambda x, y, r: torch.maximum(x.abs(), y.abs()) - 0.88 * r,
    "pyramid": lambda x, y, r: _polygon([(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)], x, y, r),
    "star": lambda x, y, r: _polygon(_STAR, x, y, r),
    "cross": lambda x, y, r: _polygon(_CROSS, x, y, r),
    "ring": lambda x, y, r: ((x * x + y * y).sqrt() - 0.76 * r).abs() - 0.24 * r,
}


def _signed_distance(shape: np.ndarray, x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Distance to the outline in pixels, negative inside; x, y are offsets from the centre, (N, H, W)."""
    out = torch.empty_like(x)
    for code, name in enumerate(SHAPES):
        rows = torch.from_numpy(np.flatnonzero(shape == code))
        out[rows] = _OUTLINES[name](x[rows], y[rows], r[rows])
    return out


def _white(number: np.ndarray, draw: int) -> np.ndarray:
    """White noise of every drawing, (N, 64, 64) float32 in [-1, 1): a function of (image number, draw, pixel)."""
    with np.errstate(over="ignore"):
        seed = _splitmix(_splitmix(number.astype(np.uint64)) + np.uint64(draw) * np.uint64(0xD1342543DE82EF95))
        pixel = np.arange(IMAGE_SIZE * IMAGE_SIZE, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        word = _splitmix(seed[:, None] + pixel) >> np.uint64(40)
    return (word.astype(np.float32) / 2**23 - 1).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def _field(white: np.ndarray, falls: float, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """`white` (N, 64, 64) filtered to amplitude 1/f^falls, zero mean and unit variance.

    `stretch` (x, y) lengthens the grain along an axis.
    """
    fy = np.fft.fftfreq(IMAGE_SIZE)[:, None] * IMAGE_SIZE * stretch[1]
    fx = np.fft.rfftfreq(IMAGE_SIZE)[None] * IMAGE_SIZE * stretch[0]
    gain = np.maximum(np.hypot(fx, fy), 1.0) ** -falls
    gain[0, 0] = 0.0
    field = np.fft.irfft2(np.fft.rfft2(white) * gain.astype(np.float32), s=(IMAGE_SIZE, IMAGE_SIZE))
    return field / np.sqrt((field**2).mean((1, 2), keepdims=True))


def _ground_tone(ground: str, number: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """How light the ground is, (N, 64, 64) about [0, 1]."""
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] + 0.5
    first, second = phase[:, 0, None, None], phase[:, 1, None, None]
    noise = _white(number, 24)
    if ground == "clouds":
        return 0.5 + 0.26 * _field(noise, 1.3)
    if ground == "wood":
        rings = np.sin(_TURN * (y / 11 + first + 0.45 * _field(noise, 1.5, (3.0, 1.0))))
        return 0.5 + 0.24 * rings + 0.13 * _field(_white(number, 25), 0.8, (6.0, 1.0))
    if ground == "weave":
        across, down = x / 8 + first, y / 8 + second
        over = np.floor(2 * across) + np.floor(2 * down)
        thread = np.where(over % 2 == 0, np.abs(np.sin(_TURN * across)), np.abs(np.sin(_TURN * down)))
        return 0.18 + 0.55 * thread + 0.11 * _field(noise, 1.0)
    if ground == "marble":
        angle = _TURN * first
        along = x * np.cos(angle) + y * np.sin(angle)
        vein = np.abs(np.sin(_TURN * (along / 52 + second) + 1.5 * _field(noise, 2.0)))
        return 0.95 * np.sqrt(vein) + 0.07 * _field(_white(number, 25), 1.0)
    ripple = np.sin(_TURN * (y / 13 + first + 0.28 * _field(noise, 1.6, (2.0, 1.0))))
    return 0.5 + 0.17 * ripple + 0.17 * _field(_white(number, 25), 0.7)


def empty(world: Scenes) -> torch.Tensor:
    """The ground without objects and shadows, lit from its side: float32 RGB, (N, 3, 64, 64) about [0, 255]."""
    tone = np.empty((len(world), IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for code, name in enumerate(GROUND_NAMES):
        rows = np.flatnonzero(world.ground == code)
        if len(rows):
            tone[rows] = _ground_tone(name, world.number[rows], world.phase[rows])
    dark, light = torch.tensor(list(GROUNDS.values()), dtype=torch.float32)[torch.from_numpy(world.ground)].unbind(1)
    mix = torch.from_numpy(tone).clamp(-0.15, 1.15).unsqueeze(1)
    canvas = dark.view(-1, 3, 1, 1) * (1 - mix) + light.view(-1, 3, 1, 1) * mix
    toward = _toward_light(world)
    grid = (torch.arange(IMAGE_SIZE, dtype=torch.float32) + 0.5) / IMAGE_SIZE * 2 - 1
    slope = toward[:, 0].view(-1, 1, 1) * grid.view(1, 1, -1) + toward[:, 1].view(-1, 1, 1) * grid.view(1, -1, 1)
    return canvas * (1 + 0.16 * slope).unsqueeze(1) * torch.from_numpy(world.shade[:, 2]).float().view(-1, 1, 1, 1)


def _toward_light(world: Scenes) -> torch.Tensor:
    return torch.tensor(list(LIGHTS.values()), dtype=torch.float32)[torch.from_numpy(world.light)]


_TURN = 2 * np.pi

# How a solid rises from its outline: the width of its rounded edge over its radius, or None for flat flanks that meet.
_EDGE = {"ball": 1.0, "block": 0.34, "pyramid": None, "star": None, "cross": 0.3, "ring": 0.24}
_FLANK = 0.62  # sine of a flat flank's slope


def _slope(world: Scenes, k: int, distance: torch.Tensor, radius: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of the surface's unit normal, (N, H, W) each, from the distance to the outline."""
    gy, gx = torch.gradient(distance, dim=(1, 2))
    length = (gx * gx + gy * gy).sqrt().clamp(min=1e-3)
    edges = torch.tensor([edge or 1.0 for edge in map(_EDGE.get, SHAPES)])
    flat = torch.tensor([edge is None for edge in map(_EDGE.get, SHAPES)])
    shape = torch.from_numpy(world.shape[:, k])
    width = (edges[shape].view(-1, 1, 1) * radius).clamp(min=1e-3)
    rise = (1 + distance / width).clamp(0, 0.97)
    sine = torch.where(flat[shape].view(-1, 1, 1), torch.full_like(rise, _FLANK), rise)
    return sine * gx / length, sine * gy / length


def _soft(wave: torch.Tensor, sharp: float) -> torch.Tensor:
    return (0.5 + sharp * wave).clamp(0, 1)


_PATTERNS = {  # share of the second tone in the paint
    "striped": lambda x, y: _soft(torch.sin(_TURN * (x + y) / 8.0), 1.2),
    "dotted": lambda x, y: _soft(torch.cos(_TURN * x / 7.0) + torch.cos(_TURN * y / 7.0) - 0.7, 1.2),
    "checkered": lambda x, y: _soft(torch.sin(_TURN * x / 10.0) * torch.sin(_TURN * y / 10.0), 2.5),
}


def _pattern(world: Scenes, k: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Share of the second tone in object `k`'s paint, (N, W, W) in [0, 1]; x and y are offsets from its centre."""
    out = torch.zeros_like(x)
    for code, name in enumerate(MATERIALS):
        rows = np.flatnonzero(world.material[:, k] == code)
        if name in _PATTERNS:
            out[rows] = _PATTERNS[name](x[rows], y[rows])
        elif name == "speckled" and len(rows):
            grain = torch.from_numpy(_white(world.number[rows], 26 + k)).float()
            grain = torch.nn.functional.avg_pool2d(grain.unsqueeze(1), 3, 1, 1)
            grain = _Window(world.centre[rows, k]).cut(grain)[:, 0]
            out[rows] = _soft(grain / 0.19 - 0.7, 1.5)  # 0.19 is its spread
    return out


class _Window:
    """A square of WINDOW pixels in each image, round a centre (N, 2) and inside the image.

    An object fills a seventh of its image on average: drawing only its square costs half, and gives the same pixels.
    """

    def __init__(self, centre: np.ndarray) -> None:
        corner = np.clip(np.floor(centre).astype(np.int64) - WINDOW // 2, 0, IMAGE_SIZE - WINDOW)
        self.columns, self.rows = (torch.from_numpy(corner[:, [k]]) + torch.arange(WINDOW) for k in (0, 1))

    def _at(self, channels: int) -> tuple[torch.Tensor, ...]:
        images, planes = torch.arange(len(self.rows)).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
        return images, planes, self.rows[:, None, :, None], self.columns[:, None, None, :]

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """The squares of images (N, C, 64, 64)."""
        return images[self._at(images.shape[1])]

    def put(self, images: torch.Tensor, squares: torch.Tensor) -> None:
        """Write the squares back."""
        images[self._at(images.shape[1])] = squares


def _draw_object(world: Scenes, k: int, canvas: torch.Tensor) -> None:
    """Draw object `k`, which every drawing must have, and its soft shadow on `canvas`."""
    n, window = len(world), _Window(world.centre[:, k])
    centre, radius = torch.from_numpy(world.centre[:, k]).float(), torch.from_numpy(world.radius[:, k]).float()
    x = (window.columns + 0.5 - centre[:, :1]).unsqueeze(1).expand(n, WINDOW, WINDOW)
    y = (window.rows + 0.5 - centre[:, 1:]).unsqueeze(2).expand(n, WINDOW, WINDOW)
    shape, r = world.shape[:, k], radius.view(-1, 1, 1)
    lx, ly, lz = (part.view(-1, 1, 1) for part in _toward_light(world).unbind(1))

    shadow = _signed_distance(shape, x + SHADOW_SHIFT * lx * r, y + SHADOW_SHIFT * ly * r, r)
    dark = 0.62 * (0.5 - shadow / (2 * SHADOW_EDGE)).clamp(0, 1)
    ground = window.cut(canvas) * (1 - dark).unsqueeze(1)

    distance = _signed_distance(shape, x, y, r)
    nx, ny = _slope(world, k, distance, r)
    nz = (1 - nx * nx - ny * ny).clamp(min=0).sqrt()
    lit = 0.32 + 0.86 * (nx * lx + ny * ly + nz * lz).clamp(min=0)
    half = (2 + 2 * lz).sqrt()  # length of light + viewer
    gloss = ((nx * lx + ny * ly + nz * (lz + 1)) / half).clamp(0, 1) ** 24
    shiny = torch.from_numpy(world.material[:, k] == MATERIALS.index("shiny")).float().view(-1, 1, 1)

    base = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[torch.from_numpy(world.colour[:, k])]
    base = (base * torch.from_numpy(world.shade[:, k : k + 1]).float()).view(n, 3, 1, 1)
    second = _pattern(world, k, x, y).unsqueeze(1)
    paint = base * (1 - second) + (0.22 * base + 0.78 * 250) * second
    solid = paint * lit.unsqueeze(1) + (200 * shiny * gloss).unsqueeze(1)
    cover = (0.5 - distance).clamp(0, 1).unsqueeze(1)
    window.put(canvas, ground * (1 - cover) + cover * solid.clamp(0, 255))


def render(world: Scenes) -> torch.Tensor:
    """Draw the scenes with anti-aliased edges: uint8 RGB, (N, 3, 64, 64)."""
    canvas = empty(world)
    for k in (0, 1):
        rows = np.flatnonzero(world.objects > k)
        part = canvas[rows]
        _draw_object(world.take(rows), k, part)
        canvas[rows] = part
    return canvas.clamp(0, 255).round().to(torch.uint8)
