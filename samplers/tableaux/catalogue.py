"""Every tableau by name, and a user's own by the path of its file; each is checked when it is read.

Data: explicit.json, implicit.json, exponential.json; Gauss, Radau and Lobatto methods are
generated (samplers/tableaux/collocation.py), Lawson's from any explicit one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from samplers.tableaux import butcher, collocation, exponential
from samplers.tableaux.butcher import Tableau
from samplers.tableaux.exponential import ExponentialTableau

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 4 << 20
LAWSON, GENERALISED = "lawson_", "generalised_lawson_"
# Lawson methods that are listed; any other explicit name after the prefix is taken as well.
LISTED_BASES = ("euler", "midpoint", "heun2", "kutta3", "rk4", "dormand_prince5")
T = TypeVar("T", Tableau, ExponentialTableau)


def explicit_names() -> list[str]:
    return list(_entries("explicit"))


def implicit_names() -> list[str]:
    generated = [
        f"{family}_{s}" for family, (least, *_) in collocation.FAMILIES.items() for s in range(least, collocation.MOST)
    ]
    return [*_entries("implicit"), *generated]


def exponential_names() -> list[str]:
    lawson = [prefix + base for prefix in (LAWSON, GENERALISED) for base in LISTED_BASES]
    return [*_entries("exponential"), *(name for name in lawson if name != GENERALISED + "euler")]


def pinned(name: str, sha256: str | None) -> str | None:
    """The digest of a user's file, so that nothing read from it outlives a change to it; None for a name."""
    if not isinstance(name, str) or not (sha256 is None or isinstance(sha256, str)):
        raise ValueError(f"tableau={name!r} must be a name or a path, and sha256={sha256!r} null or hexadecimal digits")
    if not is_file(name):
        return sha256
    found = digest(name)
    if sha256 is not None and sha256 != found:
        raise ValueError(f"{name} has changed: its sha256 is {found}, asked for was {sha256}")
    return found


def explicit(name: str, sha256: str | None = None) -> Tableau:
    """An explicit tableau by name, or from a file NAME.json. ValueError in one line."""
    return _explicit(name, pinned(name, sha256))


def implicit(name: str, sha256: str | None = None) -> Tableau:
    """An implicit tableau by name, or from a file NAME.json; Gauss, Radau, Lobatto of up to 6 stages: gauss_3 …"""
    return _implicit(name, pinned(name, sha256))


def exponential_tableau(name: str, sha256: str | None = None) -> ExponentialTableau:
    """An exponential tableau by name, or from a file NAME.json; lawson_NAME and generalised_lawson_NAME of any
    explicit one."""
    return _exponential(name, pinned(name, sha256))


@cache
def _explicit(name: str, sha256: str | None) -> Tableau:
    if is_file(name):
        tableau = _own(name, sha256, butcher.read, butcher.check)
        if not tableau.is_explicit:
            raise ValueError(f"tableau {name} is implicit: sampler=irk takes it")
        return tableau
    return butcher.check(butcher.read(_entry("explicit", name, explicit_names()), name))


@cache
def _implicit(name: str, sha256: str | None) -> Tableau:
    if is_file(name):
        return _own(name, sha256, butcher.read, butcher.check)
    family, _, stages = name.rpartition("_")
    if family in collocation.FAMILIES and stages.isdecimal() and len(stages) < 3:
        tableau = collocation.generated(family, int(stages))
        return butcher.check(tableau) if tableau.order <= butcher.trees.HIGHEST else tableau
    return butcher.check(butcher.read(_entry("implicit", name, implicit_names()), name))


@cache
def _exponential(name: str, sha256: str | None) -> ExponentialTableau:
    if is_file(name):
        return _own(name, sha256, exponential.read, exponential.check)
    for prefix in (GENERALISED, LAWSON):
        if name.startswith(prefix):
            return exponential.lawson(explicit(name.removeprefix(prefix)), prefix == GENERALISED)
    return exponential.check(exponential.read(_entry("exponential", name, exponential_names()), name))


def is_file(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".json")


def digest(name: str) -> str:
    """SHA-256 of a user's file."""
    return hashlib.sha256(_found(name).read_bytes()).hexdigest()


def settled(name: str, sha256: str | None) -> Mapping[str, Any]:
    """The knobs that say which tableau runs: a file's digest is what counts, not its name."""
    found = pinned(name, sha256)
    if not is_file(name) and sha256 is not None:
        raise ValueError(f"sha256={sha256!r} is for a tableau from a file, and {name!r} is a name: leave it null")
    return {"tableau": name, "sha256": found}


def _own(name: str, sha256: str | None, read: Callable[..., T], check: Callable[[T], T]) -> T:
    path = _found(name)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and sha256 != found:
        raise ValueError(f"{name} has changed: its sha256 is {found}, asked for was {sha256}")
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no tableau: it must be an object with order, a, b and source, c, note if wanted")
    return check(read(entry, str(entry.get("name", path.stem))[:60]))


def _found(name: str) -> Path:
    for path in (Path(name).expanduser(), ROOT / name):
        if path.is_file():
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"{name} has {path.stat().st_size >> 20} MiB: no tableau is so long")
            return path.resolve()
    raise ValueError(f"there is no tableau file {name!r}: give the path of a JSON file with order, a and b")


def _entry(family: str, name: str, valid: list[str]) -> Mapping[str, Any]:
    entries = _entries(family)
    if name not in entries:
        close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        elsewhere = {"explicit": "rk", "implicit": "irk", "exponential": "exp_rk"}
        kind = next((solver for other, solver in elsewhere.items() if name in _entries(other)), None)
        guess = f"sampler={kind} has it; " if kind else guess
        raise ValueError(
            f"unknown tableau {name[:60]!r}: {guess}{len(valid)} are listed by `python -m samplers.tableaux`, and a "
            "file of your own ends in .json"
        )
    return entries[name]


@cache
def _entries(family: str) -> Mapping[str, Mapping[str, Any]]:
    path = Path(__file__).with_name(f"{family}.json")
    return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
