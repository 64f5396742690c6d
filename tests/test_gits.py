"""The measured trajectory behind schedule=gits: its costs, and the command that writes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch

from harness.search import gits
from samplers import schedules
from samplers.core.levels import DiscreteVP, RectifiedFlow

PROCESS = DiscreteVP.scaled_linear()


def walk(denoise, process=PROCESS, count=8):
    """Ratios, states and directions of a trajectory from fixed noise, as the command makes them."""
    levels = gits.fine_levels(process, count)
    noise = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = noise * float(np.hypot(levels[0].alpha, levels[0].sigma))
    return levels.ratio[:: gits.BETWEEN], *gits.trajectory(denoise, start, levels)


@pytest.mark.parametrize("process", [PROCESS, PROCESS.ve(), RectifiedFlow()], ids=["vp", "ve", "flow"])
def test_a_straight_trajectory_costs_nothing_to_jump_along(process):
    ratios, states, directions = walk(lambda x, level: torch.full_like(x, 0.7), process)
    cost = gits.jump_costs(ratios, states, directions)
    assert cost.shape == (9, 9) and np.abs(cost).max() < 1e-9 * ratios[0]


def test_costs_of_a_gaussian_are_those_of_its_closed_form():
    """Data N(0, 1): x/α moves along √(1 + σ²), and an Euler jump from σ to σ' lands at x·(1 + σσ')/(1 + σ²)."""
    ratios, states, directions = walk(lambda x, level: x * level.alpha / (level.alpha**2 + level.sigma**2), count=24)
    cost = gits.jump_costs(ratios, states, directions)
    path = np.sqrt(1 + ratios**2)
    size = (states[0].square().flatten(1).mean(1).sqrt().mean() / path[0]).item()
    i, j = np.triu_indices(24, 1)
    lands = path[i] * (1 + ratios[i] * ratios[j]) / (1 + ratios[i] ** 2)
    assert np.allclose(cost[i, j], size * np.abs(lands - path[j]), atol=2e-3)
    assert np.allclose(cost[:24, 24], size * np.abs(path / (1 + ratios**2) - 1), atol=2e-3)


def test_the_command_writes_what_the_schedule_reads(tmp_path, capsys):
    folder, prompts, out = tiny.folder(tmp_path / "model"), tmp_path / "prompts.txt", tmp_path / "mine.json"
    prompts.write_text("a red circle\na blue square\n")
    words = ["--model", "diffusers", "--path", str(folder), "--prompts", str(prompts), "--device", "cpu"]
    assert gits.main([*words, "--images", "2", "--levels", "5", "--cfg", "2", "--out", str(out)]) == 0
    assert "5 levels of diffusers, cfg 2, 2 images" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert (content["model"], content["cfg"], content["images"]) == ("diffusers", 2.0, 2)
    assert [len(row) for row in content["cost"]] == [5, 4, 3, 2, 1, 0]
    levels = schedules.build("gits", PROCESS, 5, file=str(out))
    assert np.allclose(levels.ratio[:-1], schedules.build("karras", PROCESS, 5).ratio[:-1])  # every level of the five


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nobody"], "model='nobody' is unknown"),
        (["--model", "diffusers", "--path", "x"], "has no prompts of its own: give --prompts FILE"),
        (["--levels", "2"], "three levels"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(words, message, capsys):
    assert gits.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_shipped_trajectory_is_small_and_says_what_it_was_made_from():
    path = schedules.searched.SHIPPED / "gits_embedded.json"
    content = json.loads(path.read_text())
    assert path.stat().st_size < 100_000 and (content["model"], content["cfg"]) == ("embedded", 2.0)
    assert np.allclose([content["ratios"][0], content["ratios"][-2]], [PROCESS.ratio_max, PROCESS.ratio_min])
