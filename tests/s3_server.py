"""A real S3 server in this process (moto's), for tests of results in a bucket."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

NUMBERS = itertools.count()
BUCKET = "sweeps"


def missing() -> str:
    """Why there is none; empty where there is one."""
    absent = [package for package in ("s3fs", "moto", "flask") if not find_spec(package)]
    return f"no {', '.join(absent)}: uv sync --group s3" if absent else ""


@contextmanager
def server() -> Iterator[None]:
    """While it lasts, s3:// means this server, in this process and in those that it starts."""
    from moto.server import ThreadedMotoServer

    before = dict(os.environ)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    try:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs(BUCKET, exist_ok=True)  # moto keeps one world a process
        yield
    finally:
        running.stop()
        os.environ.clear()
        os.environ |= before


def address() -> str:
    """Somewhere in the server's bucket that nobody else has."""
    return f"s3://{BUCKET}/run-{next(NUMBERS)}"
