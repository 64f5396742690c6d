"""What a sweep says while it runs and at its end: in a log file as on a terminal; and the picture that it names."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.bench.fake_cells import SESSION, cell
from harness.executors.base import Notice, Progress, Record, TakenByAnother
from harness.specs import Settings
from harness.sweep import plots, run
from harness.sweep.display import Display, in_words

ROOT = Path(__file__).resolve().parents[1]
HOW = {"executor": {"name": "local"}, "workers": 1, "cell_timeout": None, "retries": 0, "shard_images": None}
SETTINGS = Settings({"force": False, "debug": False, "tracker": "none", **HOW})


class Told:
    """A display on a log file, or on a terminal, and a clock that a test turns."""

    def __init__(self, cells, terminal: bool = False) -> None:
        self.file, self.now = io.StringIO(), 100.0
        console = Console(file=self.file, force_terminal=terminal, width=200)
        self.display = Display(cells, console, clock=lambda: self.now)

    def show(self, message, after: float = 0.0) -> None:
        self.now += after
        self.display.show(message)

    def ended(self, one, after: float, **row) -> None:
        self.show(Record({"cell_id": one.cell_id, "status": "ok", **row}), after)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


def test_a_log_file_says_what_begins_and_ends_what_is_loaded_and_how_long_is_left():
    cells = [cell(seed) for seed in range(3)]
    told = Told(cells)
    with told.display:
        told.show(Notice("starting a worker process"))
        told.show(Progress(cells[0].cell_id, "loading", 0), after=6.5)
        told.show(Progress(cells[0].cell_id, "timing", 0), after=20)
        told.show(Progress(cells[0].cell_id, "images", 4), after=10)
        told.ended(cells[0], after=10)
        told.show(Progress(cells[1].cell_id, "loading", 0))
        told.show(Progress(cells[1].cell_id, "images", 8), after=0.01)
        told.ended(cells[1], after=20, status="failed", error="out\nof memory")
        told.show(TakenByAnother(cells[2].cell_id, "recorded by another process meanwhile", True))
    label = cells[0].label
    assert told.lines == [
        "starting a worker process",
        "the first cell begins after 6.5 s",
        f"started {cells[0].cell_id} {label}",
        "loading fake (fp32, cpu), data=fake",
        "loaded in 20 s",
        f"ok {cells[0].cell_id} {label} in 40 s (1 of 3, about 80 s left)",
        f"started {cells[1].cell_id} {label}",
        f"failed {cells[1].cell_id} {label} in 20 s: out of memory (2 of 3, about 30 s left)",
        f"left to another sweep: {cells[2].cell_id} {label}, recorded by another process meanwhile",
    ]


def test_the_time_left_counts_images_and_steps():
    small, large = cell(0), replace(cell(1), n_images=80)
    told = Told([small, large])
    told.show(Progress(small.cell_id, "images", 8))
    told.ended(small, after=10)
    assert "about 100 s left" in told.lines[-1]


def test_a_terminal_gets_the_same_lines_and_bars_below():
    one = cell(0)
    told = Told([one], terminal=True)
    with told.display:
        told.show(Progress(one.cell_id, "images", 4))
        told.ended(one, after=3)
    text = told.file.getvalue()
    assert "started" in text and "(1 of 1)" in text and "━" in text
    assert "━" not in "".join(Told([one]).lines)


def test_another_model_is_loaded_again_and_said():
    cells = [cell(0), replace(cell(1), precision="bf16"), replace(cell(2), precision="bf16")]
    told = Told(cells)
    for one in cells:
        told.show(Progress(one.cell_id, "loading", 0))
        told.show(Progress(one.cell_id, "images", 0), after=1)
    assert [line for line in told.lines if line.startswith("loading")] == [
        "loading fake (fp32, cpu), data=fake",
        "loading fake (bf16, cpu), data=fake",
    ]


def test_lengths_of_time_are_said_as_people_do():
    assert [in_words(value) for value in (0.04, 9.96, 61, 130, 3600 * 2.5)] == [
        "0.0 s",
        "10.0 s",
        "61 s",
        "2 min",
        "2 h 30 min",
    ]


# ------------------------------------------------------------------------------------------------------ first and last


def test_the_first_line_says_how_much_there_is_to_do(tmp_path, capfd):
    settings = SETTINGS.with_(results_dir=str(tmp_path))
    cells = [cell(seed) for seed in range(3)]
    assert run.run(cells[:1], settings, session=SESSION) == run.Outcome(0, 1)
    capfd.readouterr()
    assert run.run(cells, settings, session=SESSION) == run.Outcome(0, 2)
    assert capfd.readouterr().out.splitlines()[0] == f"3 cells: 1 recorded already, 2 to run; results in {tmp_path}"


def test_a_sweep_that_has_nothing_to_run_loads_neither_torch_nor_an_executor():
    code = "import sys; from harness.sweep import run; from harness.bench.fake_cells import cell\n"
    code += "from harness.store.records import Store\n"
    code += "s = Store(sys.argv[1]); s.check_writable(); c = cell(0); s.write({**c.columns(), 'status': 'ok'})\n"
    code += "from harness.specs import Settings\n"
    code += f"say = Settings({dict(SETTINGS)!r}).with_(results_dir=sys.argv[1])\n"
    code += "print(run.run([c], say)); print([n for n in sys.modules if n in ('torch', 'harness.executors.local')])"
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["Outcome(code=0, ran=0)", "[]"], done.stderr


def plot(folder: Path, text: str) -> Path:
    """A stand-in for reports/plot.py."""
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "plot.py").write_text(text)
    return folder


DRAWS = """
import pathlib, sys
out = pathlib.Path(sys.argv[2]) / "plots"; out.mkdir()
for name in {names}:
    (out / (name + ".png")).write_text("")
    print("drawn: " + name + " (a note)")
