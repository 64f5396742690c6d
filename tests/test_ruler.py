"""The ruler's test tells a world that separates samplers from one that does not."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from harness.bench import ruler

IMAGES = 64
CFG = 3


def row(name: str, **values: object) -> dict[str, object]:
    own = {"sampler": "euler", "schedule": "karras", "own_levels": True, "calls": 20, "steps": 20, "cfg": 3, "fid": 1.0}
    return {
        "cell_id": name,
        "status": "ok",
        "task": "txt2img",
        "discretisation_error": 0.1,
        "clip_score": 90.0,
        **own,
        **values,
    }


def world(change=lambda cells: None) -> ruler.Records:
    """A world in which everything holds, after `change` has edited its cells in place."""
    rows = []
    for sampler in ruler.FIRST_ORDER:
        for k, calls in enumerate(ruler.CALLS):
            more = {
                "schedule": "own",
                "calls": calls,
                "steps": calls,
                "fid": 9.0 - 2 * k,
                "discretisation_error": 0.4 - k / 10,
            }
            rows.append(row(f"{sampler}{calls}", sampler=sampler, **more))
    for sampler in ruler.HIGH_ORDER:
        for j, schedule in enumerate(ruler.SCHEDULES):
            for k, calls in enumerate(ruler.CALLS):
                value = [8.5, 4.0, 3.0, 2.5][k] + j
                more = {"calls": calls, "steps": calls, "fid": value, "discretisation_error": 0.05 * value}
                rows.append(
                    row(f"{sampler}{schedule}{calls}", sampler=sampler, schedule=schedule, own_levels=j == 0, **more)
                )
    for cfg in ruler.GUIDANCE:
        if cfg != CFG:
            more = {"calls": 21, "cfg": cfg, "fid": 2.5 + abs(cfg - 3), "clip_score": 88.0 + min(cfg, 3)}
            rows.append(row(f"cfg{cfg}", sampler="dpmpp", **more))
    rows.append(row("limit", sampler="dpmpp", calls=100, steps=100, fid=2.4, discretisation_error=1e-4))
    cells = pd.DataFrame(rows)
    change(cells)
    noise = np.random.default_rng(0).normal(size=IMAGES)
    images = [
        {
            "cell_id": cell["cell_id"],
            "image_index": np.arange(IMAGES),
            "prompt": "a",
            "fid_influence": 0.1 * (noise - noise.mean()) * (1 + 0.1 * k),
            "clip_score": cell["clip_score"] + noise - noise.mean() + 0.05 * np.cos(np.arange(IMAGES) + k),
        }
        for k, cell in cells.iterrows()
    ]
    return ruler.Records(cells, pd.concat([pd.DataFrame(each) for each in images], ignore_index=True), CFG)


QUESTIONS = [
    question for question in ruler.QUESTIONS if question not in (ruler.drawings_are_better, ruler.fid_sees_flaws)
]


def failed(records: ruler.Records) -> set[str]:
    return {question.__name__ for question in QUESTIONS if not all(finding.holds for finding in question(records))}


def test_a_world_that_separates_samplers_passes():
    findings = [finding for question in QUESTIONS for finding in question(world())]
    assert len(findings) == 6 + 9 + 1 + 3 and all(finding.holds for finding in findings), findings


def test_two_call_samplers_count_between_the_numbers_of_calls():
    def with_others(cells: pd.DataFrame) -> None:
        for k, calls in enumerate((4, 7, 9, 19, 21)):
            cells.loc[len(cells)] = row(f"heun{k}", sampler="heun", calls=calls, fid=3.0)

    (few,), (more,) = (list(ruler.fid_follows_the_error(world(change))) for change in (lambda cells: None, with_others))
    assert "(Spearman, 32 cells)" in few.statement and "(Spearman, 35 cells)" in more.statement


def test_the_findings_can_be_written_down():
    findings = [asdict(finding) for question in QUESTIONS for finding in question(world())]
    assert json.loads(json.dumps(findings)) == findings


def setting(column: str, value: float, **asked: object):
    def change(cells: pd.DataFrame) -> None:
        rows = np.logical_and.reduce([cells[name] == wanted for name, wanted in asked.items()])
        assert rows.any()
        cells.loc[rows, column] = value

    return change


@pytest.mark.parametrize(
    ("question", "change"),
    [
        ("first_order_needs_calls", setting("fid", 9.0, sampler="ddim", calls=20)),
        ("high_order_needs_fewer", setting("fid", 8.0, sampler="unipc", calls=8)),
        ("high_order_needs_fewer", setting("fid", 12.0, own_levels=True, schedule="karras", calls=5)),
        ("guidance_has_a_valley", setting("fid", 2.0, cfg=12)),
        ("guidance_has_a_valley", setting("clip_score", 95.0, cfg=1)),
    ],
)
def test_each_statement_can_fail(question, change):
    def both(cells: pd.DataFrame) -> None:
        change(cells)
        if question == "high_order_needs_fewer":  # on no schedule is it better
            high = cells["sampler"].isin(ruler.HIGH_ORDER) & (cells["calls"] < 20)
            worst = cells[high].groupby("calls")["fid"].transform("max")
            cells.loc[high, "fid"] = worst

    assert question in failed(world(both))


def test_an_error_that_says_nothing_of_fid_fails():
    def shuffled(cells: pd.DataFrame) -> None:
        cells["discretisation_error"] = np.random.default_rng(1).permutation(cells["discretisation_error"])

    assert "fid_follows_the_error" in failed(world(shuffled))


def test_every_deterministic_sampler_is_swept_and_no_other():
    names = ruler.deterministic()
    assert {"euler", "ddim", "plms", "heun", "dpmpp", "unipc", "deis"} <= set(names)
    assert not {"euler_a", "ddpm", "dpm_adaptive", "plan", "flow_euler", "dpmpp_2m_sde"} & set(names)
