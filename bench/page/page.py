"""What a page says, as plain data: sections of prose, facts, tables and plots. `html_page` makes HTML of it.

Rooms of the kinds of runs build these from their studies. They hold strings of others as they are. Only `html_page`
escapes them, so nothing here is markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fusetune.errors import InvalidValueError

Tone = Literal["plain", "note", "warning", "good", "bad"]
Values = Sequence[float | int | str | bool | None]

# The sections of a page in the order in which they appear, with what a reader finds there.
SECTIONS: dict[str, str] = {
    "ranking": "Ranking",
    "curves": "Learning curves",
    "effects": "What made the difference",
    "devices": "Several devices",
    "learning-rate": "Learning rate",
    "batch-size": "Batch size and memory",
    "search": "Search",
    "kernels": "Kernels",
    "tuning": "Launch configs",
    "gate": "Gate",
    "history": "History",
    "diagnosis": "Diagnosis",
    "failures": "What went wrong",
    "surer": "What would make it surer",
    "reproduce": "How to reproduce",
}


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text.

    Args:
        text: blank lines separate paragraphs.
        tone: `note` is small print below a table, `warning` a banner, `good` and `bad` a verdict.
    """

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names with texts, such as a run's provenance."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Command:
    """Text to copy into a shell or a file, as it is."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: with its unit, if all cells share one.
        numeric: whether cells are aligned at the right and sorted as numbers.
        meaning: shown where a pointer or the keyboard rests on the title.

    Raises:
        InvalidValueError: the title is empty. Who cannot see a table could not tell the column.
    """

    title: str
    numeric: bool = False
    meaning: str = ""

    def __post_init__(self) -> None:
        if not self.title:
            raise InvalidValueError("title of a column", "it is empty")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: what is read.
        order: what the column is sorted by, if not by the text. None sorts after everything.
        small: a second line below the text, such as a range.
        tone: colour beside the text, which says the same without it.
    """

    text: str
    order: float | str | None = None
    small: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class DataTable:
    """A table that a reader can sort and search.

    Args:
        caption: what it holds.
        columns: at least one.
        rows: each as long as `columns`.
        strong: numbers of rows that are printed in bold, from 0.
        note: small print that explains the marks in it.

    Raises:
        InvalidValueError: a row has more or fewer cells than there are columns.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()
    note: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InvalidValueError(
                    f"row {number} of '{self.caption}'", f"{len(row)} cells for {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Plot:
    """A plot in Vega-Lite.

    Args:
        title: above it.
        alt: what a reader sees there, in one or two sentences. Screen readers read it in place of the plot.
        spec: a specification of Vega-Lite 6 without `data`, title and size. Its fields are named by this project, never
            by strings of others, because Vega reads dots and brackets in a name. `vega` has parts for it.
        data: name of a table -> column -> values, each column as long as the others. The spec refers to a table by
            `{"data": {"name": ...}}`. A spec without such a name gets the only table.
        caption: below it.
        height: in CSS pixels. The width is that of the page.
    """

    title: str
    alt: str
    spec: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Values]]
    caption: str = ""
    height: int = 320

    def __post_init__(self) -> None:
        for name, columns in self.data.items():
            lengths = {len(values) for values in columns.values()}
            if len(lengths) > 1:
                raise InvalidValueError(
                    f"table '{name}' of '{self.title}'", f"columns of {sorted(lengths)} values"
                )


@dataclass(frozen=True)
class Beside:
    """Blocks beside each other where the page is wide enough."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them. They are open where the page is printed."""

    title: str
    blocks: tuple[Block, ...]


Block = Prose | Items | Facts | Command | DataTable | Plot | Beside | Fold


@dataclass(frozen=True)
class Section:
    """A section of a run's part of the page.

    Args:
        key: of `SECTIONS`, which has its title and place.
        blocks: in the order in which they are read. A section without blocks is left out.
        lead: one sentence that says what the section shows, below its title.
    """

    key: str
    blocks: tuple[Block, ...]
    lead: str = ""

    def __post_init__(self) -> None:
        if self.key not in SECTIONS:
            raise InvalidValueError.unknown("section", self.key, tuple(SECTIONS))

    @property
    def title(self) -> str:
        """The title above the section."""
        return SECTIONS[self.key]


@dataclass(frozen=True)
class Part:
    """The part of a page about one run, gate or history.

    Args:
        title: name of the spec or of what was measured.
        asked: what was asked, in one sentence.
        answer: the answer, in one sentence.
        more: what belongs to the answer, such as reasons, caveats and advice. Blank lines separate paragraphs.
        status: that a run goes on, or ended before its time, and what to do about it. Empty for a whole one.
        banners: warnings that a reader must see before the answer, such as stand-in data.
        facts: provenance.
        sections: in any order.

    Example:
        >>> part = Part("demo", "Which batch size?", "64.", sections=(Section("reproduce", (Command("make run"),)),))
        >>> [section.title for section in part.ordered]
        ['How to reproduce']
    """

    title: str
    asked: str
    answer: str
    more: str = ""
    banners: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    status: str = ""
    sections: tuple[Section, ...] = field(default=())

    @property
    def ordered(self) -> list[Section]:
        """The sections that have blocks, in the order of `SECTIONS`. Those of one key follow each other as given."""
        places = list(SECTIONS)
        return sorted(
            (section for section in self.sections if section.blocks),
            key=lambda section: places.index(section.key),
        )


@dataclass(frozen=True)
class Page:
    """A whole page: one part, or several below each other.

    Args:
        title: of the window.
        parts: at least one.
        refresh_s: seconds after which a browser loads the page again, for a run that goes on. None: never.
        written: when and by what the page was written, for its foot.
    """

    title: str
    parts: tuple[Part, ...]
    refresh_s: int | None = None
    written: str = ""
