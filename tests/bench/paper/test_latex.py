r"""LaTeX: what is escaped prints as it is, by a real pdfLaTeX where there is one, and by a tokenizer of TeX's rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fusetune.bench.paper import Column, Figure, Mark, PaperTable, as_latex, escaped_for_latex

HOSTILE = [
    "\\",
    "{",
    "}",
    "$x$",
    "&",
    "#1",
    "^",
    "_",
    "~",
    "% a comment",
    "<",
    ">",
    "|",
    '"',
    "'",
    "`",
    "?`",
    "--memory",
    "a---b",
    "''",
    ",,",
    "[x]",
    "*",
    "\\input{/etc/passwd}",
    "\\end{tabular}",
    "^^5cinput",
    "}{",
    "\\\\",
    "∞",
    "µ and μ",
    "é ñ ü Å ß ł ő ç ı î",
    "Ωλ",
    "中文 🙂",
    "a\nb\tc\x00\x1b[31m",
    "\u202e right to left",
    "e\u0301",
    "\ud800",
    "“quoted” – and — so…",
    "≤ ≥ ± × · → °",
    "",
    " ",
]
# Single characters that TeX does not print as they are.
SPECIAL = set("\\{}$&#^_~%")


def is_inert(latex: str) -> bool:
    """Whether braces match and no character with a meaning of its own is left, commands of ours apart."""
    known = (
        r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|dag|ddag|S|dots|ss|ae|AE|oe|OE"
        r"|o|O|aa|AA|l|L|i)\{\}"
        r"|\\[{}$&#_%]|\\texttt\{(?:\\char34|U\+[0-9A-F]{4,6})\}|\\[`'^~=.\"urvHc]\{(?:\\?[A-Za-z])?\}"
        r"|\$\\[a-zA-Z]+\$|\$-\$|\$o\$|\$\^\{\\circ\}\$|\{\}|~"
    )
    rest = re.sub(known, "", latex)
    return rest.isascii() and rest.isprintable() and not set(rest) & SPECIAL


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_others_has_a_meaning(text: str) -> None:
    assert is_inert(escaped_for_latex(text)), escaped_for_latex(text)


def test_the_check_finds_what_is_not_escaped() -> None:
    assert not any(map(is_inert, ["a_b", "50%", "{", "\\input{x}", "é", "a & b", "$x$"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50% #1", r"a\_b \& 50\% \#1"),
        ("{x}", r"\{x\}"),
        ("--memory", r"-{}-memory"),
        ("1e-05", "1e-05"),
        ("∞", r"$\infty$"),
        ("é", r"\'{e}"),
        ("î", r"\^{\i}"),
        ("ç", r"\c{c}"),
        ("中", r"\texttt{U+4E2D}"),
        ("🙂", r"\texttt{U+1F642}"),
        ("a\nb", r"a\textbackslash{}nb"),
    ],
)
def test_what_is_written(text: str, expected: str) -> None:
    assert escaped_for_latex(text) == expected


def hostile_table(*, wide: bool) -> PaperTable:
    """Every hostile text as a title, in a cell, in the caption and in the notes."""
    numbers = [
        Column(f"n{place}", "time to target", "s", ("min", "max")) for place in range(6 if wide else 1)
    ]
    rows: tuple[tuple[str | Figure, ...], ...] = tuple(
        (text, *(Figure(1.5, -1.0, 2.0, 3, ("tie", "baseline", "contended"), True) for _ in numbers))
        for text in HOSTILE
    )
    every = " ".join(HOSTILE)
    return PaperTable(every, every, (Column("t", "[t_x]"), *numbers), rows, (every, "*", "[a]"))


def test_a_table_holds_its_marks_bold_and_intervals() -> None:
    columns = (
        Column("name", "name"),
        Column("x", "time", "s", ("min", "max")),
        Column("p", "p", "", is_data=True),
    )
    rows = (
        ("a", Figure(2.0, 1.0, 3.0, 5, is_best=True), Figure(None)),
        ("b", Figure(5.0, 4.0, 6.0, 5, ("tie",)), Figure(0.5)),
        ("c", Figure(-5.0, marks=("behind", "baseline")), Figure(0.5)),
        ("d", Figure(None), Figure(None)),
    )
    text = as_latex(PaperTable("tab:a_b", "A.", columns, rows, ("Note.",)))
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    assert [line.strip() for line in body.strip().splitlines()] == [
        r"a & \textbf{2.0} {\scriptsize [1.0, 3.0]} \\",
        r"b & $\sim$5.0 {\scriptsize [4.0, 6.0]} \\",
        r"c & $-$5.00$^{\dagger}$$^{*}$ \\",
        r"d & --{} \\",
    ]
    assert r"\label{tab:a-b}" in text
    assert "\\begin{tabular}{lr}" in text
    assert "    Note.\\par\n" in text


def test_a_wide_table_has_its_intervals_below() -> None:
    body = as_latex(hostile_table(wide=True)).partition("\\midrule\n")[2].splitlines()
    assert body[1].count("scriptsize [$-$1.0, 2.0]") == 6
    assert body[0].count("&") == body[1].count("&") == 6


def test_rows_that_begin_like_an_option_are_none() -> None:
    rows = [line.strip() for line in as_latex(hostile_table(wide=False)).splitlines() if line.endswith(r"\\")]
    assert sum(row.startswith(("{}[", "{}*")) for row in rows) == 3  # the heading and two cells
    assert not any(row.startswith(("[", "*")) for row in rows)


def test_every_row_has_the_same_number_of_cells() -> None:
    text = as_latex(hostile_table(wide=False))
    rows = text.partition("\\toprule")[2].partition("\\bottomrule")[0].splitlines()
    counts = {len(re.findall(r"(?<!\\)&", row)) for row in rows if row.endswith("\\\\")}
    assert counts == {1}


def ranking(factors: dict[str, tuple[str, str]], *, big: float = 1.0) -> PaperTable:
    """A table as of `bench run` with a target, two configurations of so many factors."""
    metrics = ("time to target", "steps to target", "step time", "best val acc", "peak memory")
    units = ("s", "count", "s", "fraction", "bytes")
    scales = (1.2, 155 * big, 0.0076, 0.94, 340_000 * big)
    columns = (
        Column("rank", "rank", ""),
        *(Column(name, name) for name in factors),
        Column("n", "n", ""),
        Column("reached", "reached", ""),
        *(Column(title, title, unit, ("min", "max")) for title, unit in zip(metrics, units, strict=True)),
    )
    marks: tuple[tuple[Mark, ...], ...] = ((), ("tie", "baseline"))
    rows: tuple[tuple[str | Figure, ...], ...] = tuple(
        (
            Figure(place + 1, marks=marks[place]),
            *(levels[place] for levels in factors.values()),
            Figure(5),
            Figure(5 - place),
            *(Figure(value, 0.98 * value, 1.02 * value, 5, ("contended",)) for value in scales),
        )
        for place in range(2)
    )
    return PaperTable("tab:wide", "Ranking.", columns, rows)


NAMES = {
    "optimizer": ("momentum", "adam"),
    "implementation": ("torch", "fused"),
    "batch size": ("32", "128"),
    "base lr": ("0.01", "0.0003"),
}
THREE = dict(list(NAMES.items())[:3])


def test_what_a_wide_table_says_in_every_row_is_said_once() -> None:
    roomy = as_latex(ranking({"lr": ("0.1", "0.2")}))
    assert r"\caption{Ranking.}" in roomy
    tight = as_latex(ranking({"batch size": ("32", "64"), "activation": ("relu", "relu")}))
    assert r"\caption{Ranking. In every row: activation relu, n = 5.}" in tight
    assert "relu &" not in tight
    assert "reached" in tight  # 5 and 4


def test_a_table_that_cannot_fit_says_so() -> None:
    assert "% about" not in as_latex(ranking(THREE))
    lifted = as_latex(ranking({**THREE, "activation": ("relu", "gelu")}))
    assert "{optimizer adam, implementation fused, batch size 128, activation gelu}" in lifted
    assert "% about" not in lifted
    numbers = tuple(Column(f"n{place}", "time to target", "s", ("min", "max")) for place in range(20))
    many = PaperTable("tab:many", "Many.", numbers, ((Figure(1.5, 1.2, 1.8),) * 20,))
    assert re.search(r"^% about \d{3}pt wide, and a page of article has 345pt", as_latex(many), re.MULTILINE)


def said_by_latex(tables: str, folder: Path) -> str:
    """Compile tables in an article, and return what pdflatex prints."""
    source = (
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{tables}\\end{{document}}\n"
    )
    (folder / "table.tex").write_text(source, encoding="ascii")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_tables_of_up_to_four_factors_fit_a_page_of_article(tmp_path: Path) -> None:
    tables = [
        ranking(dict(list(NAMES.items())[:count]), big=big) for count in range(5) for big in (1.0, 40.0)
    ]
    body = "\n".join(as_latex(table) for table in tables)
    assert not re.findall(r"^Overfull .*", said_by_latex(body, tmp_path), flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("wide", [False, True])
def test_a_real_latex_compiles_it(wide: bool, tmp_path: Path) -> None:
    said = said_by_latex(as_latex(hostile_table(wide=wide)), tmp_path)
    assert not re.findall(r"^! .*|Missing character.*", said, flags=re.MULTILINE)
