"""Where networks that metrics use lie on this machine. Looks and never fetches; imports no torch."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from harness.errors import InputError, nearest
from harness.paths import EMBEDDED

INCEPTIONS = ("inception", "inception_clean", "inception_pytorch")  # one network behind three ways of resizing
EXTRACTORS = ("auto", "embedded", *INCEPTIONS)
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's port of the TensorFlow network of FID
LPIPS = {  # torchvision's backbones; the linear layers on top come with torchmetrics
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}


def hub_file(name: str) -> Path:
    """Where torch.hub keeps a downloaded file of this name, whether it is there or not."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / name


def embedded_extractor() -> Path:
    return EMBEDDED / "extractor.safetensors"


def embedded_clip() -> Path:
    return EMBEDDED / "open_clip"


def choose_extractor(asked: str, model_is_embedded: bool) -> str:
    """`embedded` or one of INCEPTIONS."""
    if asked != "auto":
        return asked
    return "inception" if not model_is_embedded and hub_file(INCEPTION).is_file() else "embedded"


def check_extractor(asked: str) -> None:
    if asked not in EXTRACTORS:
        raise InputError(f"extractor={asked!r} is not valid; {nearest(asked, EXTRACTORS)}")
    if asked in INCEPTIONS and not hub_file(INCEPTION).is_file():
        raise InputError(
            f"extractor={asked} needs {INCEPTION}, looked for at {hub_file(INCEPTION)}: "
            "put torch-fidelity's file there or use extractor=embedded"
        )


def short_hash(path: Path) -> str:
    """8 hexadecimal digits of a file's content: two trainings of one network are two networks."""
    facts = path.stat()
    return _short_hash(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=32)
def _short_hash(path: Path, *stamp: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:8]
