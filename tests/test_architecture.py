"""Which part may know which: the imports of every file are walked."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDLINE = ROOT / "harness" / "sweep" / "commandline.py"


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


@cache
def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it; `from a import b` counts as a and, where it is a module, a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if is_module(name)}
            found |= modules if modules == names else {node.module, *modules}
    return found


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 3
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_samplers_know_nothing_of_the_harness():
    assert not [path for path in files("samplers") if roots(path) & {"harness", "reports", "hydra", "omegaconf"}]


def test_only_peers_and_hosts_know_other_libraries():
    others = [path for path in files("samplers") if path.parent.name not in ("peers", "hosts")]
    assert not [path for path in others if roots(path) & {"diffusers", "k_diffusion", "comfy"}]
    assert not [path for path in others if any(name.startswith("samplers.hosts") for name in imported(path))]


def test_a_peer_is_checked_without_torch():
    code = (
        "from samplers.peers.load import check; check('k_diffusion', {'name': 'euler', 'solver': 'euler'}, 'txt2img')"
    )
    assert not loaded_after(code) & {"torch", "diffusers", "k_diffusion"}


def test_only_the_command_line_knows_hydra():
    know = [path for path in files("harness", "samplers", "reports") if roots(path) & {"hydra", "omegaconf"}]
    assert know == [COMMANDLINE]


def test_reports_read_records_and_nothing_heavier():
    heavy = {"torch", "hydra", "diffusers", "transformers"}
    assert not [path for path in files("reports") if roots(path) & heavy]
    # The page computes a plan's order conditions with the samplers' own function; what it loads is asked below.
    assert [path.name for path in files("reports") if "samplers" in roots(path)] == ["plans.py"]


# Two lines each: the names that commands had before the rooms, `python -m harness.overhead` and so on.
DOORS = {
    ROOT / "harness" / f"{name}.py"
    for name in ("diagnose", "gits", "learn", "overhead", "parity_pipeline", "race", "reproduce", "status", "watch")
}


def rooms() -> dict[str, set[str]]:
    """Which room imports which: folders of harness/ and samplers/, their ground floors, and reports/.

    A `__main__.py` and a door are commands, which nobody imports: they may know everything.
    """

    def room(module: str) -> str:
        top, *rest = module.split(".")
        return f"{top}/{rest[0]}" if top != "reports" and rest and (ROOT / top / rest[0]).is_dir() else top

    found: dict[str, set[str]] = {}
    for path in files("harness", "samplers", "reports"):
        if path.name == "__main__.py" or path in DOORS:
            continue
        here = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        known = {room(name) for name in imported(path) if name.split(".")[0] in ("harness", "samplers", "reports")}
        found.setdefault(here, set()).update(known - {here})
    return found


def test_rooms_form_no_circle():
    TopologicalSorter(rooms()).prepare()  # raises CycleError, which names the rooms of the circle


def test_modules_form_no_circle():
    """Nor do two files that import each other late, in a function or for their types alone."""
    paths = files("harness", "samplers", "reports")
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    TopologicalSorter({name: imported(path) & names.keys() - {name} for name, path in names.items()}).prepare()


def test_nobody_imports_reports_but_commands():
    assert not [name for name, known in rooms().items() if "reports" in known]
    assert {name for name, known in rooms().items() if name == "harness" and known} == set(), "the ground floor"


def test_doors_are_doors():
    for door in DOORS:
        assert len(door.read_text().splitlines()) < 12
        assert not [
            path for path in files("harness", "samplers", "reports") if f"harness.{door.stem}" in imported(path)
        ]


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('modules', *sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split("modules", 1)[1].split())


def test_a_sweep_is_enumerated_without_torch():
    code = "from harness.sweep.enumerate import enumerate_cells\n"
    code += "assert len(enumerate_cells(['steps=5,10', 'device=cpu']).cells) == 2\n"
    code += "import harness.sweep.end_table, harness.executors.local"
    assert not loaded_after(code) & {"torch", "diffusers", "transformers", "open_clip", "scipy.stats"}


def test_a_worker_process_does_not_load_hydra():
    """It imports the module that was started as a program once more (multiprocessing's spawn)."""
    assert not loaded_after("import harness.sweep.__main__, harness.executors.local") & {"torch", "hydra", "omegaconf"}


def test_a_cell_of_a_formula_loads_no_library_of_networks():
    code = "import sys, tempfile; from harness.sweep.enumerate import enumerate_cells as of\n"
    code += "from harness.measure.session import Session\n"
    code += "words = ['model=gmm', 'steps=2', 'n_images=2', 'timing=off', 'metrics=[law]', 'device=cpu', 'threads=1']\n"
    code += "Session(tempfile.mkdtemp()).run(*of(words).cells.values(), lambda *said: None)"
    assert not loaded_after(code) & {"diffusers", "transformers", "torchvision", "torch._dynamo", "torch._inductor"}


def test_hydra_is_driven_through_its_public_functions():
    """Only what its documentation names, and nothing of it, of the arguments or of the environment is patched."""
    text = (COMMANDLINE).read_text()
    assert not [name for name in imported(COMMANDLINE) if "_internal" in name or "mock" in name]
    assert not [word for word in ("patch", "sys.argv", "environ", "setattr") if word in text]


def test_reports_are_loaded_without_torch():
    assert not loaded_after("import reports.plot, reports.check, reports.page") & {"torch", "hydra", "diffusers"}


def test_the_yaml_files_and_the_code_name_the_same_things():
    from harness.data import load as data
    from harness.metrics import load as metrics
    from harness.paths import NOT_KNOBS
    from harness.tasks import load as tasks
    from samplers import registry, schedules

    assert registry.NOT_KNOBS == NOT_KNOBS  # samplers/ imports nothing of the harness
    for name in registry.names():
        spec = registry.load(name)
        assert spec["name"] == name
        # Every knob is visible in the YAML, and none is there that the code does not read.
        knobs = set(spec) - set(registry.NOT_KNOBS)
        assert knobs == set(registry.knobs(name)), name
        assert spec["default_schedule"] in schedules.names()
        if few := spec.get("few_calls"):
            assert set(few) == {"below", "schedule"} and few["schedule"] in schedules.names()
    assert set(schedules.names()) | {"auto", "stock"} == {
        path.stem for path in (ROOT / "conf" / "schedule").glob("*.yaml")
    }
    for module in (tasks, data, metrics):
        assert module.names()
