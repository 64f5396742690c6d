"""What holds for every test."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

# Fixtures that several files share: of the whole session, so made once.
pytest_plugins = ["metric_world"]

# A shell that runs the tests in the background makes them deaf to Ctrl-C, and whatever they start; some send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
