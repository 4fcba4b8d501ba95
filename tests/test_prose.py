"""The prose of README and docs: sentences of at most 25 words, and no semicolons.

Prose is what stands outside of fenced and indented blocks: paragraphs, list items, headings and table cells. Code in
backticks counts as one word, and so does a link's address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "results/README.md", "kernels/cpu/README.md")
PAGES = [ROOT / name for name in NAMES if (ROOT / name).exists()] + sorted((ROOT / "docs").glob("*.md"))
MOST_WORDS = 25
# What goes on to a paragraph's next line begins with none of these.
BEGINS = re.compile(r"\s*(?:#+ |[-*] |\d+\. |\|)")


def passages(text: str) -> Iterator[str]:
    """Yield each paragraph, heading, list item and table cell, on one line."""
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraph: list[str] = []
    in_list = False
    for line in [*text.splitlines(), ""]:
        indented = line.startswith("    ") and not in_list
        if indented or not line.strip() or BEGINS.match(line):
            if paragraph:
                yield " ".join(paragraph)
            paragraph = []
        if indented:
            continue
        if line.startswith("|"):
            yield from filter(None, map(str.strip, plain(line).split("|")))
        elif line.strip():
            in_list = in_list or bool(BEGINS.match(line))
            paragraph.append(BEGINS.sub("", line, count=1).strip() if BEGINS.match(line) else line.strip())
        else:
            in_list = False


def plain(text: str) -> str:
    """Return a text with its code as one word each, and without the addresses of its links."""
    text = re.sub(r"`[^`]+`", "CODE", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(passage: str) -> list[str]:
    return re.split(r"(?<=[.!?])[)\"*]*\s+", plain(passage))


def test_a_sentence_is_what_a_reader_takes_for_one() -> None:
    text = "# A title\n\nOne `a; b. c` two\nthree. Four [five](x.md)!\n\n    code; code\n\n"
    text += "- a\n  b\n- c\n\n| d | `e` f. G |\n```sh\nx; y\n```\n"
    found = [sentence for passage in passages(text) for sentence in sentences(passage)]
    assert found == ["A title", "One CODE two three.", "Four five!", "a b", "c", "d", "CODE f.", "G"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    found = [sentence for passage in passages(page.read_text()) for sentence in sentences(passage)]
    assert [(len(one.split()), one) for one in found if len(one.split()) > MOST_WORDS] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_has_no_semicolons(page: Path) -> None:
    assert [passage for passage in passages(page.read_text()) if ";" in plain(passage)] == []
