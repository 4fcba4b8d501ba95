r"""A table for LaTeX: booktabs, and no other package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusetune.bench.paper.digits import INFINITE, Written, written_column
from fusetune.bench.paper.latex_text import escaped_for_latex
from fusetune.bench.paper.latex_width import TEXT_WIDTH, Size, broken, width_of
from fusetune.bench.paper.paper_table import Figure, Mark, PaperTable

_MARKS: dict[Mark, str] = {
    "tie": r"$\sim$",
    "behind": r"$^{\dagger}$",
    "baseline": r"$^{*}$",
    "contended": r"$^{\ddagger}$",
}
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9:.-]")
_POWER = re.compile(r"(-?[\d.]+)e(-?\d+)")
# A longer text is broken into lines.
_LONGEST = 28
_BROKEN_WIDTH = 0.25
_USUAL_GAP = 6.0
# Widths are known within so many points.
_TOLERANCE = 5.0
# A sign above the line, and what bold letters take in addition.
_MARK_POINTS, _BOLD = 4.6, 1.15


@dataclass(frozen=True)
class _Form:
    """A way to set a table, from a roomy one to the narrowest.

    Args:
        size: of the font.
        gap: half the space between columns, in points. None: LaTeX's own, with as much at both edges.
        is_stacked: whether intervals are below the numbers.
        lines: most lines of a heading.
        spares: whether a column that says the same in every row becomes a sentence of the caption.
        lifts: whether the texts of a row stand on a line above its numbers.
    """

    size: Size
    gap: float | None = None
    is_stacked: bool = True
    lines: int = 2
    spares: bool = False
    lifts: bool = False

    @property
    def setting(self) -> str:
        """The commands before the table."""
        return f"\\{self.size}" + (f"\\setlength{{\\tabcolsep}}{{{self.gap:g}pt}}" if self.gap else "")


_FORMS = (
    _Form("small", is_stacked=False),
    _Form("footnotesize", 3),
    _Form("footnotesize", 3, lines=3),
    _Form("footnotesize", 3, lines=3, spares=True),
    _Form("scriptsize", 2.5, lines=3, spares=True),
    _Form("footnotesize", 3, lines=3, spares=True, lifts=True),
    _Form("scriptsize", 2.5, lines=3, spares=True, lifts=True),
)


@dataclass(frozen=True)
class _Column:
    """A column as LaTeX.

    Args:
        head: the lines of its heading.
        side: how it is aligned.
        cells: one a row.
        intervals: one a row, empty where there is none.
        points: its width without the gaps.
    """

    head: tuple[str, ...]
    side: str
    cells: tuple[str, ...]
    intervals: tuple[str, ...]
    points: float


def as_latex(table: PaperTable) -> str:
    r"""Return a `table` environment that compiles with `\usepackage{booktabs}`.

    A table that is wider than a page of the class `article` has its intervals below the numbers. Where that is not
    enough, headings have three lines, columns that say the same in every row move into the caption, the font is
    smaller, and texts stand on a line above their numbers. One that is too wide even so says it in a comment.

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


@dataclass(frozen=True)
class _Layout:
    """A table in one form.

    Args:
        form: which.
        columns: from left to right.
        said: what the caption says in addition.
        labels: the line above each row's numbers. Empty: there are none.
        points: its width.
    """

    form: _Form
    columns: tuple[_Column, ...]
    said: str
    labels: tuple[str, ...]
    points: float


