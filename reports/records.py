"""Records as a report sees them, and the one question every figure asks: which cells may stand side by side?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.store import Store

# What makes two lines two lines: a sampler with its knobs, its schedule, and whose code stepped.
VARIANT = ["sampler", "sampler_knobs", "implementation", "schedule", "schedule_knobs"]
# Everything else that was asked and changes quality. Cells of one figure agree on all of it but the figure's axes.
QUALITY_AXES = [
    *["task", "task_knobs", "model", "model_fingerprint", "data", "data_fingerprint", "height", "width"],
    *["steps", "cfg", "guidance_rescale", "guidance_knobs", "negative_prompt", "strength", "keep_steps"],
    *["precision", "seed", "n_images", "reference_count"],
]
FID_AXES = ["fid_extractor", "fid_resizer", "clip_definition"]
COST_AXES = ["device", "hardware", "threads", "timing_preset", "timing_batch", "peak_memory_kind"]
GUIDANCE_ONLY = ["guidance_rescale", "guidance_knobs", "negative_prompt"]  # without effect where cfg is 1
ALWAYS_SAID = ["steps", "cfg", "strength", "precision", "n_images"]
NOTHING = "–"


@dataclass(frozen=True)
class Selection:
    """Cells that differ in a figure's own axes alone. `held` says what they agree on, `left_out` what is not shown."""

    cells: pd.DataFrame
    held: str
    left_out: str

    def lines(self, x: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """A label and its cells, sorted by `x`, for every variant."""
        for label, rows in self.cells.groupby("label", sort=True):
            yield str(label), rows.sort_values(x)


@dataclass(frozen=True)
class Group:
    """The good cells of one task and model; each group has its own figures."""

    task: str
    model: str
    cells: pd.DataFrame

    @property
    def slug(self) -> str:
        words = f"{self.task}-{self.model}".lower()
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in words)

    def select(
        self, vary: str, needs: Sequence[str], free: Sequence[str] = (), axes: Sequence[str] = (), lines: bool = True
    ) -> Selection | None:
        """The largest set of cells that agree on all axes but `vary` and `free`, and have any of `needs` measured.

        Among equally large ones it is that in the middle of the other axes, never that with the best values.

        `axes`: what must agree beside the axes of quality. `lines`: a variant counts where it has two or more values
        of `vary`; otherwise any cell counts. None where nothing can be compared.
        """
        measured = self.cells[self.cells[list(needs)].notna().any(axis=1)]
        measured = measured.sort_values("ended_at").drop_duplicates(
            [*VARIANT, *QUALITY_AXES, *FID_AXES, *COST_AXES], keep="last"
        )
        held = [axis for axis in [*QUALITY_AXES, *axes] if axis not in (vary, *free)]
        keys = _keys(measured, held)
        # Where cfg varies, cells at cfg 1 join whatever they agree with in all that has an effect there.
        off = (measured["cfg"] == 1) & ("cfg" in (vary, *free))
        keys_off = _keys(measured, [axis for axis in held if axis not in GUIDANCE_ONLY])
        best, best_score = None, (0, 0, 0.0)
        for key, count in keys.value_counts().items():
            if count + off.sum() < best_score[0]:
                break  # neither this set nor a smaller one can be the largest
            same = keys == key
            chosen = measured[same | off & (keys_off == keys_off[same.idxmax()])]
            if lines:
                counts = chosen.groupby("label")[vary].transform("nunique")
                chosen = chosen[counts >= 2]
            score = (len(chosen), chosen[vary].nunique(), _central(measured, chosen, held))
            if score > best_score:
                best, best_score = chosen, score
        if best is None:
            return None
        return Selection(best, _held(measured, best, held), _left_out(measured, best, held, lines))


def load(results: Path) -> pd.DataFrame:
    """All cell rows, each with the `label` of its variant."""
    cells = Store(results).cells()
    return cells.assign(label=_labels(cells))


