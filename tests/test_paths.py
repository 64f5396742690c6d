"""One cell has one id, however the paths of its data and model are spelled and wherever these lie."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from harness.cell import Cell
from harness.data import load
from harness.errors import InputError
from harness.models.locate import EMBEDDED
from harness.sweep.enumerate import enumerate_cells


@pytest.fixture
def home(tmp_path, monkeypatch):
    for top in ("photos", "masks"):
        (tmp_path / top).mkdir()
        for k in range(2):
            Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / top / f"{k}.png")
    (tmp_path / "captions.csv").write_text("file_name,caption\n0.png,a\n1.png,b\n")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cell(*words: str) -> Cell:
    asked = enumerate_cells(["n_images=2", "steps=3", "device=cpu", "threads=1", *words])
    (found,) = asked.cells.values()
    return found


def folder_cell(path: str, captions: str = "captions.csv", masks: str = "masks") -> Cell:
    return cell("task=inpaint", "data=folder", f"data.path={path}", f"data.captions={captions}", f"data.masks={masks}")


def test_every_spelling_of_a_folder_is_one_cell(home):
    spelled = ["photos", "photos/", "./photos", "masks/../photos", str(home / "photos"), "link", "~/photos", "~/link/"]
    cells = [folder_cell(path) for path in spelled]
    cells += [folder_cell("photos", captions=path) for path in ("~/captions.csv", "./masks/../captions.csv")]
    cells += [folder_cell("photos", masks=path) for path in ("masks/", "~/masks", str(home / "masks"))]
    assert len({one.cell_id for one in cells}) == 1
    assert cells[0].data["path"] == str((home / "photos").resolve())  # a worker finds it from anywhere
    assert Cell.from_canonical(cells[0].canonical()).cell_id == cells[0].cell_id
    prompts = [cell("data=folder", f"data.prompts={path}").cell_id for path in ("prompts.txt", "~/prompts.txt")]
    assert prompts[0] == prompts[1] != cells[0].cell_id
    shutil.copytree(home / "photos", home / "elsewhere")
    assert folder_cell("elsewhere").cell_id == cells[0].cell_id
    Image.new("RGB", (8, 8)).save(home / "photos" / "1.png")
    assert folder_cell("photos").cell_id != cells[0].cell_id
    Image.new("RGB", (8, 8)).save(home / "masks" / "1.png")
    assert len({folder_cell(path).cell_id for path in ("photos", "elsewhere")}) == 2
    assert folder_cell("elsewhere").cell_id != cells[0].cell_id


def test_every_spelling_of_a_model_is_one_cell(home, monkeypatch):
    (home / "model").symlink_to(EMBEDDED)
    monkeypatch.chdir(home / "photos")
    spelled = ["../model", str(EMBEDDED), f"{EMBEDDED}/", "~/model", "./../masks/../model/"]
    found = [cell("model=diffusers", f"model.path={path}", "data=embedded", "cfg=1") for path in spelled]
    assert len({one.cell_id for one in found}) == 1 and len({one.model_key for one in found}) == 1
    assert found[0].model["name"] == "diffusers" and found[0].label == found[1].label


def test_a_folder_in_the_way_does_not_hide_the_embedded_model(home):
    before = cell()
    (home / "embedded").mkdir()
    assert cell().cell_id == before.cell_id and cell().model["path"] == "embedded"


def test_records_of_older_ids_are_still_the_question_s_own(home):
    import hashlib

    one = folder_cell("photos")
    assert one.has_id(one.cell_id) and one.has_id(hashlib.sha256(one.canonical().encode()).hexdigest()[:16])
    assert not one.has_id("0" * 16)
    plain = cell()
    assert plain.cell_id == hashlib.sha256(plain.canonical().encode()).hexdigest()[:16]


def test_home_is_expanded_everywhere(home):
    spec = {"name": "folder", "path": "~/photos", "captions": "~/captions.csv", "masks": "~/masks"}
    load.check(spec, 2, "inpaint")
    assert load.load(spec, (8, 8)).masks([0]).all()
    assert load.load({"name": "folder", "prompts": "~/prompts.txt"}, (8, 8)).prompts([1]) == ["b"]
    with pytest.raises(InputError, match=r"data\.masks='~nobody-of-that-name/x' is not a folder"):
        load.check({**spec, "masks": "~nobody-of-that-name/x"}, 2, "inpaint")


def test_a_caption_file_may_know_the_folder_by_another_name(home):
    (home / "captions.csv").write_text(f"file_name,caption\n{home}/link/0.png,a\n{home}/photos/1.png,b\n")
    assert len({folder_cell(path).cell_id for path in ("link", "photos")}) == 1


def test_remarks_of_the_data_are_notes_of_the_sweep(home):
    (home / "captions.csv").write_text("file_name,caption\n0.png,a\n")
    words = ["n_images=1", "steps=2,3", "data=folder", "data.path=photos", "data.captions=captions.csv"]
    notes = enumerate_cells(words).notes
    assert len(notes) == 1 and notes[0].startswith("1 of 2 images have no caption")