def _lines(table: PaperTable) -> Iterator[str]:
    layouts = list(_layouts(table))
    fitting = (each for each in layouts if each.points <= TEXT_WIDTH - _TOLERANCE)
    layout = next(fitting, layouts[-1])
    form, columns = layout.form, layout.columns
    yield r"% \usepackage{booktabs}"
    if layout.points > TEXT_WIDTH:
        yield f"% about {layout.points:.0f}pt wide, and a page of article has {TEXT_WIDTH:.0f}pt: take some columns out"
    yield r"\begin{table}"
    yield r"  \centering"
    yield f"  \\caption{{{escaped_for_latex(' '.join(filter(None, (table.caption, layout.said))))}}}"
    yield f"  \\label{{{_NOT_IN_LABELS.sub('-', table.label)}}}"
    yield r"  \par\smallskip"
    yield f"  {form.setting}"
    edge = "" if form.gap is None else "@{}"
    yield f"  \\begin{{tabular}}{{{edge}{''.join(column.side for column in columns)}{edge}}}"
    yield r"    \toprule"
    lines = max((len(column.head) for column in columns), default=1)
    for line in range(lines):
        yield _row([("",) * (lines - len(column.head)) + column.head for column in columns], line)
    yield r"    \midrule"
    for place in range(len(table.rows)):
        if layout.labels:
            if place:
                yield r"    \addlinespace"
            side = "l" if width_of(layout.labels[place], form.size) <= TEXT_WIDTH else r"p{\linewidth}"
            label = escaped_for_latex(layout.labels[place])
            yield f"    \\multicolumn{{{len(columns)}}}{{@{{}}{side}@{{}}}}{{{label}}} \\\\"
        yield from _rows(columns, place, is_stacked=form.is_stacked)
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    if table.notes:
        yield r"  \par\medskip"
        yield r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"
        for note in table.notes:
            yield f"    {escaped_for_latex(note)}\\par"
        yield r"  \end{minipage}"
    yield r"\end{table}"


def _layouts(table: PaperTable) -> Iterator[_Layout]:
    """Yield the table in each form."""
    for form in _FORMS:
        same = {place: text for place in table.shown if form.spares and (text := _said_once(table, place))}
        left = [place for place in table.shown if place not in same]
        lifted = [place for place in left if form.lifts and table.columns[place].unit is None]
        labels = [
            ", ".join(f"{table.columns[place].title} {row[place]}" for place in lifted if row[place])
            for row in table.rows
        ]
        columns = tuple(_column(table, place, form) for place in left if place not in lifted)
        said = f"In every row: {', '.join(same.values())}." if same else ""
        gaps = 2 * len(columns) if form.gap is None else 2 * (len(columns) - 1)
        gap = _USUAL_GAP if form.gap is None else form.gap
        points = sum(column.points for column in columns) + gaps * gap
        yield _Layout(form, columns, said, tuple(labels) if lifted else (), points)


def _said_once(table: PaperTable, place: int) -> str:
    """Return what a column says in every row, such as `n = 7`. Empty: rows differ, or it has a unit or an interval."""
    column, cells = table.columns[place], [row[place] for row in table.rows]
    if len(cells) < 2 or column.unit not in (None, "", "count") or any(cell != cells[0] for cell in cells):
        return ""
    first = cells[0]
    if isinstance(first, str):
        return f"{column.title} {first}" if first else ""
    if first.value is None or first.low is not None or first.marks or first.is_best:
        return ""
    return f"{column.title} = {written_column(table, place).cells[0].value}"


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


def _column(table: PaperTable, place: int, form: _Form) -> _Column:
    column = table.columns[place]
    if column.unit is None:
        texts = [str(row[place]) for row in table.rows]
        is_long = max(map(len, texts), default=0) > _LONGEST
        widest = max((width_of(text, form.size) for text in texts), default=0.0)
        head = broken(column.title, form.lines, form.size)
        return _Column(
            tuple(map(escaped_for_latex, head)),
            f"p{{{_BROKEN_WIDTH}\\linewidth}}" if is_long else "l",
            tuple(map(escaped_for_latex, texts)),
            ("",) * len(texts),
            _BROKEN_WIDTH * TEXT_WIDTH
            if is_long
            else max(widest, *(width_of(line, form.size) for line in head)),
        )
    written = written_column(table, place)
    head = broken(written.heading, form.lines, form.size)
    figures = table.figures(place)
    return _Column(
        tuple(map(escaped_for_latex, head)),
        "r",
        tuple(_value(figure, text) for figure, text in zip(figures, written.cells, strict=True)),
        tuple(_interval(text) for text in written.cells),
        max(
            [_points(figure, text, form) for figure, text in zip(figures, written.cells, strict=True)]
            + [width_of(line, form.size) for line in head]
        ),
    )


def _points(figure: Figure, written: Written, form: _Form) -> float:
    """Return the width of a number, with its interval where that is beside it."""
    text = written.value if "e" not in written.value else f"{written.value.replace('e', '+100')} "
    value = width_of(text, form.size) * (_BOLD if figure.is_best else 1.0)
    value += sum(width_of("~", form.size) * 1.6 if mark == "tie" else _MARK_POINTS for mark in figure.marks)
    interval = width_of(written.interval, "scriptsize")
    return max(value, interval) if form.is_stacked else value + interval + width_of(" ", form.size)


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
