"""What the check says: a table for people, JSON, JUnit XML, Markdown. Foreign text is escaped in each."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import InputError, one_line
from harness.verdict.findings import IMPROVEMENT, INCOMPARABLE, INCONCLUSIVE, NUMBERS, REGRESSION, Report

MOST_ROWS = 40
MOST_IN_JSON = 20_000
STYLES = {REGRESSION: "bold red", INCONCLUSIVE: "yellow", INCOMPARABLE: "yellow", IMPROVEMENT: "green"}
NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def show(report: Report, console: Console) -> None:
    """A table of what did not simply pass, then the counts and the outcome in one line."""
    said = report.worth_saying()
    if len(said):
        table = Table(header_style="bold", pad_edge=False)
        for name in ("verdict", "tier", "check", "cell", "baseline", "candidate", "difference [95 %]", "p", "n", "why"):
            right = name in ("baseline", "candidate", "p", "n")
            fold = name in ("cell", "why")
            table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=not fold)
        for row in said.head(MOST_ROWS).itertuples():
            cells = [row.verdict, row.tier, row.check, one_line(row.label), *_numbers(row), one_line(row.message)]
            table.add_row(*map(Text, cells), style=STYLES.get(row.verdict))
        console.print(table)
        if len(said) > MOST_ROWS:
            console.print(f"… and {len(said) - MOST_ROWS} more (--json has all)", highlight=False)
    for note in report.notes:
        console.print(f"note: {one_line(note)}", markup=False, highlight=False, soft_wrap=True)
    for tier, counts in report.counts().iterrows():
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        console.print(f"{tier}: {words}", markup=False, highlight=False)
    console.print(
        f"{report.title}: {report.outcome} ({report.cells} cells)", style="bold", markup=False, highlight=False
    )


def _numbers(row: Any) -> list[str]:
    """baseline, candidate, difference with its interval, p, n as text."""
    difference = number(row.difference)
    if not math.isnan(row.low) and (row.low, row.high) != (0, 0):
        difference += f" [{number(row.low)}, {number(row.high)}]"
    n = "" if math.isnan(row.n) else f"{row.n:.0f}"
    return [number(row.baseline), number(row.candidate), difference, number(row.p_adjusted), n]


def number(value: float) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def write(report: Report, json_file: Path | None, junit: Path | None, markdown_file: Path | None) -> None:
    """The files that were asked for. Markdown is added to what a job summary holds already."""
    for path, make in ((json_file, as_json), (junit, as_junit), (markdown_file, as_markdown)):
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a" if make is as_markdown else "w", encoding="utf-8") as file:
                    file.write(make(report))
            except OSError as error:
                raise InputError(f"cannot write {path}: {error.strerror}") from error


def as_json(report: Report) -> str:
    """Everything that did not pass; what passed too where that stays readable."""
    rows = report.findings if len(report.findings) <= MOST_IN_JSON else report.worth_saying()
    return json.dumps(
        {
            "outcome": report.outcome,
            "exit_code": report.exit_code,
            "cells": report.cells,
            "notes": report.notes,
            "counts": {tier: counts.to_dict() for tier, counts in report.counts().iterrows()},
            "findings": [_plain_row(row) for row in rows.to_dict("records")],
        },
        indent=1,
        allow_nan=False,
    )


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows neither NaN nor infinity: null, and text."""
    out = dict(row)
    for name in NUMBERS:
        value = row[name]
        out[name] = None if pd.isna(value) else value if math.isfinite(value) else str(value)
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in out.items()}


def as_junit(report: Report) -> str:
    """A test case for every cell and tier; notes and improvements are passes, what cannot be told is skipped."""
    rows = report.findings
    failure, skipped = (
        _sentences(rows[rows["verdict"].isin(v)]) for v in ((REGRESSION,), (INCONCLUSIVE, INCOMPARABLE))
    )
    suite = ElementTree.Element("testsuite", name=report.title)
    total = {"tests": 0, "failures": 0, "skipped": 0}
    for key in dict.fromkeys(zip(rows["tier"], rows["label"], strict=True)):
        case = ElementTree.SubElement(suite, "testcase", classname=f"check.{key[0]}", name=_xml(key[1]))
        total["tests"] += 1
        if key in failure:
            total["failures"] += 1
            ElementTree.SubElement(case, "failure", message=_xml(failure[key]))
        elif key in skipped:
            total["skipped"] += 1
            ElementTree.SubElement(case, "skipped", message=_xml(skipped[key]))
    suite.attrib.update({name: str(count) for name, count in total.items()})
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")


def _sentences(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What was found of each tier and cell."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows.itertuples():
        before, after, change = _numbers(row)[:3]
        text = f"{row.check} {' → '.join(filter(None, (before, after)))} {f'({change})' if change else ''}".strip()
        said.setdefault((row.tier, row.label), []).append(f"{text}: {row.message}" if row.message else text)
    return {key: "; ".join(texts) for key, texts in said.items()}


def _xml(text: object) -> str:
    return NOT_IN_XML.sub("?", str(text))


def as_markdown(report: Report) -> str:
    """For a job summary: outcome, counts, and a table of what did not simply pass."""
    mark = {0: "✅", 1: "❌", 3: "❔"}[report.exit_code]
    lines = [f"## {mark} {report.title}: {report.outcome}", ""]
    counts = report.counts()
    lines += ["| tier | " + " | ".join(counts.columns) + " |", "| --- |" + " ---: |" * len(counts.columns)]
    lines += [f"| {tier} | " + " | ".join(map(str, row)) + " |" for tier, row in counts.iterrows()]
    said = report.worth_saying()
    if len(said):
        lines += ["", "| verdict | check | cell | baseline | candidate | difference [95 %] | p | n | why |"]
        lines += ["| --- | --- | --- | ---: | ---: | --- | ---: | ---: | --- |"]
        for row in said.head(MOST_ROWS).itertuples():
            cells = [row.verdict, row.check, row.label, *_numbers(row), row.message]
            lines.append("| " + " | ".join(map(markdown, cells)) + " |")
        if len(said) > MOST_ROWS:
            lines += ["", f"… and {len(said) - MOST_ROWS} more."]
    lines += ["", *(f"* {markdown(note)}" for note in report.notes)]
    return "\n".join(lines).rstrip() + "\n"


def markdown(text: object) -> str:
    """Text that stays text in a Markdown table: no markup, no link, no cell border, no HTML."""
    escaped = html.escape(one_line(text), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", escaped) if re.search(r"[\\`*_{}\[\]#!|~]", escaped) else escaped
