"""What holds for every test."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

# Fixtures that several files share: of the whole session, so made once.
pytest_plugins = ["metric_world", "browsing"]

# A shell that runs the tests in the background makes them deaf to Ctrl-C, and whatever they start; some send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_WORKERS = 8  # each loads torch


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process a core for the suite; files that somebody names run in this one, where `-s` and a debugger work."""
    named = any(Path(word.split("::")[0]).is_file() for word in config.args)
    return 0 if named else min(CORES, MOST_WORKERS)


# They share the cores: else each lets torch start a thread on every one, and the threads wait for each other.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CORES // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))


def share_bytecode(folder: Path) -> None:
    """Let this process and all that tests start keep their bytecode in `folder`, where Python is to write none at all.

    Under PYTHONDONTWRITEBYTECODE each of the hundred processes that the tests start would compile torch and diffusers
    again, up to 10 s of a processor each. Nothing changes where bytecode lies beside the sources already.
    """
    torch = importlib.util.find_spec("torch")
    if not sys.dont_write_bytecode or Path(importlib.util.cache_from_source(torch.origin)).exists():
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(folder)
    sys.dont_write_bytecode = False


share_bytecode(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")
