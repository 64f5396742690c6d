"""The type checker finds nothing where pyproject.toml says so (`uv run --group types pytest tests/test_types.py`)."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not find_spec("pyright"), reason="pyright is not installed: uv sync --group types")
def test_pyright_finds_nothing():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "0 errors" in done.stdout, done.stdout[-3000:]
