"""A result as Markdown, for comments on pull requests and job summaries of GitHub and GitLab."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from fusetune.bench.gate.result import GateResult, Row
from fusetune.bench.gate.terminal import side_text
from fusetune.bench.gate.wording import (
    change_text,
    counted,
    headline,
    interval_text,
    metric_title,
    p_text,
    value_text,
    verdict_text,
    worst_first,
)
from fusetune.bench.terminal import one_line

# GitHub refuses a comment with more characters.
MOST_CHARACTERS = 65_536
_FOR_TABLE = 40_000
_FOR_DETAILS = 20_000
_MOST_OF_A_NAME = 120
_MOST_OF_A_SENTENCE = 600
_MOST_OF_A_NOTE = 300
_MOST_NOTES = 10
# What Markdown could take for more than itself within a line. A colon begins an emoji.
_MARKUP = re.compile(r"[\\`*_\[\]|~$@#]|:(?=[\w+-]+:)")
# Mentions, references and addresses of others must not notify or link from a comment.
_LINKING = re.compile(r"@|#|://|www\.|GH-", re.IGNORECASE)


def as_markdown(result: GateResult) -> str:
    """Write a result as Markdown: headline, table with the worst rows first, and the sentences folded.

    Names and messages of others are escaped: they make no markup, no HTML, no mention and no link. The text stays under
    GitHub's limit of 65,536 characters. Rows that do not fit are counted.

    Args:
        result: of a gate or a comparison.

    Example:
        >>> from fusetune.bench.gate.result import Side
        >>> row = Row("digits", "step_time_s", "timing", "pass", "No change.", base=0.01, head=0.01, n=5)
        >>> as_markdown(GateResult("digits.yaml", Side("main"), Side("working tree"), (row,))).splitlines()[0]
        '### ✓ PASS: step time of digits got no worse.'
    """
    rows = worst_first(result.rows)
    parts = [f"### {verdict_text(result.outcome)}: {escaped(headline(result))}", ""]
    sides = " against ".join(_code(side_text(side)) for side in (result.head, result.base))
    parts += [f"{_code(result.title)}, {sides}", ""]
    if rows:
        head = ["| verdict | benchmark | metric | base | head | change | 95 % interval | p | n |"]
        head += ["|---|---|---|--:|--:|--:|--:|--:|--:|"]
        parts += [*head, *_fitting((_row(row) for row in rows), len(rows), _FOR_TABLE, "row")]
        parts += [""]
    sentences = [_sentence(row) for row in rows]
    if sentences:
        shown = _fitting(sentences, len(sentences), _FOR_DETAILS, "sentence")
        parts += ["<details><summary>What the verdicts rest on</summary>", "", *shown, "", "</details>", ""]
    for note in result.notes[:_MOST_NOTES]:
        parts.append(f"- {escaped(note, _MOST_OF_A_NOTE)}")
    if len(result.notes) > _MOST_NOTES:
        parts.append(f"- ... and {counted(len(result.notes) - _MOST_NOTES, 'more note')}")
    if result.directory:
        parts += ["", f"Raw pairs: {_code(result.directory + '/pairs.jsonl')}"]
    return "\n".join(parts).rstrip() + "\n"


def escaped(text: str, most: int = _MOST_OF_A_SENTENCE) -> str:
    """Escape a text so that it is shown as it is, on one line.

    Args:
        text: any string.
        most: characters to keep.

    Example:
        >>> print(escaped("<b>|@all"))
        &lt;b&gt;&#124;&#64;<!-- -->all
    """
    text = one_line(text)
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(_piece(part) for part in re.split(f"({_LINKING.pattern})", text, flags=re.IGNORECASE))


def _piece(text: str) -> str:
    if not _LINKING.fullmatch(text):
        return _entities(text)
    return f"{_entities(text[0])}<!-- -->{_entities(text[1:])}"


def _entities(text: str) -> str:
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", html.escape(text, quote=False))


def _code(text: str) -> str:
    """Show a name as code, in which nothing is mentioned or linked."""
    text = one_line(text)
    text = text if len(text) <= _MOST_OF_A_NAME else f"{text[: _MOST_OF_A_NAME - 3]}..."
    return f"<code>{_entities(text)}</code>"


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


def _fitting(lines: Iterable[str], number: int, most: int, noun: str) -> list[str]:
    """Keep the first lines that fit into so many characters, and count the others."""
    kept: list[str] = []
    for line in lines:
        most -= len(line) + 1
        if most < 0:
            kept += ["", f"... and {counted(number - len(kept), f'more {noun}')}, see result.json"]
            break
        kept.append(line)
    return kept