"""


@pytest.mark.parametrize(
    ("names", "opened"),
    [
        (["pareto-txt2img-fake", "steps-txt2img-fake"], "steps-txt2img-fake"),
        (["steps-img2img-fake", "pareto-txt2img-fake"], "pareto-txt2img-fake"),
        (["sheet-x-y"], "sheet-x-y"),
    ],
)
def test_the_picture_that_shows_what_varies_is_named(tmp_path, monkeypatch, names, opened):
    monkeypatch.setattr(plots, "ROOT", plot(tmp_path / "root", DRAWS.format(names=names)))
    cells = [cell(0), replace(cell(0), steps=30)]
    (tmp_path / "results").mkdir()
    line = plots.draw(tmp_path / "results", cells, ran=2)
    more = f" ({len(names) - 1} more beside it)" if len(names) > 1 else ""
    assert line == f"plots: open {tmp_path}/results/plots/{opened}.png{more}"
    assert plots.draw(tmp_path / "results", cells, ran=0).startswith("nothing new to draw")


@pytest.mark.parametrize(
    "text", ["raise SystemExit('error: no cell ended well')", "import os; os.kill(os.getpid(), 9)", ""]
)
def test_plots_that_fail_are_a_warning(tmp_path, monkeypatch, text):
    monkeypatch.setattr(plots, "ROOT", plot(tmp_path / "root", text))
    line = plots.draw(tmp_path, [cell(0)], ran=1)
    assert line.startswith("warning: no plots were drawn (") and "\n" not in line
    assert "no cell ended well" in line or "raise" not in text
    assert f"python reports/plot.py --results {tmp_path}" in line


def test_a_sweep_ends_with_the_picture_to_open(tmp_path):
    words = [
        "model=gmm",
        "sampler=euler,dpmpp",
        "steps=5,10",
        "n_images=8",
        "timing=off",
        "metrics=[exact]",
        "threads=1",
    ]
    code = "import sys; from harness.sweep.__main__ import main; code = main(); print(*sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", code, *words, f"results_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "harness.sweep" in loaded and not loaded & {"torch", "diffusers", "matplotlib"}, "in the parent process"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("plots: open ")]
    assert Path(line.split()[2]).read_bytes()[:4] == b"\x89PNG"
    again = subprocess.run([*command, "plots=false"], cwd=ROOT, capture_output=True, text=True)
    assert "plots: open" not in again.stdout and "nothing new" not in again.stdout
