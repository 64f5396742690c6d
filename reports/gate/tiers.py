"""The tiers that need no statistics: is the cell there, did it do the same work, did it make the same images?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.store.sketch import psnr
from harness.verdict.findings import INCOMPARABLE, INCONCLUSIVE, NOTE, PASS, REGRESSION, joined, made
from reports.gate.images import PairedImages
from reports.gate.pairs import Pairs
from reports.gate.policy import Policy

LOW_PRECISION = ("fp16", "bf16")


def coverage(pairs: Pairs, policy: Policy) -> pd.DataFrame:
    """A cell that was ok must be there and ok; failed and skipped are two things."""
    cells = pairs.cells
    was, now = cells["status_b"], cells["status_c"]
    error = cells["error_c"].fillna("").astype(str)
    parts = []
    for state, chosen in (("vanished", now.isna()), ("failed", now == "failed"), ("skipped", now == "skipped")):
        some = cells[(was == "ok") & chosen]
        said = "the candidate has no such cell" if state == "vanished" else f"{state}: " + error[some.index]
        parts.append(made("coverage", "status", some, policy.coverage[state], message=said))
    good = cells[(was == "ok") & (now == "ok")]
    parts.append(made("coverage", "status", good, PASS))
    mended = cells[(was != "ok") & (now == "ok")]
    parts.append(
        made("coverage", "status", mended, NOTE, message="was " + was[mended.index] + ", now ok: new baseline?")
    )
    still = cells[(was != "ok") & (now != "ok")]
    parts.append(made("coverage", "status", still, NOTE, message="was " + was[still.index] + " in the baseline too"))
    return joined(parts)


def deterministic(pairs: Pairs, images: PairedImages, policy: Policy) -> pd.DataFrame:
    """Counted work must be equal; images of the same noise must be the same."""
    cells = pairs.both()
    parts = [_equal(cells, "nfe"), _equal(cells, "steps_run"), _flops(cells, policy)]
    return joined([*parts, _golden(cells, images, policy)])


def _equal(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    before, after = (cells[f"{column}_{side}"].astype(float) for side in "bc")
    known = before.notna() & after.notna()
    verdict = np.where(known & (before != after), REGRESSION, PASS)
    said = np.where(known & (before != after), f"{column} changed", "")
    out = made("deterministic", column, cells, verdict, message=said)
    return out.assign(baseline=before.to_numpy(), candidate=after.to_numpy(), difference=(after - before).to_numpy())


def _flops(cells: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    before, after = (cells[f"flops_{side}"].astype(float).to_numpy() for side in "bc")
    ratio = after / before
    tolerance = policy.deterministic["flops_relative"]
    more, less = ratio > 1 + tolerance, ratio < 1 - tolerance
    verdict = np.select([more, less], [REGRESSION, NOTE], PASS)
    said = [f"{100 * (r - 1):+.3g} % FLOPs" if m or k else "" for r, m, k in zip(ratio, more, less, strict=True)]
    out = made("deterministic", "flops", cells, verdict, message=said)
    return out.assign(baseline=before, candidate=after, difference=after - before)


def _golden(cells: pd.DataFrame, images: PairedImages, policy: Policy) -> pd.DataFrame:
    """PSNR over all shared images, from their sketches; equal bytes are infinitely alike."""
    seen = images.golden().reindex(cells.index)
    same_weights = cells["model_fingerprint_b"] == cells["model_fingerprint_c"]
    pairable = images.pairable.reindex(cells.index).fillna(False)
    measured = seen["mse"].notna() & same_weights & pairable
    least = _least_db(cells, policy)
    ratio = psnr(seen["mse"].to_numpy(float))
    verdict = np.select(
        [~same_weights, ~pairable, ~measured, ratio < least], [NOTE, INCONCLUSIVE, NOTE, REGRESSION], PASS
    )
    rows = zip(ratio, psnr(seen["worst"].to_numpy(float)), seen["equal"], least, strict=True)
    alike = [
        f"{mean:.1f} dB, worst image about {worst:.0f} dB, {equal:.0%} equal bit for bit; at least {bound:.0f} dB asked"
        for mean, worst, equal, bound in rows
    ]
    other = "other weights: images are not held against the baseline's"
    unknown = [f"images not compared: {why}" for why in images.why(cells)]
    said = np.select([~same_weights, ~measured], [np.full(len(cells), other), np.array(unknown)], np.array(alike))
    out = made("deterministic", "images", cells, verdict, message=said)
    return out.assign(baseline=least, candidate=ratio, n=seen["n"].to_numpy(float))


def _least_db(cells: pd.DataFrame, policy: Policy) -> np.ndarray:
    def same(column: str) -> pd.Series:
        return cells[f"{column}_b"].fillna("") == cells[f"{column}_c"].fillna("")

    kind = policy.deterministic
    platform = same("device") & same("hardware") & same("torch_version")
    out = np.where(platform, kind["same_platform_db"], kind["other_platform_db"])
    return np.where(cells["precision_b"].isin(LOW_PRECISION), np.minimum(out, kind["low_precision_db"]), out)


def comparable(pairs: Pairs) -> pd.DataFrame:
    """Cells that asked the same of other data: nothing of theirs may be compared, and that is said."""
    cells = pairs.both()
    other = cells[cells["data_fingerprint_b"] != cells["data_fingerprint_c"]]
    said = "other data (data_fingerprint): neither images nor quality compared"
    return made("coverage", "data", other, INCOMPARABLE, message=said)
