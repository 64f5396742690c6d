"""Masks are read by what they hold: range, alpha, colour. What is not clear is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from harness.data import load
from harness.data.masks import read_mask
from harness.errors import LONGEST, InputError

BOX = np.zeros((32, 32), np.uint8)
BOX[8:24, 8:24] = 1
NOISE = np.random.default_rng(0).integers(0, 9, (32, 32))


def colours(*levels):
    return np.dstack([BOX * level for level in levels])


def alpha(rgb, alpha_levels):
    rgb = np.broadcast_to(np.asarray(rgb, np.uint8), (32, 32, 3))
    return Image.fromarray(np.dstack([rgb, np.asarray(alpha_levels, np.uint8)]))


def palette(first, second, **more):
    image = Image.fromarray(BOX).convert("P")
    image.putdata(BOX.ravel().tolist())
    image.putpalette([*first, *second])
    return image


SOFT = np.array(Image.fromarray(BOX * 255).resize((64, 64), Image.BICUBIC).resize((32, 32), Image.BICUBIC))
RING = np.zeros((32, 32), np.uint8)
RING[4:28, 4:28] = 1

QUARTER = {
    "0 and 1": Image.fromarray(BOX),
    "0 and 255": Image.fromarray(BOX * 255),
    "0 and 100": Image.fromarray(BOX * 100),
    "one bit": Image.fromarray(BOX * 255).convert("1"),
    "16 bits": Image.fromarray(BOX.astype(np.uint16) * 65535),
    "16 bits, up to 1": Image.fromarray(BOX.astype(np.uint16)),
    "16 bits, up to 255": Image.fromarray(BOX.astype(np.uint16) * 255),
    "three channels of 0 and 1": Image.fromarray(colours(1, 1, 1)),
    "soft": Image.fromarray(SOFT),
    "noise": Image.fromarray(np.where(BOX, 255 - NOISE, NOISE).astype(np.uint8)),
    "red": Image.fromarray(colours(255, 0, 0)),
    "dark red": Image.fromarray(colours(128, 0, 0)),
    "a mixed colour": Image.fromarray(colours(224, 128, 10)),
    "soft red": Image.fromarray(np.dstack([SOFT, SOFT * 0, SOFT * 0])),
    "palette": palette((0, 0, 0), (200, 0, 60)),
    "palette of 0 and 1": palette((0, 0, 0), (1, 1, 1)),
    "alpha, white": alpha((255, 255, 255), BOX * 255),
    "alpha, black": alpha((0, 0, 0), BOX * 255),
    "alpha of 0 and 1": alpha((255, 255, 255), BOX),
    "alpha, nothing under it": alpha(colours(255, 255, 255), BOX * 255),
    "soft alpha": alpha((255, 255, 255), SOFT),
    "alpha, anything under it": alpha(np.where(BOX[..., None], 255, NOISE[..., None] * 28), BOX * 255),
    "grey and alpha": Image.fromarray(np.dstack([BOX * 0 + 255, BOX * 255]).astype(np.uint8), "LA"),
    "colours, opaque": alpha(colours(255, 255, 255), BOX * 0 + 255),
    "colours, all transparent": alpha(colours(255, 255, 255), BOX * 0),
    "colours, alpha nearly constant": alpha(colours(255, 255, 255), 250 + NOISE // 2),
    "both vary and agree": alpha(colours(255, 0, 0), RING * 255),
}


@pytest.mark.parametrize("name", QUARTER)
def test_a_mask_is_read_by_what_it_holds(tmp_path, name):
    QUARTER[name].save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == bool and mask.mean() == 0.25 and (mask == (BOX > 0)).all()


@pytest.mark.parametrize("format, how", (("JPEG", {"quality": 40}), ("WEBP", {"quality": 40})))
@pytest.mark.parametrize("high, colour", ((255, (1, 1, 1)), (100, (1, 1, 1)), (255, (1, 0, 0))))
def test_lossy_masks_have_no_pure_black(tmp_path, format, how, high, colour):
    small = np.kron(BOX, np.ones((8, 8), np.uint8))
    pixels = np.dstack([small * high * part for part in colour]).astype(np.uint8)
    file = tmp_path / f"mask.{format.lower()}"
    Image.fromarray(pixels).save(file, **how)
    assert abs(read_mask(file).mean() - 0.25) < 0.02
    Image.fromarray((NOISE % 4).astype(np.uint8)).save(file, **how)
    assert not read_mask(file).any()
    Image.fromarray(BOX).convert("RGB").save(tmp_path / "exact.webp", lossless=True)
    assert read_mask(tmp_path / "exact.webp").mean() == 0.25


UNCLEAR = {
    "several colours": (
        Image.fromarray(colours(255, 0, 0) + np.dstack([BOX * 0, 255 - BOX * 255, BOX * 0])),
        "colours",
    ),
    "red on white": (Image.fromarray(np.where(BOX[..., None], (255, 0, 0), 255).astype(np.uint8)), "colours"),
    "bright red and dark blue": (Image.fromarray(np.dstack([BOX * 255, BOX * 0, RING * 90 - BOX * 90])), "colours"),
    "numbers of classes": (Image.fromarray((BOX + RING).astype(np.uint8)), "levels 1, 2 of 255"),
    "colours against alpha": (alpha(np.where(BOX[..., None], 0, 255), BOX * 255), "transparency"),
    "halves": (alpha(colours(255, 255, 255), np.eye(32) * 255), "transparency"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_a_mask_of_two_meanings_is_refused(tmp_path, name):
    image, says = UNCLEAR[name]
    image.save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=f"mask.png' .*{says}.*black is keep") as caught:
        read_mask(tmp_path / "mask.png")
    assert len(str(caught.value)) <= LONGEST


@pytest.mark.parametrize("level", (0, 255))
def test_masks_of_one_level(tmp_path, level):
    for image in (Image.new("L", (8, 8), level), palette((level,) * 3, (level,) * 3), alpha((level,) * 3, BOX + 254)):
        image.save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png").mean() == level / 255
    alpha((level,) * 3, BOX * 0).save(tmp_path / "mask.png")  # nothing of it can be seen
    assert not read_mask(tmp_path / "mask.png").any()


def nested(tmp_path):
    for sub, half in (("a", slice(0, 16)), ("b/c", slice(16, 32))):
        for top in ("photos", "masks"):
            (tmp_path / top / sub).mkdir(parents=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[:, half] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / sub / "0.PNG")
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / sub / "0.png")
        (tmp_path / "photos" / sub / "0.txt").write_text(sub)
    return {"name": "folder", "path": str(tmp_path / "photos"), "masks": str(tmp_path / "masks")}


def test_the_mirrored_place_of_a_mask_is_looked_up_first(tmp_path):
    spec = nested(tmp_path)
    Image.new("L", (32, 32), 255).save(tmp_path / "masks" / "0.png")
    load.check(spec, 2, "inpaint")
    masks = load.load(spec, (32, 32)).masks(range(2))
    assert masks[0, 0, :, :16].all() and not masks[0, 0, :, 16:].any()
    assert masks[1, 0, :, 16:].all() and not masks[1, 0, :, :16].any()
    (tmp_path / "masks" / "a" / "0.PNG").unlink()
    assert load.load(spec, (32, 32)).masks([0]).all()  # by name alone, where the tree is not mirrored
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.raises(InputError, match=r"no mask for '0\.png'"):
        load.check(spec, 2, "inpaint")


def test_an_unclear_mask_is_refused_before_a_model_is_loaded(tmp_path):
    spec = nested(tmp_path)
    UNCLEAR["red on white"][0].save(tmp_path / "masks" / "a" / "0.PNG")
    with pytest.raises(InputError, match="several colours"):
        load.check(spec, 2, "inpaint")
    load.check(spec, 2, "txt2img")


def test_the_share_repainted_is_counted_and_extremes_are_named(tmp_path):
    from harness.measure.mask_share import MaskShare

    spec = nested(tmp_path)
    data = load.load(spec, (32, 32))
    counted = MaskShare(data)
    assert counted.mean is None
    counted.add(range(2), None)
    assert counted.mean is None and counted.words() == []
    counted.add(range(2), data.masks(range(2)))
    assert counted.mean == 0.5 and counted.words() == []
    Image.new("L", (32, 32), 0).save(tmp_path / "masks" / "a" / "0.PNG")
    Image.new("L", (32, 32), 255).save(tmp_path / "masks" / "b" / "c" / "0.PNG")
    counted.add(range(2), data.masks(range(2)))
    nothing, everything = counted.words()
    assert counted.mean == 0.5 and nothing.startswith("1 of 2 masks repaint nothing") and "a/0.PNG" in nothing
    assert everything.startswith("1 of 2 masks repaint everything") and "c/0.PNG" in everything
