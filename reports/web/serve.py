"""The page while its records grow: a small server on this machine, which the page asks every two seconds what is new.

    python -m harness.watch DIR [--port 8600] [--host 127.0.0.1] [--until CELLS]

Only GET is answered, nothing that is asked writes anything, and only names that the records know are looked up. Other
machines see it where `--host` says so, and a page of another site can never read it: requests under a foreign name of
this host are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from harness.errors import InputError, one_line
from harness.store import layout, places
from harness.store.records import Store
from reports import options
from reports.records import load
from reports.web import build, payload, pictures, verdicts
from reports.web.columns import Block

PORT = 8600
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PICTURE = re.compile(r"[0-9a-f]{16}(-source)?")
REST = 4.0  # times as long as the last block took to make until the next is made: the sweep needs the machine


class Site:
    """What is served of one folder of records; a block is made anew when the records have changed."""

    def __init__(self, results: Path, until: int | None = None) -> None:
        self.results, self.store, self.until = results, Store(results), until
        self.began, self.at_first = time.monotonic(), len(self.store.recorded())
        self._lock = threading.Lock()
        self._version, self._block = "", b""
        self._cells, self._known, self._shown = None, None, None
        self._ready = 0.0  # on the monotonic clock: when the next block may be made

    def state(self) -> dict[str, object]:
        """`version` changes where there is something new to ask for."""
        return {"version": self._current(), "cells": len(self.store.recorded()), "progress": self.progress()}

    def progress(self) -> dict[str, object] | None:
        """Cells done of those asked for, and the time left by the pace so far."""
        if self.until is None:
            return None
        done = min(len(self.store.recorded()), self.until)
        made, left = done - self.at_first, ""
        if made > 0 and done < self.until:
            left = _said((self.until - done) * (time.monotonic() - self.began) / made)
        running = len({name.split("/")[-1][:16] for name in self.store.place.below(layout.LEASES)})
        return {"done": done, "total": self.until, "left": left, "now": f"{running} running" if running else ""}

    def block(self) -> bytes:
        """The block of all that is recorded now. InputError where nothing is."""
        with self._lock:
            version = self._current()
            if version != self._version:
                began = time.monotonic()
                cells = load(self.results).reset_index(drop=True)
                if cells.empty:
                    raise InputError("nothing is recorded yet")
                self._shown = pictures.read(cells, self.store)
                self._block = payload.build(cells, self.store, self._shown, payload.title_of(self.results), "served")
                self._cells, self._known, self._version = cells, None, version
                self._ready = time.monotonic() + REST * (time.monotonic() - began)
            return self._block

    def picture(self, name: str) -> bytes | None:
        known = self._shown is not None and PICTURE.fullmatch(name)
        return self._shown.content(name, self.store) if known else None

    def pair(self, a: str, b: str) -> bytes:
        """The comparison of two cells as `python reports/compare.py A B` has it. InputError where there is none."""
        with self._lock:
            if self._cells is None:
                raise InputError("nothing is shown yet")
            place = {cell_id: k for k, cell_id in enumerate(self._cells["cell_id"])}
            if a not in place or b not in place or a == b:
                raise InputError("name two of the cells that are shown")
            self._known = self._known or verdicts.evidence(self._cells, self.store)
            both = [place[a], place[b]]
            rows = verdicts.judged(verdicts.pairs(self._known, both))
            if rows.empty:
                raise InputError("the two cells share no prompts and noise, or no measure: nothing is paired")
            block = Block()
            found = payload.pair_rows(rows, verdicts.latency_ratios(self._known, both, self.store), block)
            return block.packed({"pairs": found})

    def _current(self) -> str:
        """Of the files of cells; while the last block is young, that of the block."""
        if self._version and time.monotonic() < self._ready:
            return self._version
        stamps = [f"{name} {self.store.place.look(name).stamp}" for name in self.store.files("cells")]
        return hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:16]


def _said(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


class Handler(BaseHTTPRequestHandler):
    """Answers GET for the page, its state, its block, its pictures and a pair; whatever else is not there."""

    server_version, sys_version = "sampler-harness", ""

    def __init__(self, site: Site, hosts: Sequence[str], *more: object) -> None:
        self.site, self.hosts = site, hosts
        super().__init__(*more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.hosts and host not in self.hosts:
            return self._answer(b"another name than this server's", "text/plain", HTTPStatus.FORBIDDEN)
        asked = urlsplit(self.path)
        try:
            self._route(asked.path, parse_qs(asked.query))
        except InputError as error:
            self._answer(one_line(error).encode(), "text/plain; charset=utf-8", HTTPStatus.CONFLICT)
        except FileNotFoundError:  # a record was replaced this moment: the page asks again
            self._answer(b"the records are changing", "text/plain", HTTPStatus.CONFLICT)

    def _route(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/":
            title = payload.title_of(self.site.results)
            text = build.render(title, None, {}, None, live=True)
            return self._answer(text.encode(), "text/html; charset=utf-8")
        if path == "/state":
            return self._answer(json.dumps(self.site.state()).encode(), "application/json")
        if path == "/data":
            return self._answer(self.site.block(), "application/octet-stream")
        if path == "/pair":
            a, b = (query.get(side, [""])[0] for side in "ab")
            return self._answer(self.site.pair(a, b), "application/octet-stream")
        found = self.site.picture(path.removeprefix("/picture/").removesuffix(".webp").removesuffix(".png"))
        if path.startswith("/picture/") and found is not None:
            return self._answer(found, "image/png" if found[:4] == b"\x89PNG" else "image/webp")
        return self._answer(b"not here", "text/plain", HTTPStatus.NOT_FOUND)

    def _answer(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line every two seconds helps nobody."""


def server(results: Path, host: str = LOOPBACK[0], port: int = PORT, until: int | None = None) -> ThreadingHTTPServer:
    """A server that listens; `serve_forever` runs it. InputError if the folder or the port cannot be used."""
    if not places.at(results).there():
        raise InputError(f"no folder {results}: give the results_dir of a sweep")
    hosts = LOOPBACK if host in LOOPBACK else ()
    try:
        found = ThreadingHTTPServer((host, port), partial(Handler, Site(results, until), hosts))
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}; give another --port, or 0 for any") from error
    found.daemon_threads = True
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="harness.watch", description="The page of a sweep while it runs.")
    parser.add_argument("results", type=Path, help="folder of records: the sweep's results_dir")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: any that is free")
    parser.add_argument("--host", default=LOOPBACK[0], help="where it listens (default: this machine alone)")
    parser.add_argument("--until", type=int, metavar="CELLS", help="how many will be recorded at the end, for progress")
    asked = parser.parse_args(words)

    def work() -> int:
        with server(asked.results, asked.host, asked.port, asked.until) as found:
            print(f"live page: http://{asked.host}:{found.server_address[1]}/ (Ctrl-C ends it)", flush=True)
            found.serve_forever()
        return 0

    return options.guarded(work)
