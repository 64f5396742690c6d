"""The examples in docstrings are true: every module of the packages that has one is run through doctest."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("samplers", "harness", "reports")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if ">>> " in path.read_text()]
FLAGS = doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_hold(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    done = doctest.testmod(module, optionflags=FLAGS)
    assert done.attempted and not done.failed, f"{path.relative_to(ROOT)}: the differences are printed above"
