"""The tier of statistics: did quality get worse by more than matters, and is that more than chance over the whole grid?

Cells share prompts and noise, so every question is one of paired differences of per-image values. FID has such values
too: its influence, whose mean over the images moves as FID does (harness/metrics/fid.py), so that the interval of a
difference of two FIDs is far narrower than either FID's own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.statistics import CORRECTIONS, paired
from harness.verdict.findings import IMPROVEMENT, INCOMPARABLE, INCONCLUSIVE, PASS, REGRESSION, joined, made
from reports.gate.images import PairedImages
from reports.gate.pairs import Pairs
from reports.gate.policy import Policy, Rule

# What must be the same for two values of a metric to be two values of one thing.
DEFINED_BY = {
    "fid": ("fid_extractor", "fid_resizer", "reference_count", "fid_n"),
    "clip_score": ("clip_definition",),
    "discretisation_error": ("discretisation_reference",),
    "feature_distance": ("fid_extractor",),
    "lpips": ("lpips_definition",),
}


def quality(pairs: Pairs, images: PairedImages, policy: Policy) -> pd.DataFrame:
    found = joined([_rule(rule, pairs, images, policy) for rule in policy.quality])
    if found.empty:
        return found
    judged = found["verdict"] == ""
    # A comparison whose values are all equal can raise no alarm, so it costs the others nothing (Tarone 1990).
    family = judged & found["p"].notna()
    found.loc[family, "p_adjusted"] = CORRECTIONS[policy.correction](found.loc[family, "p"].to_numpy())
    found.loc[judged, "verdict"] = _verdicts(found[judged], policy)
    found.loc[judged & found["p"].isna(), "p_adjusted"] = 1.0
    return found.drop(columns=["margin", "worse"])


def image_columns(policy: Policy) -> list[str]:
    """The columns of the images table that the rules read."""
    return ["fid_influence" if rule.metric == "fid" else rule.metric for rule in policy.quality]


def _rule(rule: Rule, pairs: Pairs, images: PairedImages, policy: Policy) -> pd.DataFrame:
    """Findings of one metric; those to be judged have verdict "" and their margin."""
    blocks = images.values("fid_influence" if rule.metric == "fid" else rule.metric)
    cells = pairs.both()
    measured = (blocks.measured_b > 0)[cells.index]
    cells = cells[measured]  # what the baseline did not measure is not asked of the candidate
    other = _differing(cells, rule.metric)
    lost = (blocks.measured_b - blocks.measured_c)[cells.index]  # of the images that both have
    lost = pd.Series(lost, cells.index)[(other == "") & (lost > 0)]
    said = "the candidate did not measure it on " + lost.astype(str) + " of the images"
    parts = [
        _incomparable(rule, cells[other != ""], "the two differ in " + other[other != ""]),
        _incomparable(rule, cells.loc[lost.index], said),
    ]
    usable = cells.index[other == ""]
    frames = [_block(rule, pairs.cells, usable, *block) for block in blocks]
    return joined([*parts, *frames])


def _differing(cells: pd.DataFrame, metric: str) -> pd.Series:
    """Names of the definitions that differ, joined; "" where none does."""
    said = pd.Series("", cells.index, dtype=object)
    for column in DEFINED_BY.get(metric, ()):
        before, after = (cells[f"{column}_{side}"] for side in "bc")
        different = after.notna() & (before != after)
        said[different] = said[different].where(said[different] == "", said[different] + ", ") + column
    return said


def _incomparable(rule: Rule, cells: pd.DataFrame, said: object) -> pd.DataFrame:
    return made("quality", rule.metric, cells, INCOMPARABLE, message=said)


def _block(
    rule: Rule, all_cells: pd.DataFrame, usable: pd.Index, pair: np.ndarray, b: np.ndarray, c: np.ndarray
) -> pd.DataFrame:
    """Compare the cells `pair` (k,), whose images' values are the columns of b and c (n, k)."""
    keep = np.isin(pair, usable)
    pair, b, c = pair[keep], b[:, keep], c[:, keep]
    some = all_cells.loc[pair]
    if rule.metric == "fid":
        b = b + some["fid_b"].to_numpy(float)
        c = c + some["fid_c"].to_numpy(float)
    before, after = b.mean(0), c.mean(0)
    margin = np.maximum(rule.margin, rule.relative * np.abs(before))
    changed = (b != c).any(0)
    columns = {name: np.full(len(pair), value) for name, value in _UNCHANGED.items()}
    if changed.any():
        large = np.abs(after - before)[changed] >= margin[changed]
        result = paired(b[:, changed], c[:, changed], ask_p=large)
        for name in columns:
            columns[name][changed] = getattr(result, name)
    return made("quality", rule.metric, some, "").assign(
        baseline=before, candidate=after, n=float(len(b)), margin=margin, worse=rule.worse, **columns
    )


_UNCHANGED = {"difference": 0.0, "low": 0.0, "high": 0.0, "effect": 0.0, "superiority": 0.5, "p": np.nan}


def _verdicts(found: pd.DataFrame, policy: Policy) -> np.ndarray:
    """Size and significance make a regression; what may be one and cannot be told is inconclusive."""
    lower, either = found["worse"] == "lower", found["worse"] == "either"
    difference, low, high = (found[name].to_numpy() for name in ("difference", "low", "high"))
    worse = np.select([either, lower], [np.abs(difference), -difference], difference)
    at_most = np.select([either, lower], [np.maximum(np.abs(low), np.abs(high)), -low], high)
    at_most = np.where(np.isnan(at_most), np.inf, at_most)  # one image has no interval: it may be anything
    margin = found["margin"].to_numpy()
    significant = found["p_adjusted"].to_numpy() < policy.alpha
    enough = found["n"].to_numpy() >= policy.min_images
    changed = found["p"].notna().to_numpy()
    return np.select(
        [
            ~changed,
            enough & significant & (worse >= margin),
            enough & significant & (-worse >= margin) & ~either,
            (~enough & (at_most >= margin)) | (worse >= margin) | (at_most > policy.undecided * margin),
        ],
        [PASS, REGRESSION, IMPROVEMENT, INCONCLUSIVE],
        PASS,
    )
