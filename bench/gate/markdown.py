"""A result as Markdown, for comments on pull requests and job summaries of GitHub and GitLab."""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.bench.gate.result import GateResult, Row
from fusetune.bench.gate.wording import (
    change_text,
    counted,
    headline,
    interval_text,
    metric_title,
    p_text,
    side_text,
    value_text,
    verdict_text,
    worst_first,
)
from fusetune.bench.terminal import escaped

# GitHub refuses a comment with more characters.
MOST_CHARACTERS = 65_536
_FOR_NOTES = 8_000
_SHARE_OF_TABLE = 0.7
_OF_COUNTS = 200  # what the lines take that count the rows and sentences left out
_MOST_OF_A_NAME = 120
_MOST_OF_A_NOTE = 300
_TABLE = [
    "| verdict | benchmark | metric | base | head | change | 95 % interval | p | n |",
    "|---|---|---|--:|--:|--:|--:|--:|--:|",
]
_FOLDED = ["<details><summary>What the verdicts rest on</summary>", "", "", "</details>", ""]


def as_markdown(result: GateResult) -> str:
    """Write a result as Markdown: headline, table with the worst rows first, and the sentences folded.

    Names and messages of others are escaped: they make no markup, no HTML, no mention and no link. The text stays under
    GitHub's limit of 65,536 characters. Rows that do not fit are counted.

    Args:
        result: of a gate or a comparison.

    Example:
        >>> from fusetune.bench.gate.result import Side
        >>> row = Row("digits", "step_time_s", "timing", "pass", "No change.", base=0.01, head=0.01, n=5)
        >>> as_markdown(GateResult("digits.yaml", Side("main"), Side("working tree"), (row,))).splitlines()[:3]
        ['### ✓ PASS', '', 'digits: step time got no worse in working tree than in main.']
    """
    rows = worst_first(result.rows)
    sides = " against ".join(_code(side_text(side)) for side in (result.head, result.base))
    start = [f"### {verdict_text(result.outcome)}", "", escaped(headline(result)), ""]
    start += [f"{_code(result.title)}, {sides}", ""]
    notes = [f"- {escaped(note, _MOST_OF_A_NOTE)}" for note in result.notes]
    end = _fitting(notes, _FOR_NOTES, "note")
    if result.directory:
        end += ["", f"Raw pairs: {_code(result.directory + '/pairs.jsonl')}"]
    if rows:
        left = MOST_CHARACTERS - sum(len(line) + 1 for line in [*start, *end, *_TABLE, *_FOLDED]) - _OF_COUNTS
        table = _fitting([_row(row) for row in rows], int(_SHARE_OF_TABLE * left), "row")
        left -= sum(len(line) + 1 for line in table)
        opening, closing = _FOLDED[:2], _FOLDED[2:]
        folded = [*opening, *_fitting([_sentence(row) for row in rows], left, "sentence"), *closing]
        start += [*_TABLE, *table, "", *folded]
    return "\n".join([*start, *end]).rstrip() + "\n"


def _code(text: str) -> str:
    """Show a name as code. Markdown would still link what stands in HTML, so it is escaped as well."""
    return f"<code>{escaped(text, _MOST_OF_A_NAME)}</code>"


def _row(row: Row) -> str:
    values = [f"{v:.0f} failed" if row.metric == "failure" and v is not None else value_text(v, row.unit)
              for v in (row.base, row.head)]  # fmt: skip
    exact = row.comparison == "exact" and row.p is None and row.outcome != "missing"
    cells = [
        f"**{escaped(verdict_text(row.outcome))}**",
        _code(row.benchmark),
        escaped(metric_title(row.metric), _MOST_OF_A_NAME),
        *values,
        escaped(change_text(row)),
        "exact" if exact else interval_text(row),
        p_text(row.p).replace("<", "&lt;"),
        str(row.n),
    ]
    return f"| {' | '.join(cells)} |"


def _sentence(row: Row) -> str:
    said = f"{row.sentence} {row.advice}".strip()
    name = f"{_code(row.benchmark)}, {escaped(metric_title(row.metric), _MOST_OF_A_NAME)}"
    return f"- {escaped(verdict_text(row.outcome))}, {name}: {escaped(said)}"


def _fitting(lines: Sequence[str], most: int, noun: str) -> list[str]:
    """Keep the first lines that fit into so many characters, and count the others."""
    kept: list[str] = []
    for line in lines:
        most -= len(line) + 1
        if most < 0:
            return [*kept, "", f"... and {counted(len(lines) - len(kept), f'more {noun}')}, see result.json"]
        kept.append(line)
    return kept
