r"""A table for LaTeX: booktabs, and no other package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
# More characters in a row do not fit a page at the usual size.
_NARROW = 80


def as_latex(table: PaperTable) -> str:
    r"""Return a `table` environment that compiles with `\usepackage{booktabs}`.

    Args:
        table: what to print. Columns for CSV alone are left out.

    Example:
        >>> from fusetune.bench.paper import Column
        >>> columns = (Column("optimizer", "optimizer"), Column("step_time_s", "step time", "s"))
        >>> table = PaperTable("tab:demo", "Two optimizers.", columns, (("adam_w", Figure(0.5, is_best=True)),))
        >>> print("\n".join(as_latex(table).splitlines()[6:13]))
          \begin{tabular}{lr}
            \toprule
            optimizer & step time [ms] \\
            \midrule
            adam\_w & \textbf{500} \\
            \bottomrule
          \end{tabular}
    """
    return "\n".join(_lines(table)) + "\n"


def _lines(table: PaperTable) -> Iterator[str]:
    yield r"% \usepackage{booktabs}"
    yield r"\begin{table}"
    yield r"  \centering"
    yield f"  \\caption{{{escaped_for_latex(table.caption)}}}"
    yield f"  \\label{{{_NOT_IN_LABELS.sub('-', table.label)}}}"
    columns = [_column(table, place) for place in table.shown]
    rows = list(zip(*(cells for _, cells, _ in columns), strict=True))
    widest = max((sum(map(len, row)) for row in rows), default=0)
    yield r"  \small" if widest <= _NARROW else r"  \footnotesize\setlength{\tabcolsep}{3pt}"
    yield f"  \\begin{{tabular}}{{{''.join(side for *_, side in columns)}}}"
    yield r"    \toprule"
    yield _row([heading for heading, *_ in columns])
    yield r"    \midrule"
    yield from map(_row, rows)
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    if table.notes:
        yield r"  \par\medskip"
        yield r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"
        for note in table.notes:
            yield f"    {escaped_for_latex(note)}\\par"
        yield r"  \end{minipage}"
    yield r"\end{table}"


def _row(cells: Sequence[str]) -> str:
    # After a line's end or a rule LaTeX takes a bracket or a star for an option.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"    {guard}{' & '.join(cells)} \\\\"


def _column(table: PaperTable, place: int) -> tuple[str, list[str], str]:
    """Return a column's heading, its cells, and the side that it is aligned to."""
    column = table.columns[place]
    if column.unit is None:
        texts = [str(row[place]) for row in table.rows]
        return escaped_for_latex(column.title), list(map(escaped_for_latex, texts)), "l"
    written = written_column(table, place)
    cells = [_cell(figure, text) for figure, text in zip(table.figures(place), written.cells, strict=True)]
    return escaped_for_latex(written.heading), cells, "r"


def _cell(figure: Figure, written: Written) -> str:
    value = _number(written.value)
    if figure.is_best:
        value = f"\\textbf{{{value}}}"
    before = "".join(_MARKS[mark] for mark in figure.marks if mark == "tie")
    after = "".join(_MARKS[mark] for mark in figure.marks if mark != "tie")
    interval = f" {{\\scriptsize {_number(written.interval)}}}" if written.interval else ""
    return f"{before}{value}{after}{interval}"


def _number(text: str) -> str:
    """Write a number of ours: a minus is no hyphen."""
    signed = re.sub(r"-(?=[\d∞])", "−", text)
    return escaped_for_latex(signed).replace(INFINITE, r"$\infty$")
