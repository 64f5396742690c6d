"""Every command of the README, CONTRIBUTING, docs/, results/README and `--help` means something, whatever is added.

Commands are read out of fenced blocks and inline code. A sweep is enumerated (what its words mean is what breaks), any
other command has its arguments parsed by its own parser, and a few are run, cut down. Real models and folders that
nobody has here are replaced by tiny ones of the same kind. A command that none of this knows is a failure.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from harness.metrics.features import files

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "results/README.md", "conf/sweep.yaml")
DOCUMENTS += tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
PROGRAMS = ("python", "pytest", "ruff")
SETUP = re.compile(r"pip install uv && |uv run ")
HUB = {"sd15": "sd1", "sd21": "sd2", "sd_inpaint": "inpaint"}  # conf/model → kind of tiny stand-in
FILES = {"data.prompts": "prompts.csv", "data.statistics": "statistics.npz", "data.latents": "latents.pt"}
PIPELINES = {
    f"model={path.stem}"
    for path in (ROOT / "conf" / "model").glob("*.yaml")
    if yaml.safe_load(path.read_text()).get("kind") == "pipeline"
}
FENCED = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    """The commands of a document in the order of reading, one program each."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = [line for block in FENCED.findall(text) for line in block.splitlines()]
    inline = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]
    if document.endswith(".yaml"):
        blocks, inline = [line.strip() for line in text.splitlines() if line.strip().startswith("python ")], []
    lines = [SETUP.sub("", line).strip() for line in (*blocks, *inline)]
    found = [part.strip() for line in lines for part in line.split("&&")]
    asked = [part for part in found if part.split(" ")[0] in PROGRAMS]
    return list(dict.fromkeys(part for part in asked if part not in PROGRAMS or part == "pytest"))


def alternatives(words: list[str]) -> list[list[str]]:
    """`list|compact [RESULTS]` is written for several commands, with and without its last word."""
    found = [[]]
    for word in words:
        options = [word.strip("[]")] if word.startswith("[") else word.split("|")
        found = [[*line, option] for line in found for option in options]
    return found


ALL = [(document, command) for document in DOCUMENTS for command in commands(document)]
SWEEPS = [(d, c) for d, c in ALL if "-m harness.sweep " in c]
OTHERS = [(d, c) for d, c in ALL if "-m harness.sweep " not in c]
OF_AB2 = [c for d, c in ALL if "ab2" in c]  # need the sampler that CONTRIBUTING.md adds


def test_the_commands_are_found():
    """Some that must be there, in each place that a document has for one."""
    found = [" ".join(split(command)) for _, command in ALL]
    for one in (
        "python -m harness.sweep sampler=dpmpp steps=20,30,50",
        "python reports/plot.py",
        "pytest",
        "python -m harness.sweep sampler=glob(dpmpp*) nfe=8,12,16",
        "python -m harness.parity",
        "ruff format --check .",
        "python -m samplers.show ab2 --steps 10",
    ):
        assert one in found
    assert len(SWEEPS) > 15 and len(OTHERS) > 15 and not [one for one in found if "…" in one]


def split(command: str) -> list[str]:
    return shlex.split(command, comments=True)