def groups(cells: pd.DataFrame) -> list[Group]:
    good = cells[cells["status"] == "ok"]
    found = [
        Group(str(task), str(model), rows)
        for (task, model), rows in good.groupby(["task", "model"], dropna=False, sort=False)
    ]
    return sorted(found, key=lambda group: -len(group.cells))


def _keys(cells: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """One hashable value a row: equal where all `columns` are, nulls included."""
    codes = np.stack([pd.factorize(cells[column])[0] for column in columns], axis=1)
    return pd.Series([row.tobytes() for row in codes], index=cells.index)


def _central(measured: pd.DataFrame, chosen: pd.DataFrame, held: Sequence[str]) -> float:
    """0 where the held steps, cfg and strength are each the median of the values swept, negative away from it."""
    distance = 0.0
    for axis in ("steps", "cfg", "strength"):
        swept = np.sort(measured[axis].dropna().unique())
        if axis in held and len(swept) > 1 and chosen[axis].notna().any():
            place = np.searchsorted(swept, chosen[axis].dropna().iloc[0]) / (len(swept) - 1)
            distance += abs(place - 0.5)
    return -distance


def _held(measured: pd.DataFrame, chosen: pd.DataFrame, held: Sequence[str]) -> str:
    """What the chosen cells agree on: the axes a reader always asks about, and those that vary elsewhere."""
    said = [plain(chosen["label"].iloc[0])] if "sampler" in held else []
    for axis in held:
        if axis in VARIANT:
            continue
        values = chosen[axis].dropna().unique()
        varies = measured[axis].nunique(dropna=False) > 1
        if len(values) == 1 and (axis in ALWAYS_SAID or varies) and axis not in ("task", "model"):
            said.append(f"{axis.replace('_', ' ')} {plain(values[0])}")
    return ", ".join(said)


def _left_out(measured: pd.DataFrame, chosen: pd.DataFrame, held: Sequence[str], lines: bool) -> str:
    """How many measured cells are not shown, and in which axes they differ."""
    others = measured.drop(chosen.index)
    if others.empty:
        return ""
    reasons = [axis.replace("_", " ") for axis in held if not set(others[axis].dropna()) <= set(chosen[axis].dropna())]
    lone = " or alone on their line" if lines else ""
    why = f"other {', '.join(reasons)}{lone}" if reasons else "alone on their line"
    return f"{len(others)} of {len(measured)} cells not shown: {why}"


def _labels(cells: pd.DataFrame) -> list[str]:
    """A short name for each row's variant: the sampler, then only what tells it from the sampler's other variants."""
    names: dict[tuple, str] = {}
    for sampler, rows in cells[VARIANT].drop_duplicates().groupby("sampler", dropna=False):
        several = [column for column in VARIANT[1:] if rows[column].nunique(dropna=False) > 1]
        knobs = {column: _differing(rows[column]) for column in several if column.endswith("_knobs")}
        for row in rows.itertuples(index=False):
            parts = [_cut(plain(sampler))]
            for column in several:
                value = getattr(row, column)
                parts.append(_knob_text(value, knobs[column]) if column in knobs else plain(value))
            names[tuple(map(str, row))] = " ".join(part for part in parts if part)
    return [names[tuple(map(str, row))] for row in cells[VARIANT].itertuples(index=False)]


def _read_knobs(text: object) -> dict[str, object]:
    try:
        knobs = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return knobs if isinstance(knobs, dict) else {}


def _differing(column: pd.Series) -> list[str]:
    knobs = [_read_knobs(text) for text in column]
    names = sorted({name for one in knobs for name in one})
    return [name for name in names if len({json.dumps(one.get(name)) for one in knobs}) > 1]


def _knob_text(text: object, names: Sequence[str]) -> str:
    knobs = _read_knobs(text)
    return " ".join(f"{name}={plain(knobs[name])}" for name in names if name in knobs)


def plain(value: object) -> str:
    """A value as a reader writes it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return _cut(str(value))


def _cut(text: str, longest: int = 60) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
