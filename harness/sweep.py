"""`python -m harness.sweep`: Hydra composes and enumerates cells; an executor runs those not yet recorded.

The only module that knows Hydra, and (like the store) free of torch, so that a sweep with nothing to do ends at once.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.ask import ask
from harness.cell import Cell, number, whole
from harness.errors import InputError, Terminated, nearest, one_line
from harness.executors.base import Record

CONF = str(Path(__file__).resolve().parents[1] / "conf")
SETTINGS = ("results_dir", "force", "workers", "cell_timeout", "retries", "debug")  # how, not what: in no cell's id
# Hydra's own settings can name code (callbacks, log handlers, search paths): these cannot.
OF_HYDRA = ("hydra.mode", "hydra.verbose", "hydra.sweeper.max_batch_size")
# --config-path, -name and -dir, which bring configs from elsewhere, and --experimental-rerun, which reads a pickle;
# abbreviated too, as argparse takes them.
REFUSED_OPTION = re.compile(r"(-c[pnd]|--(co|e)).*")
GROUPS = ("task", "model", "sampler", "schedule", "data", "experiment")


class Collector:
    """What Hydra's enumeration leaves behind: the cells asked for, and the first thing that is wrong with one."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}  # by id, in the order asked for: duplicates fall together
        self.settings: dict[str, Any] = {}
        self.wrong: InputError | None = None  # kept, not raised: Hydra would print its own lines about it

    def add(self, config: DictConfig) -> None:
        values = OmegaConf.to_container(config, resolve=True)
        self.settings = {name: values.pop(name) for name in SETTINGS}
        try:
            check_settings(self.settings)
            if values["threads"] is None and self.settings["workers"] > 1:
                values["threads"] = max(1, (os.cpu_count() or 1) // self.settings["workers"])
            cell = ask(values)
        except InputError as error:
            self.wrong = self.wrong or error
        else:
            self.cells.setdefault(cell.cell_id, cell)


def check_settings(settings: dict[str, Any]) -> None:
    """InputError where a setting cannot be."""
    whole(settings, "workers", 1)
    whole(settings, "retries", 0)
    if settings["cell_timeout"] is not None:
        number(settings, "cell_timeout", 1e-3)


def enumerate_cells(arguments: list[str]) -> Collector:
    """Every cell that the command line asks for. Raises InputError before anything runs."""
    collector = Collector()
    _check_names(arguments)

    @hydra.main(config_path=CONF, config_name="sweep", version_base="1.3")
    def compose(config: DictConfig) -> None:
        collector.add(config)  # hydra.mode=RUN only; a sweep's cells arrive in `launch`

    def launch(launcher: Launcher, job_overrides: list[list[str]], initial_job_idx: int) -> list[Any]:
        composer = _Composer(launcher)
        for overrides in job_overrides:
            collector.add(composer(overrides))
        return []

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors arrive here as exceptions; how they are shown is our business
    try:
        # Hydra composes every cell twice and sets up a job for it: 50 ms and more, for a function that appends to a
        # list. Its sweeper still enumerates; what it hands to its launcher is composed here, once a choice of groups.
        (basic,) = (kind for kind in Plugins.instance().discover(Launcher) if kind.__name__ == "BasicLauncher")
        with patch.object(Sweeper, "validate_batch_is_legal"), patch.object(basic, "launch", launch):
            compose()
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_hydra_says(error)) from error
    except OSError as error:  # Hydra makes its folder in the results folder
        raise InputError(
            f"cannot write to {error.filename}: {error.strerror}; free it or give results_dir=FOLDER"
        ) from error
    if collector.wrong is not None:
        raise collector.wrong
    return collector


class _Composer:
    """A cell's overrides to its config. Hydra composes each choice of groups once; values are set on a copy."""

    def __init__(self, launcher: Launcher) -> None:
        self.load = launcher.hydra_context.config_loader.load_sweep_config
        self.master = launcher.config
        self.parse = OverridesParser.create().parse_overrides
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        parsed = self.parse(list(overrides))
        groups = tuple(o.input_line for o in parsed if o.key_or_group in GROUPS or o.key_or_group.startswith("hydra"))
        if groups not in self.composed:
            config = self.load(self.master, list(groups))
            with open_dict(config):
                del config["hydra"]
            self.composed[groups] = config
        config = deepcopy(self.composed[groups])
        for override in parsed:
            if override.input_line not in groups:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        return config


