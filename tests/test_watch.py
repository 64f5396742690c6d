"""The page while its records grow: what the server answers, to whom, and that nothing it is asked writes."""

from __future__ import annotations

import http.client
import json
import os
import threading
from pathlib import Path

import pytest
import records

from harness.store.records import Store
from reports.web import columns, serve


@pytest.fixture
def site(tmp_path):
    """(address, folder) of a server of two cells, of four that are to be."""
    store = Store(tmp_path)
    for steps in (5, 10):
        records.write(store, records.cell_row("dpmpp", steps))
    with serve.server(tmp_path, port=0, until=4) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found.server_address, tmp_path
        found.shutdown()
        thread.join()


def ask(address, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address[:2], timeout=120)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_new_cell_appears_and_progress_counts_it(site, monkeypatch):
    address, folder = site
    monkeypatch.setattr(serve, "REST", 0.0)
    assert b'data-live="yes"' in ask(address, "/")[1]
    before = json.loads(ask(address, "/state")[1])
    assert before["cells"] == 2 and before["progress"]["done"] == 2 and before["progress"]["total"] == 4
    assert columns.unpacked(ask(address, "/data")[1])[0]["rows"] == 2
    records.write(Store(folder), records.cell_row("euler", 10))
    after = json.loads(ask(address, "/state")[1])
    assert after["version"] != before["version"] and after["progress"]["done"] == 3 and after["progress"]["left"]
    header, _ = columns.unpacked(ask(address, "/data")[1])
    assert header["rows"] == 3 and header["images"]["way"] == "served"
    assert json.loads(ask(address, "/state")[1])["version"] == after["version"]


def test_pictures_and_pairs_of_what_is_shown(site):
    address, folder = site
    ask(address, "/data")
    one, two = sorted(Store(folder).recorded())
    assert ask(address, f"/picture/{one}.webp")[1][:4] == b"RIFF"
    header, content = columns.unpacked(ask(address, f"/pair?a={one}&b={two}")[1])
    assert "fid" in header["pairs"]["measures"] and len(columns.array(header["pairs"]["difference"], content)) >= 2
    assert ask(address, f"/pair?a={one}&b={one}")[0] == 409


@pytest.mark.parametrize(
    "path",
    ["/picture/../cells/x.webp", "/picture/%2e%2e/x.webp", "/cells", "/picture/0000000000000000.webp", "//etc/passwd",
     "/../../etc/passwd", "/picture/"],
)  # fmt: skip
def test_nothing_else_is_there(site, path):
    assert ask(site[0], path)[0] == 404


def test_nobody_writes_and_no_other_name_is_answered(site):
    address, folder = site
    ask(address, "/data")
    before = files(folder)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(address, "/data", method)[0] == 501
    assert ask(address, "/state", host="evil.example")[0] == 403
    assert ask(address, "/state", host="localhost:1")[0] == 200
    assert address[0] == "127.0.0.1" and files(folder) == before


def test_bad_input_is_one_line(tmp_path, site, capsys):
    assert serve.main([str(tmp_path / "nothing")]) == 2
    assert serve.main([str(tmp_path), "--port", str(site[0][1])]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: no folder") and "cannot listen on" in lines[1]


def test_the_server_of_a_sweep_ends_with_it(tmp_path, monkeypatch):
    import subprocess

    from harness.bench.fake_cells import cell
    from harness.sweep import live

    started: list[subprocess.Popen] = []
    real = subprocess.Popen
    monkeypatch.setattr(live.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    with live.served(tmp_path / "results", [cell(0), cell(1)], wanted=True):
        assert started[0].poll() is None and started[0].args[-2:] == ["--until", "2"]
    assert started[0].poll() is not None and not os.path.exists(f"/proc/{started[0].pid}")
    with live.served(tmp_path, [cell(0)], wanted=False):
        assert len(started) == 1