# -------------------------------------------------------------------------------------------------------- what is there


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working directory in which a reader of the documents has what they speak of: pictures, a model, a plan."""
    import tiny

    from samplers.show import main as show

    here = tmp_path_factory.mktemp("reader")
    for folder in ("pictures", "masks"):
        (here / folder).mkdir()
        for k in range(2):
            Image.new("RGB", (tiny.SIZE, tiny.SIZE), (100 * k, 50, 0)).save(here / folder / f"{k}.png")
    (here / "pictures" / "captions.csv").write_text("file_name,caption\n0.png,a red square\n1.png,a blue ring\n")
    for kind in HUB.values():
        tiny.folder(here / kind, kind)
    tiny.single_file(here / "model.safetensors")
    assert show(["unipc", "--steps", "10", "--json", str(here / "mine.json")]) == 0
    (here / "prompts.csv").write_text("Prompts,Category\na red square,Colors\na blue ring,Colors\n")
    np.savez(here / "statistics.npz", mu=np.zeros(2), sigma=np.eye(2))
    (here / "latents.pt").write_bytes(b"")
    place = here / "torch" / "hub" / "checkpoints" / files.INCEPTION  # that it is there is all that a sweep's words ask
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    return here


def on_this_machine(words: list[str], here: Path) -> list[str]:
    """The words of a sweep with stand-ins for what only its reader has, cut down to two images on the CPU."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        if value.startswith("/") and not Path(value).exists():
            file = key == "model.path" and value.endswith(".safetensors")
            stands = "model.safetensors" if file else "sd1" if key == "model.path" else FILES.get(key, "pictures")
            word = f"{key}={here / stands}"
        found.append(word)
        if value.startswith("/") and word.endswith("model.safetensors"):  # a real one says by its shapes what it is
            found.append(f"model.config={here / 'sd1'}")
    names = dict(word.split("=", 1) for word in words if word.startswith("model="))
    found += [f"model.path={here / HUB[name]}" for name in names.values() if name in HUB]
    return [*found, "n_images=2", "device=cpu"]


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, c in SWEEPS if c not in OF_AB2])
def test_a_sweep_means_cells(place, monkeypatch, document, command):
    from harness.sweep.commandline import answer, read
    from harness.sweep.enumerate import enumerate_cells

    monkeypatch.chdir(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    words = split(command)[3:]
    if "--help" in words:
        monkeypatch.setattr(sys, "argv", ["harness.sweep", *words])
        with pytest.raises(SystemExit) as ended:
            answer(words)
        assert not ended.value.code
        return
    if PIPELINES & set(words):  # no stand-in for their weights is built here (tests/test_pipelines.py): the words alone
        found = len(read(words).values)
    else:
        found = len(enumerate_cells(on_this_machine(words, place)).cells)
    lists = [word for word in words if re.search(r"=[^\[\"']*,|\(", word)]
    assert found >= (2 if lists else 1)


# ----------------------------------------------------------------------------------------------------------- the others


class Understood(Exception):
    """Raised in the place of a command's work, once its own parser has taken the words."""


def parsed(monkeypatch, module: str, words: list[str]) -> None:
    """Fails where the command's own parser does not take the words."""
    real = argparse.ArgumentParser.parse_args

    def parse(parser, given=None, namespace=None):
        raise Understood(real(parser, given, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *words])
    if (ROOT / module.replace(".", "/")).is_dir():
        module += ".__main__"
    main = importlib.import_module(module).main
    with pytest.raises(Understood):
        main(words) if main.__code__.co_argcount else main()


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """`python -m A.B words` and `python A/B.py words`: the module and its words."""
    if words[1] == "-m":
        return words[2], words[3:]
    # tests/ is no package: pytest has its folder on the path.
    return words[1].removesuffix(".py").removeprefix("tests/").replace("/", "."), words[2:]


@pytest.mark.parametrize(("document", "command"), [(d, c) for d, c in OTHERS if c not in OF_AB2])
def test_another_command_is_understood(monkeypatch, document, command):
    for words in alternatives(split(command)):
        if words[0] == "ruff":
            done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode in (0, 1) and "error:" not in done.stderr, done.stderr
        elif words[0] == "pytest":
            check_tests(words[1:])
        else:
            module, rest = module_of(words)
            if not rest and words[1] != "-m" and not (ROOT / words[1]).exists():
                pytest.fail(f"{words[1]} is not there")
            if module in OF_WORDS:
                OF_WORDS[module](rest)
            else:
                parsed(monkeypatch, module, rest)
                monkeypatch.undo()


def learned_for(words: list[str]) -> None:
    from harness.search.learn import read

    assert read(words)[1], words


def diagnosed(words: list[str]) -> None:
    from harness.search.diagnose import read

    assert read(words)[0], words


def raced(words: list[str]) -> None:
    from harness.search.race import Asked
    from harness.sweep.enumerate import enumerate_cells

    assert len(enumerate_cells(Asked.read(words)[1]).cells) > 1, words


def of_two_sides(words: list[str]) -> None:
    from harness.sweep.against import sides
    from harness.sweep.commandline import read

    for side in sides(words):
        assert read(side).values, side


# Commands that take KEY=VALUE words, as a sweep does: what reads them.
OF_WORDS = {
    "harness.sweep.against": of_two_sides,
    "harness.learn": learned_for,
    "harness.race": raced,
    "harness.diagnose": diagnosed,
}


def check_tests(words: list[str]) -> None:
    """Every file or pattern that pytest is given is there; the suite itself runs this test."""
    if "-m" in words:  # a mark: one that pyproject.toml declares
        mark = words.pop(words.index("-m") + 1)
        assert f'"{mark}: ' in (ROOT / "pyproject.toml").read_text()
    for word in words:
        assert word.startswith("-") or list(ROOT.glob(word)), f"no {word}"


# ------------------------------------------------------------------------------------------------------ really run


def test_the_first_command_of_the_readme_runs(tmp_path):
    """The very first one, in four images and in a reader's own folder, to the picture at its end."""
    first = commands("README.md")[0]
    assert first.startswith("python -m harness.sweep ")
    small = ["steps=2,3", "n_images=4", "batch_size=4", "timing=off", "metrics=fid,clip_score", "reference_count=64"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ}
    command = [sys.executable, *split(first)[1:], *small, "threads=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "plots: open results/plots/" in done.stdout and "2 cells run" in done.stdout
    drawn = next(line for line in done.stdout.splitlines() if line.startswith("plots: open "))
    assert (tmp_path / drawn.split()[2]).exists()


def test_what_is_recorded_is_listed(tmp_path, capsys, monkeypatch):
    from harness.bench.fake_cells import cell
    from harness.store.__main__ import main
    from harness.store.records import Store

    Store(tmp_path).write({**cell(0).columns(), "status": "ok"})
    Store(tmp_path / "results").write({**cell(0).columns(), "status": "ok"})  # the folder where none is named
    monkeypatch.chdir(tmp_path)
    for _, command in OTHERS:
        if "harness.store" in command:
            for words in alternatives(split(command)[3:]):
                assert main([str(tmp_path) if word == "RESULTS" else word for word in words]) == 0
    assert "1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def with_ab2(tmp_path_factory) -> Path:
    """A copy of the project with the two files that CONTRIBUTING.md adds."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__", "gallery", "weights")
    for folder in ("conf", "harness", "samplers", "tests", "reports"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    (root / "harness" / "embedded" / "weights").symlink_to(ROOT / "harness" / "embedded" / "weights")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for language, path in (("python", "samplers/solvers/ab2.py"), ("yaml", "conf/sampler/ab2.yaml")):
        (root / path).write_text(re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1])
    return root


@pytest.mark.parametrize("command", OF_AB2)
def test_the_sampler_that_contributing_adds_is_found(with_ab2, command):
    words = split(command)
    if "harness.sweep" in words:
        code = "import sys; from harness.sweep.enumerate import enumerate_cells as of; found = of(sys.argv[1:]).cells\n"
        code += "print(len(found), {cell.sampler['name'] for cell in found.values()})"
        words = ["-c", code, *words[3:], "device=cpu"]
    else:
        words = words[1:]
    done = subprocess.run([sys.executable, *words], cwd=with_ab2, capture_output=True, text=True)
    assert done.returncode == 0 and "ab2" in done.stdout, done.stderr