def _check_names(arguments: list[str]) -> None:
    """Group choices and keys by name, so that a typo gets the nearest name instead of Hydra's page."""
    for word in arguments:
        option = word.partition("=")[0]
        if REFUSED_OPTION.fullmatch(option):
            raise InputError(f"{option} is not taken: configurations are those in {CONF}; give KEY=VALUE words")
    words = [word for word in arguments if not word.startswith("-") and "=" in word]
    try:
        overrides = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise InputError(_hydra_says(error)) from error
    known = OmegaConf.load(Path(CONF) / "sweep.yaml")
    top = [key for key in known if key not in ("defaults", "hydra")]
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra") and key not in OF_HYDRA:
            raise InputError(f"{key} is not taken: of Hydra's own settings only {', '.join(OF_HYDRA)} are")
        if override.type.name != "CHANGE" and key != "experiment" and not key.startswith("hydra"):
            raise InputError(f"{override.input_line}: write {key}=VALUE; only +experiment=NAME takes a sign before it")
        if key in GROUPS:
            valid = sorted(path.stem for path in (Path(CONF) / key).glob("*.yaml"))
            for given in _choices(override, valid):
                if given not in valid:
                    raise InputError(f"unknown {key} {given!r}; {nearest(given, valid)}")
            if key == "experiment" and override.type.name != "ADD" and not override.is_force_add():
                raise InputError(f"write +experiment={_choices(override, valid)[0]} (with a plus)")
        elif key.split(".")[0] not in (*top, *GROUPS, "hydra"):
            raise InputError(f"unknown setting {key!r}; {nearest(key, (*top, *GROUPS))}")


def _choices(override: Any, valid: list[str]) -> list[str]:
    if isinstance(override.value(), Glob):  # Hydra matches it when it composes; one without a match would be no cell
        return override.value().filter(valid) or [override.input_line.partition("=")[2]]
    if override.is_sweep_override():
        return [str(item) for item in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def _hydra_says(error: Exception) -> str:
    """Hydra's message in one line, without its hints on its own use."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("full_key", "object_type", "reference_type", "To append"))]
    return " ".join(lines)


def ordered(cells: list[Cell]) -> list[Cell]:
    """The order asked for, but with all cells of one loaded model together."""
    first = {}
    for position, cell in enumerate(cells):
        first.setdefault(cell.model_key, position)
    return sorted(cells, key=lambda cell: first[cell.model_key])


def run(cells: list[Cell], settings: dict[str, Any], session: str | None = None) -> int:
    """Run what is not recorded, show it, and say how it ended; the exit code. `session`: what workers use, in tests."""
    from harness.executors.local import SESSION, LocalExecutor
    from harness.share import Elsewhere, run_shared
    from harness.show import Display, summary
    from harness.store import Store
    from harness.upkeep import compact_if_large

    store = Store(Path(settings["results_dir"]))
    store.check_writable()
    before = store.versions()
    # A failed cell is tried again: what failed may have been the machine's memory or a file that is now there.
    pending = [c for c in ordered(cells) if settings["force"] or before.get(c.cell_id, ("", None))[0] != "ok"]
    failures: list[Record] = []
    others = 0
    if pending:
        how = {name: settings[name] for name in ("workers", "cell_timeout", "retries")}
        executor = LocalExecutor(str(store.root), session=session or SESSION, **how)
        with Display(pending, len(cells) - len(pending)) as display:
            for message in run_shared(executor, store, pending, before):
                display.show(message)
                if isinstance(message, Elsewhere):
                    others += message.done
                elif isinstance(message, Record) and message.cell["status"] != "ok":
                    failures.append(message)
        compact_if_large(store)
    summary(store, cells, ran=len(pending) - others, debug=settings["debug"], failures=failures)
    return 1 if any(status == "failed" for status, _ in store.versions([c.cell_id for c in cells]).values()) else 0


def main() -> int:
    began = time.perf_counter()
    debug = any(word.replace(" ", "").lower() in ("debug=true", "+debug=true", "++debug=true") for word in sys.argv[1:])

    def work() -> int:
        collector = enumerate_cells(sys.argv[1:])
        if not collector.cells:  # --help, --cfg and the like
            return 0
        code = run(list(collector.cells.values()), collector.settings)
        print(f"{time.perf_counter() - began:.1f} s in all")
        return code

    return guarded(work, debug)


def guarded(work: Callable[[], int], debug: bool) -> int:
    """The exit code of `work`; bad input and interruption end it with one line."""
    try:
        return work()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\ninterrupted: finished cells are kept; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130


if __name__ == "__main__":
    sys.exit(main())
