"""Hold one set of records against another: pass or fail, for a CI job.

    python reports/check.py BASELINE [CANDIDATE] [--policy records] [--json FILE] [--junit FILE] [--markdown FILE]
    python reports/check.py BASELINE CANDIDATE --where sampler=unipc,steps=10..20
    python reports/check.py BASELINE CANDIDATE --update

Exit codes: 0 pass, 1 regression, 2 unusable input, 3 inconclusive. Needs neither torch nor Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from rich.console import Console

from harness.errors import InputError, interruptible, one_line
from harness.store.records import Store
from harness.verdict import output
from harness.verdict.findings import Report, joined
from reports import where
from reports.gate import baseline as baselines
from reports.gate import pairs, policy, quality, tiers
from reports.gate.images import PairedImages


def check(baseline: Path, candidate: Path, rules: policy.Policy, condition: where.Where | None = None) -> Report:
    """Compare the records of two folders, or those cells that `condition` names. InputError where one is unusable."""
    before, after = pairs.read(baseline, "baseline"), pairs.read(candidate, "candidate")
    if condition:
        before, after = condition(before), condition.among(after)
    found = pairs.match(before, after)
    if found.cells["status_c"].isna().all():
        raise InputError(f"no cell of {baseline} was asked in {candidate}: is that the folder of the same sweep?")
    images = PairedImages(found, baseline, candidate, quality.image_columns(rules))
    findings = joined(
        [
            tiers.coverage(found, rules),
            tiers.comparable(found),
            tiers.deterministic(found, images, rules),
            quality.quality(found, images, rules),
        ]
    )
    return Report(findings, [*_notes(found), *found.doubled], len(found.cells))


def _notes(found: pairs.Pairs) -> list[str]:
    """What is not the same and does not make two cells incomparable."""
    notes = [f"{found.new} cells of the candidate are not in the baseline"] if found.new else []
    cells = found.both()
    for column in ("n_images", "hardware", "torch_version", "device", "model_fingerprint", "git_commit"):
        before, after = (cells[f"{column}_{side}"] for side in "bc")
        differ = (before != after) & ~(before.isna() & after.isna())
        if differ.any():
            one, two = before[differ].iloc[0], after[differ].iloc[0]
            said = "one or more pairs" if differ.sum() > 1 else "one pair"
            notes.append(f"{column} differs in {said} ({differ.sum()} of {len(cells)}): {_said(one)} and {_said(two)}")
    return notes


def _said(value: object) -> str:
    return "nothing" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)[:60]


def main(words: Sequence[str] | None = None) -> int:
    asked = _arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 180)
    try:
        rules, condition = policy.load(asked.policy), where.parse(asked.where)
        if asked.update:
            if condition:
                raise InputError("--update replaces the whole baseline, so it takes no --where")
            return _update(asked, rules, console)
        report = check(asked.baseline, asked.candidate, rules, condition)
        output.write(report, asked.json, asked.junit, asked.markdown)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    output.show(report, console)
    return report.exit_code


def _update(asked: argparse.Namespace, rules: policy.Policy, console: Console) -> int:
    """Say what changes, then write: what is committed can be reviewed."""
    if Store(asked.baseline).files("cells"):
        try:
            output.show(check(asked.baseline, asked.candidate, rules), console)
        except InputError as error:  # an empty or wholly different baseline is replaced all the same
            console.print(f"note: {one_line(error)}", markup=False, highlight=False)
    cells, size = baselines.update(asked.baseline, asked.candidate)
    text = f"{asked.baseline} now holds {cells} cells ({size / 1024:.0f} KiB): look at the change and commit it"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hold one set of records against another: pass or fail.")
    parser.add_argument("baseline", type=Path, help="folder of records that is known to be good")
    parser.add_argument("candidate", type=Path, nargs="?", default=Path("results"), help="default: results")
    parser.add_argument("--policy", default="records", help="a file of conf/check, or a path to a YAML")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE,…", help="only these cells")
    parser.add_argument("--json", type=Path, help="write all findings there")
    parser.add_argument("--junit", type=Path, help="write JUnit XML there")
    parser.add_argument("--markdown", type=Path, help="add Markdown there, as for a job summary")
    parser.add_argument("--update", action="store_true", help="replace BASELINE by CANDIDATE, saying what changes")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(interruptible(main))
