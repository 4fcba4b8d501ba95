r"""A table for LaTeX: booktabs, and no other package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusetune.bench.paper.digits import INFINITE, Written, written_column
from fusetune.bench.paper.latex_text import escaped_for_latex
from fusetune.bench.paper.paper_table import Figure, Mark, PaperTable

_MARKS: dict[Mark, str] = {
    "tie": r"$\sim$",
    "behind": r"$^{\dagger}$",
    "baseline": r"$^{*}$",
    "contended": r"$^{\ddagger}$",
}
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9:.-]")
_POWER = re.compile(r"(-?[\d.]+)e(-?\d+)")
# Characters in a row that fit a column of text of the class `article`, with two for each gap.
_FITS = 70
# A longer text is broken into lines.
_LONGEST = 28


@dataclass(frozen=True)
class _Column:
    """A column as LaTeX.

    Args:
        head: one or two lines.
        side: how it is aligned.
        cells: one a row.
        intervals: one a row, empty where there is none.
        wide: characters of the widest cell with its interval beside it, and the heading.
    """

    head: tuple[str, ...]
    side: str
    cells: tuple[str, ...]
    intervals: tuple[str, ...]
    wide: int


def as_latex(table: PaperTable) -> str:
    r"""Return a `table` environment that compiles with `\usepackage{booktabs}`.

    A table that is too wide for a page has its intervals below the numbers.

    Args:
        table: what to print. Columns for CSV alone are left out.

    Example:
        >>> from fusetune.bench.paper import Column
        >>> columns = (Column("optimizer", "optimizer"), Column("step_time_s", "step time", "s"))
        >>> table = PaperTable("tab:demo", "Two optimizers.", columns, (("adam_w", Figure(0.5, is_best=True)),))
        >>> print("\n".join(as_latex(table).splitlines()[7:15]))
          \begin{tabular}{lr}
            \toprule
             & step \\
            optimizer & time [ms] \\
            \midrule
            adam\_w & \textbf{500} \\
            \bottomrule
          \end{tabular}
    """
    return "\n".join(_lines(table.as_shown())) + "\n"


def _lines(table: PaperTable) -> Iterator[str]:
    columns = [_column(table, place) for place in table.shown]
    is_wide = sum(column.wide + 2 for column in columns) > _FITS
    yield r"% \usepackage{booktabs}"
    yield r"\begin{table}"
    yield r"  \centering"
    yield f"  \\caption{{{escaped_for_latex(table.caption)}}}"
    yield f"  \\label{{{_NOT_IN_LABELS.sub('-', table.label)}}}"
    yield r"  \par\smallskip"
    yield r"  \footnotesize\setlength{\tabcolsep}{3pt}" if is_wide else r"  \small"
    yield f"  \\begin{{tabular}}{{{''.join(column.side for column in columns)}}}"
    yield r"    \toprule"
    lines = max((len(column.head) for column in columns), default=1)
    for line in range(lines):
        yield _row([("",) * (lines - len(column.head)) + column.head for column in columns], line)
    yield r"    \midrule"
    for place in range(len(table.rows)):
        yield from _rows(columns, place, is_stacked=is_wide)
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    if table.notes:
        yield r"  \par\medskip"
        yield r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"
        for note in table.notes:
            yield f"    {escaped_for_latex(note)}\\par"
        yield r"  \end{minipage}"
    yield r"\end{table}"


def _rows(columns: Sequence[_Column], place: int, *, is_stacked: bool) -> Iterator[str]:
    """Yield a row, with its intervals beside the numbers or on a line below."""
    if is_stacked:
        yield _row([column.cells for column in columns], place)
        if any(column.intervals[place] for column in columns):
            yield _row([column.intervals for column in columns], place)
        return
    beside = [(f"{column.cells[place]} {column.intervals[place]}".rstrip(),) for column in columns]
    yield _row(beside, 0)


def _row(columns: Sequence[Sequence[str]], place: int) -> str:
    cells = [column[place] for column in columns]
    # After a line's end or a rule LaTeX takes a bracket or a star for an option.
    guard = "{}" if cells and cells[0].startswith(("[", "*")) else ""
    return f"    {guard}{' & '.join(cells)} \\\\"


def _column(table: PaperTable, place: int) -> _Column:
    column = table.columns[place]
    if column.unit is None:
        texts = [str(row[place]) for row in table.rows]
        longest = max(map(len, texts), default=0)
        head = _head(column.title)
        return _Column(
            tuple(map(escaped_for_latex, head)),
            "l" if longest <= _LONGEST else r"p{0.25\linewidth}",
            tuple(map(escaped_for_latex, texts)),
            ("",) * len(texts),
            max(min(longest, _LONGEST), *map(len, head)),
        )
    written = written_column(table, place)
    head = _head(written.heading)
    return _Column(
        tuple(map(escaped_for_latex, head)),
        "r",
        tuple(_value(figure, text) for figure, text in zip(table.figures(place), written.cells, strict=True)),
        tuple(_interval(text) for text in written.cells),
        max([len(text.value) + len(text.interval) for text in written.cells] + [len(line) for line in head]),
    )


def _head(title: str) -> tuple[str, ...]:
    """Break a heading into two lines of about the same length, where it has a space."""
    words = title.split(" ")
    if len(words) == 1:
        return (title,)
    breaks = [(" ".join(words[:place]), " ".join(words[place:])) for place in range(1, len(words))]
    return min(breaks, key=lambda lines: max(map(len, lines)))


def _value(figure: Figure, written: Written) -> str:
    value = _number(written.value)
    if figure.is_best:
        value = f"\\textbf{{{value}}}"
    before = "".join(_MARKS[mark] for mark in figure.marks if mark == "tie")
    after = "".join(_MARKS[mark] for mark in figure.marks if mark != "tie")
    return f"{before}{value}{after}"


def _interval(written: Written) -> str:
    return f"{{\\scriptsize {_number(written.interval)}}}" if written.interval else ""


def _number(text: str) -> str:
    """Write a number of ours: a minus is no hyphen, and an exponent is a power of ten."""
    power = _POWER.fullmatch(text)
    if power:
        return f"${power[1]} \\times 10^{{{power[2]}}}$"
    signed = re.sub(r"-(?=[\d∞])", "−", text)
    return escaped_for_latex(signed).replace(INFINITE, r"$\infty$")
