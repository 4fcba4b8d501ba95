"""Text of others in CSV, for spreadsheets, which run what looks like a formula."""

from __future__ import annotations

import re

from fusetune.bench.terminal.text import one_line

_FORMULA = re.compile(r"\s*[=+@-]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def spreadsheet_text(text: str) -> str:
    """Return a text for a cell: on one line, and with an apostrophe before what a spreadsheet would run.

    A text that begins with `=`, `+`, `-` or `@`, after spaces or not, is taken for a formula, except for a number such
    as `-0.1`. Programs that read the file remove the apostrophe, where they need the text itself.

    Args:
        text: any string.

    Example:
        >>> spreadsheet_text("=1+1"), spreadsheet_text("adam"), spreadsheet_text("a-b"), spreadsheet_text("-0.1")
        ("'=1+1", 'adam', 'a-b', '-0.1')
    """
    text = one_line(text)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
