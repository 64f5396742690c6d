"""Records as a report sees them, and the one question every figure asks: which cells may stand side by side?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness import axes as table
from harness.store.records import Store
from harness.store.schema import with_defaults

# What makes two lines two lines: a sampler with its knobs, whose code stepped, its kind of noise, and its schedule.
VARIANT = table.columns(lambda axis: axis.variant)
# Everything else that was asked and changes quality. Cells of one figure agree on all of it but the figure's axes.
QUALITY_AXES = table.columns(lambda axis: axis.changes in table.QUALITY and not axis.variant)
FID_AXES = ["fid_extractor", "fid_resizer", "clip_definition"]
COST_AXES = [*table.columns(lambda axis: axis.changes in (table.ROUNDING, table.COST)), "hardware", "peak_memory_kind"]
GUIDANCE_ONLY = ["guidance_rescale", "guidance_knobs", "negative_prompt"]  # without effect where cfg is 1
ALWAYS_SAID = [part.name for part in table.PARTS.values() if part.common]
LEARNED = "samplers/plans/learned/"  # where the plans lie that ship with the project, as cells name their files
NOTHING = "–"
MOST_LONE = 4  # samplers left out that are named
LONGEST_SLUG = 80  # letters: a part of a file's name


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
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in words)[:LONGEST_SLUG]

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
        # Where cfg varies, cells at cfg 1 join every line that they agree with in the axes that matter at cfg 1.
        off = (measured["cfg"] == 1) & ("cfg" in (vary, *free))
        keys_off = _keys(measured, [axis for axis in held if axis not in GUIDANCE_ONLY])
        off = off.to_numpy()
        labels, values = (pd.factorize(measured[column])[0] for column in ("label", vary))  # -1: null
        away = _off_centre(measured, held)
        # Thousands of cells may fall into as many sets of equal size: numbers here, not frames.
        winner, best_score = None, (0, 0, -np.inf)
        members = pd.Series(range(len(keys))).groupby(keys).indices
        for key, count in _by_size(keys):
            if count + off.sum() < best_score[0]:
                break  # neither this set nor a smaller one can be the largest
            rows = members[key]
            if off.any():
                rows = np.union1d(rows, np.flatnonzero(off & (keys_off == keys_off[rows[0]])))
            if lines:
                rows = rows[_several(labels[rows], values[rows])]
            size = (len(rows), len(np.unique(values[rows][values[rows] >= 0])))
            if size[0] and size >= best_score[:2]:
                score = (*size, -float(away[rows[0]]))
                if score > best_score:
                    winner, best_score = rows, score
        if winner is None:
            return None
        best = measured.iloc[winner]
        return Selection(best, _held(measured, best, held), _left_out(measured, best, held, lines))


def load(results: Path, where: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> pd.DataFrame:
    """All cell rows, or those that `where` lets pass, each with the `label` of its variant."""
    cells = with_defaults(Store(results).cells())
    if where is not None and len(cells):
        cells = where(cells)
    return cells.assign(label=_labels(cells))


def groups(cells: pd.DataFrame) -> list[Group]:
    good = cells[cells["status"] == "ok"]
    found = [
        Group(plain(task), plain(model), rows)
        for (task, model), rows in good.groupby(["task", "model"], dropna=False, sort=False)
    ]
    return sorted(found, key=lambda group: -len(group.cells))


def _keys(cells: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """One number a row: equal where all `columns` are, nulls included; in the order of their first rows."""
    codes = np.stack([pd.factorize(cells[column])[0] for column in columns], axis=1)
    return pd.factorize(pd.Series([row.tobytes() for row in codes], dtype=object))[0]


def _by_size(keys: np.ndarray) -> list[tuple[int, int]]:
    """Each key and how often it occurs, the most frequent first."""
    return [(int(key), int(count)) for key, count in pd.Series(keys).value_counts().items()]


def _several(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which rows belong to a label that has two or more values."""
    pairs = pd.DataFrame({"label": labels, "value": values}).drop_duplicates()
    counts = np.bincount(pairs["label"][pairs["value"] >= 0], minlength=labels.max(initial=-1) + 1)
    return counts[labels] >= 2


def _off_centre(measured: pd.DataFrame, held: Sequence[str]) -> np.ndarray:
    """A row: 0 where its held steps, cfg and strength are each the median of the values swept, more away from it."""
    distance = np.zeros(len(measured))
    for axis in ("steps", "cfg", "strength"):
        swept = np.sort(measured[axis].dropna().unique())
        if axis in held and len(swept) > 1:
            place = np.searchsorted(swept, measured[axis].to_numpy()) / (len(swept) - 1)
            distance += np.where(measured[axis].notna(), abs(place - 0.5), 0.0)
    return distance


def _held(measured: pd.DataFrame, chosen: pd.DataFrame, held: Sequence[str]) -> str:
    """What the chosen cells agree on: the axes a reader always asks about, and those that vary elsewhere."""
    said = [plain(chosen["label"].iloc[0])] if "sampler" in held else []
    spacing = plain(chosen["schedule"].iloc[0])
    if chosen["schedule"].nunique(dropna=False) == 1 and not any(spacing in name.split() for name in chosen["label"]):
        said.append(f"schedule {spacing}")
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
    lone = [str(label) for label in others["label"].unique() if label not in set(chosen["label"])]
    who = f" ({', '.join(lone)})" if 0 < len(lone) <= MOST_LONE else ""
    alone = f"alone on their line{who}"
    why = f"other {', '.join(reasons)}{f' or {alone}' if lines else ''}" if reasons else alone
    return f"{len(others)} of {len(measured)} cells not shown: {why}"


def _labels(cells: pd.DataFrame) -> list[str]:
    """A short name for each row's variant: the sampler, then only what tells it from the others.

    What samplers have in common (whose code stepped, the schedule) is said of all where it differs between any two:
    euler on linspace beside dpmpp on karras would pass for the samplers' doing. Knobs are told from those of the same
    sampler, or of the same schedule.
    """
    variants = cells[VARIANT].drop_duplicates()
    common = [column for column in ("implementation", "schedule") if variants[column].nunique(dropna=False) > 1]
    spaced = {name: _differing(rows["schedule_knobs"]) for name, rows in variants.groupby("schedule", dropna=False)}
    names: dict[tuple, str] = {}
    for sampler, rows in variants.groupby("sampler", dropna=False):
        own = _differing(rows["sampler_knobs"])
        several = [*common, *(["noise"] if rows["noise"].nunique(dropna=False) > 1 else [])]
        for row in rows.to_dict("records"):
            said = {
                **{column: plain(row[column]) for column in several},
                "sampler_knobs": _knob_text(row["sampler_knobs"], own),
                "schedule_knobs": _knob_text(row["schedule_knobs"], spaced.get(row["schedule"], [])),
            }
            parts = [_cut(plain(sampler)), *(said.get(column, "") for column in VARIANT[1:])]
            names[tuple(map(str, row.values()))] = " ".join(part for part in parts if part)
    return [names[tuple(map(str, row))] for row in cells[VARIANT].itertuples(index=False)]


def _read_knobs(text: object) -> dict[str, object]:
    try:
        knobs = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    if not isinstance(knobs, dict):
        return {}
    if str(knobs.get("file")).startswith(LEARNED):  # which it is follows from model, guidance scale and calls
        return {name: value for name, value in knobs.items() if name not in ("file", "sha256")}
    return knobs


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
