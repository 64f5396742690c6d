"""Prompts, images, masks and reference: the embedded world, and folders as people have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from harness.data import load, resize
from harness.errors import InputError

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def folder_of(tmp_path, size=(40, 20), sub=""):
    """Three images, `size` = (width, height): a coloured left half, a white right half."""
    root = tmp_path / "photos"
    (root / sub).mkdir(parents=True)
    for name, colour in COLOURS.items():
        image = Image.new("RGB", size, "white")
        image.paste(colour, (0, 0, size[0] // 2, size[1]))
        image.save(root / sub / f"{name}.png")
    return root


def spec(root=None, **more):
    return {"name": "folder", "path": None if root is None else str(root), **more}


def write_csv(root, text="file_name,caption\nred.png,a red half\ngreen.png,a green half\nblue.png,a blue half\n"):
    (root / "captions.csv").write_text(text)
    return root


# ------------------------------------------------------------------------------------------------- embedded world


def test_embedded_prompts_are_held_out_and_do_not_depend_on_how_they_are_asked_for():
    data = load.load({"name": "embedded"}, (64, 64))
    assert data.scenes(range(700)).held_out().all()
    assert data.prompts([600, 3]) == [
        data.prompts(range(700))[600],
        load.load({"name": "embedded"}, (64, 64)).prompts([3])[0],
    ]
    assert torch.equal(data.images([5, 2]), data.images(range(6))[[5, 2]])
    assert data.images([0]).dtype == torch.uint8 and data.images([0]).shape == (1, 3, 64, 64)
    only_one = load.load({"name": "embedded", "two_objects": 0.0}, (64, 64))
    assert (only_one.scenes(range(50)).objects == 1).all()
    moved = load.load({"name": "embedded", "start": 10_000}, (64, 64))
    assert moved.prompts(range(20)) != data.prompts(range(20)) and moved.fingerprint != data.fingerprint


def test_embedded_reference_and_sources_are_other_drawings_than_the_prompts():
    data = load.load({"name": "embedded"}, (64, 64))
    own = data.images(range(200)).flatten(1)
    reference = torch.cat(list(data.reference(64, 24)))
    assert reference.shape == (64, 3, 64, 64)
    edited = data.sources(range(64), "img2img")
    for others in (reference, edited):
        assert torch.cdist(own.float(), others.flatten(1).float()).min() > 0
    assert torch.equal(torch.cat(list(data.reference(40, 7))), reference[:40])
    assert torch.equal(data.sources(range(8), "inpaint"), data.images(range(8)))
    kept = load.load({"name": "embedded", "source": "own"}, (64, 64))
    assert torch.equal(kept.sources(range(8), "img2img"), data.images(range(8)))


def test_embedded_masks_cover_one_object_and_leave_the_other():
    from harness.data.embedded import MASK_GRID
    from harness.embedded import world

    data = load.load({"name": "embedded"}, (64, 64))
    rows = range(200)
    scenes, masks = data.scenes(rows), data.masks(rows)
    assert masks.dtype == torch.uint8 and masks.shape == (200, 1, 64, 64) and set(masks.unique().tolist()) == {0, 1}
    cells = masks.float().unfold(2, MASK_GRID, MASK_GRID).unfold(3, MASK_GRID, MASK_GRID).flatten(4).mean(-1)
    assert set(cells.unique().tolist()) == {0.0, 1.0}  # whole cells of the latent
    # Painted out with the empty ground, the drawing has lost exactly the object under the mask, and its shadow.
    ink = (data.images(rows).float() - world.empty(scenes).clamp(0, 255)).abs().amax(1) > 1
    for n in range(200):
        mask = masks[n, 0].bool()
        if scenes.objects[n] == 1:
            assert ink[n].any() and not (ink[n] & ~mask).any()
        else:
            k = n % 2
            x, y = (int(v) for v in scenes.centre[n, k])
            assert mask[y, x] and not mask[tuple(int(v) for v in scenes.centre[n, 1 - k][::-1])]
            assert (ink[n] & ~mask).any()


def test_embedded_at_another_size_is_resized_and_says_so():
    data = load.load({"name": "embedded"}, (128, 96))
    assert data.images([0]).shape == (1, 3, 128, 96) and data.masks([0]).shape == (1, 1, 128, 96)
    assert data.resizer == "pil-bicubic-squash" and load.load({"name": "embedded"}, (64, 64)).resizer == "none"


# --------------------------------------------------------------------------------------------------------- folder


def as_jsonl(root):
    rows = [{"image": f"{name}.png", "text": f"a {name} half"} for name in COLOURS]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")


def as_parquet(root):
    import pandas as pd

    rows = {"path": [f"{n}.png" for n in COLOURS], "prompt": [f"a {n} half" for n in COLOURS]}
    pd.DataFrame(rows).to_parquet(root / "train.parquet")


def as_coco(root):
    images = [{"id": 7 - k, "file_name": f"{name}.png"} for k, name in enumerate(reversed(COLOURS))]
    notes = [{"id": 10 + i["id"], "image_id": i["id"], "caption": f"a {i['file_name'][:-4]} half "} for i in images]
    notes.append({"id": 99, "image_id": 7, "caption": "another caption of the same image"})
    (root / "captions_val.json").write_text(json.dumps({"images": images, "annotations": notes}))


def as_text_files(root):
    for name in COLOURS:
        (root / f"{name}.txt").write_text(f"a {name} half\n")


@pytest.mark.parametrize("write", [write_csv, as_jsonl, as_parquet, as_coco, as_text_files])
def test_captions_are_found_in_every_format(tmp_path, write):
    root = folder_of(tmp_path)
    write(root)
    load.check(spec(root), n_images=3, task="img2img")
    data = load.load(spec(root, fit="squash"), (20, 40))
    assert len(data) == 3 and sorted(data.prompts(range(3))) == sorted(f"a {name} half" for name in COLOURS)
    images = data.images(range(3))
    assert images.shape == (3, 3, 20, 40) and images.dtype == torch.uint8
    for prompt, image in zip(data.prompts(range(3)), images, strict=True):
        assert tuple(image[:, 10, 5].tolist()) == COLOURS[prompt.split()[1]]
    assert data.reference_size == 3 and torch.cat(list(data.reference(100, 2))).shape[0] == 3


def test_coco_images_in_a_folder_beside_the_annotations(tmp_path):
    root = folder_of(tmp_path, sub="val2017")
    (root / "annotations").mkdir()
    as_coco(root / "annotations")
    data = load.load(spec(root, captions=str(root / "annotations" / "captions_val.json")), (16, 16))
    assert data.images(range(3)).shape == (3, 3, 16, 16)
    assert "another caption" not in " ".join(data.prompts(range(3)))


def test_fit_says_what_becomes_of_the_aspect(tmp_path):
    root = write_csv(folder_of(tmp_path))  # 40x20: left half coloured
    cut = {fit: load.load(spec(root, fit=fit), (20, 20)).images([0])[0] for fit in resize.FITS}
    red, white, black = COLOURS["red"], (255,) * 3, (0,) * 3

    def row(image):
        return [tuple(image[:, 10, x].tolist()) for x in (1, 18)]

    def column(image):
        return [tuple(image[:, y, 2].tolist()) for y in (1, 10, 18)]

    for fit in resize.FITS:
        assert row(cut[fit]) == [red, white], fit
    assert column(cut["crop"]) == column(cut["squash"]) == [red] * 3
    assert column(cut["pad"]) == [black, red, black]
    edge = cut["squash"][:, 10, 8:12].float()  # two source pixels a target pixel: an antialiased edge, no wide blur
    assert edge[0].tolist() == sorted(edge[0].tolist())
    crop = cut["crop"][0, 10]
    assert crop[9] < 230 and crop[10] == 255  # pixels as they were: 20 wide, from the middle
    prints = {load.fingerprint(spec(root, fit=fit)) for fit in resize.FITS}
    assert len(prints) == 3


def test_the_resizer_is_antialiased():
    fine = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    fine[..., ::2] = 255  # stripes of one pixel: grey when averaged, stripes again when sampled
    small = resize.resize(fine, (16, 16))[..., 2:-2]
    assert small.float().std() < 4 and abs(small.float().mean() - 127.5) < 6
    assert resize.resize(fine, (64, 64)) is fine


def test_masks_belong_to_their_images(tmp_path):
    root = write_csv(folder_of(tmp_path))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in COLOURS:
        mask = Image.new("L", (40, 20), 0)
        mask.paste(255, (0, 0, 20, 20))
        mask.save(masks / f"{name}.png")
    data = load.load(spec(root, masks=str(masks)), (20, 40))
    got = data.masks(range(3))
    assert got.shape == (3, 1, 20, 40) and got[..., :20].min() == 1 and got[..., 20:].max() == 0
    centre = load.load(spec(root), (20, 40)).masks([0])[0, 0]
    assert centre.sum() == 200 and centre[5:15, 10:30].min() == 1
    Image.new("L", (10, 10)).save(masks / "green.png")
    with pytest.raises(InputError, match=r"mask .*green\.png' is 10x10 pixels, its image 'green\.png' is 40x20"):
        data.masks([1])
    (masks / "blue.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 'blue\.png'"):
        data.masks([2])


def test_prompts_alone(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text('a house\n\n a tree, "oak" \n')
    data = load.load(spec(prompts=str(file)), (64, 64))
    assert data.prompts(range(2)) == ["a house", 'a tree, "oak"'] and data.reference_size == 0
    assert list(data.reference(5)) == []
    with pytest.raises(InputError, match="needs an image for each prompt"):
        data.images([0])
    with pytest.raises(InputError, match="task=img2img needs an image"):
        load.check(spec(prompts=str(file)), task="img2img")
    with pytest.raises(InputError, match="n_images=3 is more than the 2 prompts"):
        load.check(spec(prompts=str(file)), n_images=3)
    with pytest.raises(InputError, match="prompt 2 was asked for, the data has 2"):
        data.prompts([2])
    root = folder_of(tmp_path)  # prompts from a file, reference images from a folder without captions
    assert load.load(spec(root, prompts=str(file)), (64, 64)).reference_size == 3


def test_other_source_is_the_next_image(tmp_path):
    root = write_csv(folder_of(tmp_path))
    data = load.load(spec(root, source="other"), (20, 40))
    assert torch.equal(data.sources([0, 2], "img2img"), data.images([1, 0]))
    assert torch.equal(data.sources([0], "inpaint"), data.images([0]))


def test_transparency_is_over_white_and_exif_turns(tmp_path):
    root = write_csv(folder_of(tmp_path))
    Image.new("RGBA", (40, 20), (255, 0, 0, 0)).save(root / "red.png")
    turned = Image.new("RGB", (20, 40), "white")
    turned.paste("black", (0, 0, 20, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the black upper half is shown on the right
    turned.save(root / "green.png", exif=exif)
    images = load.load(spec(root), (20, 40)).images([0, 1])
    assert images[0].min() == 255
    assert images[1, :, :, :18].min() == 255 and images[1, :, :, 22:].max() == 0


def test_fingerprint_follows_the_content(tmp_path):
    root = write_csv(folder_of(tmp_path))
    before = load.fingerprint(spec(root))
    os.utime(root / "red.png", (1, 1))
    assert load.fingerprint(spec(root)) == before  # a copy of the folder is the same data
    Image.new("RGB", (40, 20), "black").save(root / "blue.png")
    changed = load.fingerprint(spec(root))
    assert changed != before
    text = (root / "captions.csv").read_text()
    write_csv(root, text.replace("a blue half", "a night"))
    assert load.fingerprint(spec(root)) not in (before, changed)
    assert load.load(spec(root), (8, 8)).prompts([2]) == ["a night"]


# ------------------------------------------------------------------------------------------------------ bad input


def refused(message, given, **more):
    with pytest.raises(InputError, match=message) as caught:
        load.check(given, **more)
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_clear_line(tmp_path):
    root = folder_of(tmp_path)
    refused("did you mean 'embedded'", {"name": "embeded"})
    refused("did you mean 'start'", {"name": "embedded", "strat": 1})
    refused("two_objects=2 is not valid", {"name": "embedded", "two_objects": 2})
    refused("start=-1 is not valid", {"name": "embedded", "start": -1})
    refused("source='none' is not valid", {"name": "embedded", "source": "none"})
    refused("needs data.path", spec())
    refused("is not a folder", spec(tmp_path / "nowhere"))
    refused("3 images and no captions", spec(root))
    refused("fit='stretch' is not valid", spec(write_csv(root), fit="stretch"))
    refused("is not a column of .*did you mean 'caption'", spec(root, caption_column="captoin"))
    refused("data.masks='/nowhere' is not a folder", spec(root, masks="/nowhere"))
    refused("is not a file", spec(root, captions="/nowhere.csv"))
    as_jsonl(root)
    refused("several caption files .captions.csv, metadata.jsonl", spec(root))
    (root / "metadata.jsonl").unlink()
    for text, message in (
        ("file_name,caption\n", "no rows"),
        ("file_name,caption\nred.png,\n", "row 1 .*no caption"),
        ("file_name,caption\n,red\n", "row 1 .*no file name"),
        ("file_name,caption\npink.png,pink\n", "names 'pink.png', which is not in"),
        ("file_name,caption\n../../etc/passwd,secret\n", "which is outside of"),
        ("a,b\nred.png,red\n", "no column 'file_name'.*image_column=.*columns: a, b"),
    ):
        refused(message, spec(write_csv(root, text)))
    (root / "captions.csv").rename(root / "captions.jsonl")
    refused("line 1 .*cannot be read as JSON", spec(root))
    (root / "captions.jsonl").rename(root / "captions.json")
    refused("is not .*COCO", spec(root))
    (root / "captions.json").rename(root / "captions.parquet")
    refused("cannot be read as parquet", spec(root))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    refused("has no prompt in it", spec(prompts=str(empty)))
    empty.write_bytes(b"\xff\xfe\x00")
    refused("cannot be read as UTF-8", spec(prompts=str(empty)))
    refused("is not a file", spec(prompts=str(tmp_path / "no.txt")))


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_damaged_image_is_named(tmp_path, keep):
    root = write_csv(folder_of(tmp_path))
    content = (root / "green.png").read_bytes()
    (root / "green.png").write_bytes(content[:keep])
    data = load.load(spec(root), (16, 16))
    assert data.images([0]).shape == (1, 3, 16, 16)
    with pytest.raises(InputError, match=r"green\.png' cannot be read") as caught:
        data.images([1])
    assert "\n" not in str(caught.value)


def test_checking_needs_no_torch(tmp_path):
    root = write_csv(folder_of(tmp_path))
    given = [{"name": "embedded"}, spec(root)]
    code = (
        "import json, sys; from harness.data import load; "
        f"specs = json.loads({json.dumps(json.dumps(given))}); "
        "[(load.check(s), load.fingerprint(s)) for s in specs]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=load.CONF.parents[1], check=False).returncode == 0
