"""The one door to every command, `sampler-harness` or `python -m harness`, opens what `python -m` opens."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import __main__ as console

ROOT = Path(__file__).resolve().parents[1]
WORKER = "harness.compare.worker"  # its parent's, and no command


def programs() -> set[str]:
    """Every module that is a program, by the name that `python -m` takes."""
    found = set()
    for path in (path for folder in ("harness", "samplers", "reports") for path in (ROOT / folder).rglob("*.py")):
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            found.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return found - {"harness", WORKER}


def said(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT, capture_output=True, text=True)


def test_every_program_has_a_word_and_every_word_a_program():
    assert {module for module, _ in console.COMMANDS.values()} == programs()


def test_the_script_is_this_door():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"sampler-harness": "harness.__main__:main"}


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_it_lists_its_commands(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sampler-harness", *words])
    assert console.main() == 0
    listed = capsys.readouterr().out
    assert all(f"  {word} " in listed and does in listed for word, (_, does) in console.COMMANDS.items())


def test_an_unknown_word_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sampler-harness", "swep"])
    assert console.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'swep': did you mean 'sweep'?") and error.count("\n") == 1


def test_the_words_and_the_exit_code_are_the_commands_own(tmp_path):
    done = said("store", "list", str(tmp_path / "nothing"))
    assert done.returncode == 2 and done.stderr.startswith("error: no records in")
    done = said("show", "ddim", "--steps", "2")
    assert done.returncode == 0 and done.stdout.startswith("ddim: 2 steps")


def test_it_loads_nothing_by_itself():
    """A worker of `sampler-harness sweep` imports the script, and with it this module, once more."""
    tree = ast.parse((ROOT / "harness" / "__main__.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "harness.errors"}
