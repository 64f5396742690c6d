"""Tables as files: `--table out.csv|.tex|.md`. Foreign text stays text in each: no formula, no command, no markup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.errors import InputError, one_line
from harness.verdict.output import markdown

# What a spreadsheet reads as the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "-": "{-}",
    "±": r"$\pm$", "×": r"$\times$", "–": "--", "…": r"\dots{}", "∞": r"$\infty$", "→": r"$\to$", "≥": r"$\geq$",
}  # fmt: skip
ENDINGS = (".csv", ".tex", ".md")


def check(path: Path) -> Path:
    """The path, where its ending says a format; InputError otherwise. Before anything is computed."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--table {path.name[:60]}: the ending says the format; valid: {', '.join(ENDINGS)}")
    return path


def write(path: Path, texts: dict[str, list[str]], numbers: pd.DataFrame, notes: Sequence[str] = ()) -> Path:
    """`numbers` as CSV, or the shown `texts` (heading → a text a row) as LaTeX or Markdown with `notes` below."""
    kind = check(path).suffix.lower()
    text = as_csv(numbers) if kind == ".csv" else (as_latex if kind == ".tex" else as_markdown)(texts, notes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; give another --table FILE") from error
    return path


def as_csv(numbers: pd.DataFrame) -> str:
    """Numbers in full; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    return numbers.map(_cell).to_csv(index=False, lineterminator="\r\n")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_latex(texts: dict[str, list[str]], notes: Sequence[str] = ()) -> str:
    """A tabular with booktabs' rules; letters that LaTeX would execute are spelt."""
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{'l' * len(texts)}}}", r"\toprule"]
    lines.append(" & ".join(latex(heading) for heading in texts) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(latex(text) for text in row) + r" \\" for row in zip(*texts.values(), strict=True)]
    lines += [r"\bottomrule", r"\end{tabular}", *(latex(note) + r"\par" for note in notes)]
    return "\n".join(lines) + "\n"


def latex(text: object) -> str:
    return "".join(LATEX.get(letter, letter) for letter in one_line(text))


def as_markdown(texts: dict[str, list[str]], notes: Sequence[str] = ()) -> str:
    lines = ["| " + " | ".join(map(markdown, texts)) + " |", "|" + " --- |" * len(texts)]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in zip(*texts.values(), strict=True)]
    return "\n".join([*lines, "", *(f"* {markdown(note)}" for note in notes)]).rstrip() + "\n"
