"""Joules from a made-up powercap folder and a made-up NVML, nulls with their reasons, and what images cost."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import records
from figure_records import looks, recorded
from test_compare_report import sweep
from test_queue import Toy

from harness.bench.fake_cells import cell
from harness.errors import InputError
from harness.executors.base import Record
from harness.executors.queue import Queue
from harness.measure import energy
from harness.measure.energy import Energy, Nvml, Rapl, Unreadable
from harness.store.records import Store
from harness.store.shared_machine import of_shared_machine
from harness.sweep.enumerate import enumerate_cells
from reports import options, pick, plot
from reports.apart import Evidence
from reports.figures import pareto
from reports.web import verdicts

RANGE = 262_143_328_850  # µJ, of an Intel server


ZONES = {
    "intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:0:1": "core",
    "intel-rapl:1": "package-1", "intel-rapl:2": "psys",
}  # fmt: skip


class Powercap:
    """Two packages, one with memory and cores in it, and the whole board beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "intel-rapl").mkdir(parents=True)  # the control type itself counts nothing
        for zone, name in ZONES.items():
            (folder / zone).mkdir()
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            self.set(zone, 1_000_000)

    def set(self, zone: str, microjoules: int) -> None:
        (self.folder / zone / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def powercap(tmp_path, monkeypatch) -> Powercap:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return Powercap(tmp_path / "powercap")


@pytest.fixture
def no_powercap(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nothing")


class Gpu(ModuleType):
    """The functions of pynvml that are called, of one GPU that uses 50 J between two looks."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.joules, self.works, self.asked = 1000.0, True, None

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked = uuid
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.works:
            raise self.NVMLError("Not Supported")
        self.joules += 50
        return int(1000 * self.joules)


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    made = Gpu()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(energy, "_uuid", lambda device: "1234")
    return made


def test_packages_and_memory_are_counted_once_and_a_turn_of_the_counter_is_no_loss(powercap):
    counter = Rapl()
    assert counter.joules() == 0 and counter.what == "RAPL package-0+dram+package-1"
    powercap.set("intel-rapl:0", 3_000_000)  # 2 J
    powercap.set("intel-rapl:0:0", 1_500_000)  # 0.5 J
    powercap.set("intel-rapl:0:1", 2_900_000)  # cores: within the package
    powercap.set("intel-rapl:2", 9_000_000)  # the board: holds the packages
    assert counter.joules() == pytest.approx(2.5)
    powercap.set("intel-rapl:1", 400_000)  # it began anew: to its end and 0.4 J more
    assert counter.joules() == pytest.approx(2.5 + (RANGE - 1_000_000 + 400_000) / 1e6)
    powercap.set("intel-rapl:1", 500_000)
    assert counter.joules() == pytest.approx(2.5 + (RANGE - 500_000) / 1e6)


def test_a_long_stretch_is_looked_at_before_the_counter_can_turn_twice(powercap, monkeypatch):
    monkeypatch.setattr(energy, "LOOK_S", 0.002)
    used = Energy("cpu")
    with used:
        for _ in range(3):  # three turns, each of them seen on the way
            for level in (RANGE // 2, 1_000_000):
                powercap.set("intel-rapl:0", level)
                counter, seen = used.counters["cpu"].domains[0], level
                deadline = time.monotonic() + 60
                while counter.last != seen and time.monotonic() < deadline:
                    time.sleep(0.001)
    assert used.columns(1)["cpu_j_per_image"] == pytest.approx(3 * RANGE / 1e6)


def test_joules_an_image_and_their_definition(powercap):
    used = Energy("cpu")
    for level in (5_000_000, 9_000_000):
        with used:
            powercap.set("intel-rapl:0", level)
    assert used.columns(4) == {
        "energy_j_per_image": 2.0, "gpu_j_per_image": None, "cpu_j_per_image": 2.0,
        "energy_definition": "cpu: RAPL package-0+dram+package-1",
    }  # fmt: skip
    assert "did not move" in Energy("cpu").columns(1)["energy_definition"]


def test_where_there_is_no_counter_the_record_says_why(no_powercap, tmp_path):
    row = Energy("cpu").columns(8)
    assert row["energy_j_per_image"] is None and row["cpu_j_per_image"] is None
    assert row["energy_definition"] == f"cpu: none, no RAPL counter in {tmp_path / 'nothing'}"
    assert "no energy counter of device mps" in Energy("mps").columns(1)["energy_definition"]


def test_a_counter_that_root_alone_may_read_is_no_error(powercap, monkeypatch):
    plain = Path.read_text

    def read(path, *words, **more):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *words, **more)

    monkeypatch.setattr(Path, "read_text", read)
    with pytest.raises(Unreadable, match=r"intel-rapl:0/energy_uj may be read by root alone"):
        Rapl()
    with Energy("cpu") as used:
        pass
    assert used.columns(1)["energy_j_per_image"] is None


def test_a_counter_that_fails_on_the_way_is_given_up(powercap):
    with Energy("cpu") as used:
        (powercap.folder / "intel-rapl:1" / "energy_uj").unlink()
    row = used.columns(1)
    assert row["energy_j_per_image"] is None and "cannot be read any more" in row["energy_definition"]


def test_a_gpu_is_known_by_its_uuid_and_adds_to_the_processor(gpu, powercap):
    used = Energy("cuda:1")
    with used:
        powercap.set("intel-rapl:0", 11_000_000)
    assert gpu.asked == "GPU-1234"
    row = used.columns(10)
    assert (row["gpu_j_per_image"], row["cpu_j_per_image"], row["energy_j_per_image"]) == (5.0, 1.0, 6.0)
    assert row["energy_definition"] == "gpu: NVML total energy; cpu: RAPL package-0+dram+package-1"


def test_the_processor_alone_is_no_energy_of_a_gpus_cell(gpu, powercap):
    gpu.works = False
    with Energy("cuda:0") as used:
        powercap.set("intel-rapl:0", 11_000_000)
    row = used.columns(1)
    assert row["energy_j_per_image"] is None and row["cpu_j_per_image"] == 10.0
    assert "gpu: none, NVML's energy counter cannot be read: Not Supported" in row["energy_definition"]


def test_without_the_bindings_one_line_says_what_to_install(no_powercap, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Unreadable, match="uv pip install nvidia-ml-py"):
        Nvml("cuda:0")


def test_parts_of_a_cell_add_up_and_one_without_a_counter_leaves_the_whole_unknown(powercap):
    parts = []
    for level in (3_000_000, 4_000_000):
        with Energy("cpu") as part:
            powercap.set("intel-rapl:0", level)
        parts.append(part.gathered())
    whole = Energy("cpu")
    for part in parts:
        whole.take(part)
    assert whole.columns(3)["energy_j_per_image"] == pytest.approx(1.0)
    whole.take(({}, {"cpu": "no RAPL counter there"}))
    row = whole.columns(3)
    assert row["energy_j_per_image"] is None and row["energy_definition"] == "cpu: none, no RAPL counter there"


ROW = {"energy_j_per_image": 3.0, "gpu_j_per_image": None, "cpu_j_per_image": 3.0, "energy_definition": "cpu: RAPL x"}


def test_workers_side_by_side_do_not_each_claim_the_processors_joules():
    assert of_shared_machine(ROW, 1) == {}
    shared = {**ROW, **of_shared_machine(ROW, 2)}
    assert shared["energy_j_per_image"] is None and "2 workers shared" in shared["energy_definition"]
    both = {**ROW, "gpu_j_per_image": 2.0, "energy_definition": "gpu: NVML; cpu: RAPL x"}
    found = {**both, **of_shared_machine(both, 2)}
    assert found["energy_j_per_image"] == 2.0 and found["energy_definition"].startswith("gpu: NVML; cpu: none, 2 work")


class Priced(Toy):
    """Workers whose records say that they made half an image a second."""

    def handle(self, device):
        worker = super().handle(device)
        receive = worker.receive

        def heard():
            message = receive()
            if isinstance(message, Record):
                message.cell.update(images_per_s=0.5, **ROW)
            return message

        worker.receive = heard
        return worker


@pytest.mark.parametrize(("workers", "cost"), [(1, 2.0), (2, 1.0)])
def test_a_price_becomes_a_column_that_workers_share(workers, cost):
    cells = [cell(seed) for seed in range(2)]
    found = list(Queue(Priced(workers), price_per_hour=3.6).run(cells))
    rows = [one.cell for one in found if isinstance(one, Record)]
    assert [row["cost_per_1000"] for row in rows] == pytest.approx([cost] * 2)
    assert {row["price_per_hour"] for row in rows} == {3.6}
    assert all((row["cpu_j_per_image"] is None) == (workers == 2) for row in rows)
    unpriced = [one.cell for one in Queue(Priced(1)).run(cells) if isinstance(one, Record)]
    assert not any("cost_per_1000" in row for row in unpriced)


def test_a_price_is_in_no_cells_id_and_has_two_ends():
    words = ["model=gmm", "steps=3", "device=cpu"]
    priced = enumerate_cells([*words, "price_per_hour=2.5"])
    assert priced.settings.price_per_hour == 2.5
    assert list(priced.cells) == list(enumerate_cells(words).cells)
    with pytest.raises(InputError, match="price_per_hour=-1 is not valid"):
        enumerate_cells([*words, "price_per_hour=-1"])


GRID = {("euler", 10, 3.0): 90.0, ("dpmpp", 10, 3.0): 92.0, ("dpmpp", 20, 3.0): 93.0}


def test_the_best_within_so_many_joules_and_so_much_money(tmp_path, capsys):
    for k, (key, clip) in enumerate(GRID.items()):
        sweep(
            tmp_path, {key: clip}, energy_j_per_image=1.0 + k, energy_definition="cpu: RAPL x", images_per_s=1 / (k + 1)
        )
    assert pick.main(["--by", "clip", "--energy", "2", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 cells fit" in said and "2 J/image" in said and "sampler=dpmpp schedule=karras steps=10" in said
    assert pick.main(["--by", "clip", "--cost", "1", "--price-per-hour", "3.6", "--results", str(tmp_path)]) == 0
    assert "1 of 3 cells fit" in capsys.readouterr().out  # 1, 2 and 3 for 1,000
    assert pick.main(["--by", "clip", "--cost", "1", "--results", str(tmp_path)]) == 2
    assert "price_per_hour=PRICE" in capsys.readouterr().err
    assert pick.main(["--by", "clip", "--cost", "1", "--price-per-hour", "nan", "--results", str(tmp_path)]) == 2


def test_unrecorded_joules_are_refused_with_their_reason(tmp_path, capsys):
    sweep(tmp_path, GRID, energy_definition="cpu: none, no RAPL counter in /sys/class/powercap")
    assert pick.main(["--by", "clip", "--energy", "2", "--results", str(tmp_path)]) == 2
    assert "no RAPL counter in /sys/class/powercap" in capsys.readouterr().err


def test_figures_stand_over_joules_and_money(tmp_path):
    rows = [
        records.cell_row(
            "dpmpp", steps, energy_j_per_image=0.1 * steps, energy_definition="cpu: RAPL x", price_per_hour=2.0,
            cost_per_1000=0.2 * steps,
        )
        for steps in (5, 10, 20)
    ]  # fmt: skip
    (group,) = recorded(tmp_path, rows)
    for cost, label, at in (
        ("energy_j_per_image", "energy (J an image; cpu: RAPL x)", [0.5, 1, 2]),
        ("cost_per_1000", "cost of 1,000 images (at 2 an hour)", [1, 2, 4]),
    ):
        drawing = pareto.draw(group, looks(group), Evidence(Store(tmp_path)), cost=cost)
        panel = drawing.figure.axes[0]
        assert panel.get_xlabel() == label
        assert np.allclose(sorted(panel.containers[0].lines[0].get_xdata()), at)
    (plain,) = recorded(tmp_path / "plain", [records.cell_row("dpmpp", steps) for steps in (5, 10)])
    assert pareto.draw(plain, looks(plain), Evidence(Store(tmp_path / "plain")), cost="cost_per_1000").figure is None
    assert {"quality against energy", "quality against cost"} <= set(plot.CHARTS)


def test_the_page_offers_every_cost_and_a_report_may_set_the_price(tmp_path):
    assert {"energy_j_per_image", "cost_per_1000", "latency_s", "flops"} <= set(verdicts.COSTS)
    sweep(tmp_path, GRID, images_per_s=2.0)
    cells = options.priced(options.cells_of(tmp_path), 7.2)
    assert cells["cost_per_1000"].tolist() == pytest.approx([1.0] * 3)
