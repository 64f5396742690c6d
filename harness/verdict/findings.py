"""What a check found: one row a question, the same columns whatever tier asked it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

PASS, REGRESSION, IMPROVEMENT = "pass", "regression", "improvement"
INCONCLUSIVE, INCOMPARABLE, NOTE = "inconclusive", "incomparable", "note"
VERDICTS = (REGRESSION, INCONCLUSIVE, INCOMPARABLE, IMPROVEMENT, NOTE, PASS)  # as they are shown
NUMBERS = ["baseline", "candidate", "difference", "low", "high", "effect", "superiority", "p", "p_adjusted", "n"]
COLUMNS = ["tier", "check", "label", "baseline_id", "candidate_id", "verdict", *NUMBERS, "message"]
OUTCOMES = {0: "pass", 1: "regression", 2: "unusable input", 3: "inconclusive"}


@dataclass(frozen=True)
class Report:
    """All findings (COLUMNS) and what is to be said of the whole."""

    findings: pd.DataFrame
    notes: list[str]
    cells: int  # how many cells the baseline has
    title: str = "Records against the baseline"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 3 where something could not be decided or compared."""
        verdicts = set(self.findings["verdict"].unique())
        if REGRESSION in verdicts:
            return 1
        return 3 if verdicts & {INCONCLUSIVE, INCOMPARABLE} else 0

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.exit_code]

    def counts(self) -> pd.DataFrame:
        """How many findings of each verdict every tier has."""
        table = pd.crosstab(self.findings["tier"], self.findings["verdict"])
        return table[[verdict for verdict in VERDICTS if verdict in table]]

    def worth_saying(self) -> pd.DataFrame:
        """All that did not simply pass, the gravest first."""
        found = self.findings[self.findings["verdict"] != PASS]
        order = found["verdict"].map(VERDICTS.index)
        return found.assign(order=order).sort_values("order", kind="stable").drop(columns="order")


def made(tier: str, check: str, cells: pd.DataFrame, verdict: object, **columns: object) -> pd.DataFrame:
    """Findings of one check about `cells` (rows of Pairs); `columns` are scalars or one value a cell."""
    frame = pd.DataFrame(
        {
            "tier": tier,
            "check": check,
            "label": cells["label"].to_numpy(),
            "baseline_id": cells["cell_id_b"].to_numpy(),
            "candidate_id": cells["cell_id_c"].to_numpy(),
            "verdict": verdict,
            **dict.fromkeys(NUMBERS, np.nan),
            "message": "",
        }
    )
    # Arrays, not series: rows are matched by place, whatever index they come with.
    columns = {name: value.to_numpy() if isinstance(value, pd.Series) else value for name, value in columns.items()}
    return frame.assign(**columns)[COLUMNS].astype(dict.fromkeys(NUMBERS, float))


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
