"""Captions and folders as people have them: each file is read as it is meant, or refused in one line that says why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from harness.data import load
from harness.errors import LONGEST, InputError

CAPTIONS = ["a red square", "a blue ring", "two green stars", "a yellow disc"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(4):
        Image.new("RGB", (8, 8), (60 * k, 0, 0)).save(folder / f"{k}.png")
    return folder


def spec(root=None, **more):
    return load.complete({"name": "folder", "path": None if root is None else str(root), **more})


def prompts(root, **more):
    data = load.load(spec(root, **more), (8, 8))
    return data.prompts(range(len(data)))


def refused(root, message, **more):
    with pytest.raises(InputError, match=message) as caught:
        load.check(spec(root, **more))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= LONGEST


def texts(root, given=CAPTIONS, suffix=".txt"):
    for k, caption in enumerate(given):
        (root / f"{k}{suffix}").write_text(caption, encoding="utf-8")


TWO = ["a red square", "a blue ring"]


@pytest.mark.parametrize(
    "raw, read",
    (
        (b"file_name, caption\n0.png, a red square\n1.png, a blue ring\n", TWO),
        (b"file_name;caption\n0.png;a red square\n1.png;a blue ring\n", TWO),
        (b"file_name\tcaption\n0.png\ta red square\n1.png\ta blue ring\n", TWO),
        (b"file_name|caption\r\n0.png|a red square\r\n1.png|a blue ring\r\n", TWO),
        (b"sep=;\r\nfile_name;caption\r\n0.png;a red square\r\n\r\n1.png;a blue ring\r\n", TWO),
        (b"caption,extra;text,file_name\na red square,1,0.png\na blue ring,2,1.png\n", TWO),
        (b"\xef\xbb\xbfFile_Name,Caption\n0.png,a red square\n1.png,a blue ring\n", TWO),
        ("file_name,caption\r\n0.png,a red square\r\n1.png,a blue ring\r\n".encode("utf-16"), TWO),
        (b"file_name,caption,\n0.png,a red square,\n1.png,a blue ring,\n", TWO),
        (b'file_name,caption\n0.png, "a ""red"" square, on\nblue"\n1.png,x\n', ['a "red" square, on\nblue', "x"]),
        ("file_name,caption\n0.png,a\u2028b\x85c\n1.png,x\n".encode(), ["a\u2028b\x85c", "x"]),
        (
            b'file_name;caption\n0.png;"a red square; on blue"\n1.png;red, blue\n',
            ["a red square; on blue", "red, blue"],
        ),
    ),
)
def test_tables_are_read_by_their_own_delimiter_and_encoding(root, raw, read):
    (root / "captions.csv").write_bytes(raw)
    assert prompts(root) == read


@pytest.mark.parametrize(
    "raw, message",
    (
        (b"file_name,caption\n1.png,x\n0.png,a red square, on blue\n", "row 2 .*3 fields, its header 2: put quotes"),
        (b"file_name;caption\n0.png;red; blue\n", "row 1 .*3 fields.*semicolon"),
        ("file_name,caption\n0.png,红色的方块\n1.png,蓝色\n".encode("gbk"), "UTF-8.*may be gbk.*iconv"),
        ("file_name,caption\n0.png,un carré coloré près d'ici\n".encode("latin-1"), "UTF-8.*may be cp1252.*iconv"),
        ("file_name,caption\n0.png,a\n".encode("utf-16le"), "UTF-8.*may be utf-16le"),
        ("file_name,caption\n0.png,a\n".encode("utf-16be"), "UTF-8.*may be utf-16be"),
        (b"file_name,caption,caption\n0.png,a,b\n", "two columns 'caption'"),
        (b'file_name,caption\n0.png,"a red square\n1.png,x\n', "row 1 .*unexpected end"),
        (b"file_name,caption\n0.png\n", "row 1 .*no caption"),
        (b"file_name,caption\n0.png,  \n", "row 1 .*no caption"),
        (",".join(f"column_{k}" for k in range(5000)).encode() + b"\n" + b"x," * 4999 + b"x\n", "no column"),
    ),
)
def test_a_table_that_can_be_misread_is_refused(root, raw, message):
    (root / "captions.csv").write_bytes(raw)
    refused(root, message)
    refused(root, ".", caption_column="none of them")


@pytest.mark.parametrize("end", ("\n", "\r\n"))
def test_json_lines_end_at_line_ends_only(root, end):
    rows = [{"file_name": f"{k}.png", "text": f"{c}\u2028second\x85line"} for k, c in enumerate(CAPTIONS)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (root / "metadata.jsonl").write_bytes(("\ufeff" + (end + end).join(lines) + end).encode())
    assert prompts(root) == [f"{c}\u2028second\x85line" for c in CAPTIONS]
    (root / "metadata.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    refused(root, "line 2 of .*cannot be read as JSON")


COCO = {
    "images": [{"id": 10 + k, "file_name": f"{k}.png"} for k in range(4)],
    "annotations": [{"id": 100 + k, "image_id": 10 + k, "caption": c} for k, c in enumerate(CAPTIONS)],
}
LIST = [{"file_name": f"{k}.png", "caption": c} for k, c in enumerate(CAPTIONS)]


@pytest.mark.parametrize(
    "text",
    (
        "\ufeff" + json.dumps(COCO),
        json.dumps(LIST),
        json.dumps({f"{k}.png": c for k, c in enumerate(CAPTIONS)}),
        json.dumps({f"{k}.png": [c, "another"] for k, c in enumerate(CAPTIONS)}),
        "\r\n".join(map(json.dumps, LIST)),
    ),
)
def test_json_of_every_known_layout(root, text):
    (root / "captions.json").write_text(text, encoding="utf-8")
    assert prompts(root) == CAPTIONS


@pytest.mark.parametrize("text", ("[]", "3", "[1, 2]", '{"a": 1}', '{"images": 1, "annotations": []}', "{", "x,y"))
def test_json_of_another_layout_names_the_three(root, text):
    (root / "captions.json").write_text(text)
    refused(root, r"COCO.*list of \{file_name, caption\}.*file name: caption")
    empty = {**COCO, "annotations": [{**COCO["annotations"][0], "caption": " "}]}
    (root / "captions.json").write_text(json.dumps(empty))
    refused(root, "annotation 100 .*no caption")


def test_prompts_end_at_line_ends_only(tmp_path):
    file = tmp_path / "prompts.txt"
    for end in ("\n", "\r\n", "\r"):
        file.write_bytes(f"one prompt\u2028still\x85the\x0bsame\x0cone{end}{end}the second{end}".encode())
        assert prompts(None, prompts=str(file)) == ["one prompt\u2028still\x85the\x0bsame\x0cone", "the second"]


def test_texts_beside_images(root):
    texts(root, [" first\r\n second\u2028third \n", *CAPTIONS[1:]])
    assert prompts(root) == ["first second\u2028third", *CAPTIONS[1:]]
    texts(root, ["", *CAPTIONS[1:]])
    refused(root, "0.txt' has no caption")


@pytest.mark.parametrize("suffix", (".txt", ".TXT", ".caption", ".json"))
def test_kinds_of_texts_beside_images(root, suffix):
    texts(root, [json.dumps({"key": c, "caption": c}) if suffix == ".json" else c for c in CAPTIONS], suffix)
    (root / "0.png").rename(root / "0.PNG")
    assert prompts(root) == CAPTIONS and not load.remarks(spec(root))


def test_of_several_kinds_beside_images_a_knob_chooses(root):
    texts(root)
    texts(root, [json.dumps({"caption": f"json {c}", "other": f"other {c}"}) for c in CAPTIONS], ".json")
    texts(root, [f"tags of {c}" for c in CAPTIONS], ".caption")
    assert prompts(root) == CAPTIONS and prompts(root, sidecars="txt") == CAPTIONS
    assert prompts(root, sidecars="json") == [f"json {c}" for c in CAPTIONS]
    assert prompts(root, sidecars="json", caption_column="other") == [f"other {c}" for c in CAPTIONS]
    assert prompts(root, sidecars="caption") == [f"tags of {c}" for c in CAPTIONS]
    (said,) = load.remarks(spec(root))
    assert "data.sidecars=caption or data.sidecars=json" in said
    refused(root, "sidecars='jsn' is not valid.*'json'", sidecars="jsn")
    refused(root, "exclude each other", sidecars="txt", captions=str(root / "c.csv"))
    (root / "0.json").write_text('{"key": 1}')
    refused(root, "0.json' has no caption", sidecars="json")
    for k in range(4):
        (root / f"{k}.json").unlink()
    refused(root, "no image in .* has a .json file", sidecars="json")


def test_what_is_left_out_is_said(root):
    texts(root, CAPTIONS[:2])
    (root / "x.tif").write_bytes(b"II*\0")
    left, others = load.remarks(spec(root))
    assert left.startswith("2 of 4 images have no caption") and "2.png" in left
    assert "1 files of kinds that are not taken (.tif;" in others
    (root / "captions.csv").write_text("file_name,caption\n0.png,a\n0.png,a\n1.png,b\n")
    repeated, left = load.remarks(spec(root))
    assert repeated.startswith("1 of 3 rows") and left.startswith("2 of 4 images")
    assert prompts(root) == ["a", "a", "b"]


def test_hidden_names_and_folders_of_systems_are_no_data(root):
    texts(root)
    before = load.fingerprint(spec(root))
    for name in ("._0.png", ".hidden/0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "@eaDir/0.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
        (root / name).with_suffix(".txt").write_text("stale")
    for name in ("Thumbs.db", "desktop.ini", "._captions.csv", ".captions.json"):
        (root / name).write_text("junk")
    assert prompts(root) == CAPTIONS and load.fingerprint(spec(root)) == before and not load.remarks(spec(root))
    assert load.load(spec(root), (8, 8)).reference_size == 4


def test_no_message_grows_with_the_folder(root):
    for k in range(400):
        (root / f"{k:0200d}.csv").write_text("file_name,caption\n")
    refused(root, "several caption files .* and 397 more")
    assert len(str(InputError("x" * 10_000))) == LONGEST


@pytest.mark.parametrize(
    "name, head, kind",
    (("a.png", b"GIF89a", "GIF"), ("b.jpg", b"II*\0", "TIFF"), ("c.webp", b"\0\0\0\x1cftypheic", "HEIC")),
)
def test_a_picture_of_another_kind_is_told_before_a_model_is_loaded(root, name, head, kind):
    (root / name).write_bytes(head + bytes(64))
    (root / "captions.csv").write_text(f"file_name,caption\n{name},x\n")
    refused(root, f"{name}' cannot be read: it is a {kind} file, taken are PNG, JPEG, WEBP, BMP: convert it")


def test_a_folder_of_other_pictures_names_the_kinds_that_are_taken(tmp_path):
    (tmp_path / "0.gif").write_bytes(b"GIF89a")
    refused(tmp_path, r"no image in it; but 1 files of kinds that are not taken \(\.gif; taken: \.png")


def picture(root, image, **how):
    image.save(root / "0.png" if "format" not in how else root / f"0.{how['format'].lower()}", **how)
    return load.load(spec(root), image.size[::-1]).images([0])[0].permute(1, 2, 0).numpy()


@pytest.fixture
def one(tmp_path):
    (tmp_path / "0.txt").write_text("x")
    return tmp_path


def test_sixteen_bits_are_read_by_their_upper_eight(one):
    ramp = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)
    shown = picture(one, Image.fromarray(ramp))
    assert (shown == (ramp >> 8)[..., None]).all() and len(np.unique(shown)) == 256 and shown.mean() == 127.5


def test_modes_of_pictures(one):
    assert (picture(one, Image.new("LA", (4, 4), (0, 0))) == 255).all()
    assert (picture(one, Image.new("LA", (4, 4), (9, 255))) == 9).all()
    assert (picture(one, Image.new("1", (4, 4), 1)) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (picture(one, palette) == [10, 20, 30]).all()
    palette.info["transparency"] = 1
    assert (picture(one, palette, transparency=1) == 255).all()
    (one / "0.png").unlink()
    cmyk = picture(one, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), format="JPEG", quality=100)
    assert cmyk[..., 0].min() > 240 and cmyk[..., 1:].max() < 15
