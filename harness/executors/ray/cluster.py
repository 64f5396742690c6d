"""The Ray cluster of a sweep: joined, or started on this machine and ended with it. Imports Ray where it is needed."""

# Ray is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.cell import allowed_cores
from harness.errors import InputError, one_line
from harness.executors.ray.options import Options
from harness.paths import ROOT


@contextmanager
def connected(options: Options) -> Iterator[None]:
    """While it lasts, Ray is there. Leaving it ends every actor of this process, and a cluster that it has started."""
    # Read by Ray when it is imported. A hook of its own would have every node install this project under `uv run`.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "1" if options.uv else "0"
    where = options.where
    if where is None or where == "local":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # what a cluster that others run reports is theirs to say
    import ray

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    how: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    if where is None or where == "local":  # said, for Ray may remember another that is long gone
        how |= {"address": "local", "num_cpus": allowed_cores(), "include_dashboard": False}
    else:
        how["address"] = where
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # its notes on lost nodes would tear the table; we say it
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **how)
    except Exception as error:  # it raises all kinds, the bare class among them
        reason = one_line(error)[:250]
        raise InputError(f"no Ray cluster {f'at {where}' if where else 'could be started'}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[Mapping[str, float]]:
    """What each living node has in all: resource → amount."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(needs: Mapping[str, float], found: list[Mapping[str, float]]) -> int:
    """How many actors with such needs fit onto these nodes while nobody else uses them.

    >>> room({"CPU": 2, "GPU": 0.5}, [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 3.0}, {"CPU": 1.0, "GPU": 4.0}])
    2
    """
    return sum(min(int(node.get(one, 0) / amount + 1e-9) for one, amount in needs.items()) for node in found)
