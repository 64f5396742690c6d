"""The overhead command measures what it says, on the same work for everybody; no clock is asserted."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.parity import overhead


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("overhead") / "sub" / "overhead.parquet"
    words = ["--samplers", "euler,lms:order=2,ddpm,unipc,lcm", "--shapes", "1x4x64x64", "--steps", "6", "--blocks", "3"]
    assert overhead.main([*words, "--out", str(out)]) == 0
    return pd.read_parquet(out)


def test_every_implementation_that_there_is_is_measured(measured):
    found = measured.groupby("sampler")["implementation"].apply(set).to_dict()
    assert found == {
        "euler": {"native", "diffusers", "k_diffusion"},
        "lms:order=2": {"native", "diffusers", "k_diffusion"},
        "ddpm": {"native", "diffusers"},
        "unipc": {"native", "diffusers"},
        "lcm": {"native", "diffusers"},  # reckons with whole timesteps: on trained levels
    }
    assert (measured["us_min"] > 0).all() and (measured["us_median"] >= measured["us_min"]).all()
    assert (measured["add_us"] > 0).all() and (measured["randn_us"] > 0).all()
    native = measured[measured["implementation"] == "native"].set_index("sampler")
    assert (native["plan_ms"] > 0).all()
    assert native["draws"].to_dict() == {"euler": 0, "lms:order=2": 0, "ddpm": 5, "unipc": 0, "lcm": 5}


def test_the_table_names_the_ratio_and_what_is_not_below(measured, capsys):
    from rich.console import Console

    told = measured.copy()
    told.loc[(told["sampler"] == "euler") & (told["implementation"] == "native"), "us_min"] = 1e9
    overhead.show(told, Console(width=150))
    said = capsys.readouterr().out
    assert "geometric mean of native / fastest peer over 5 samplers" in said and "not below it: euler" in said


def test_wrong_words_end_in_one_line(capsys, tmp_path):
    for name, message in (("eulr", "did you mean 'euler'"), ("plan", "not measured"), ("lms:ordr=3", "no knob 'ordr'")):
        assert overhead.main(["--samplers", name, "--shapes", "1x4x64x64", "--out", str(tmp_path / "o")]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        overhead.main(["--shapes", "2x2"])
