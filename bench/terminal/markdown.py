"""Text of others in Markdown, for comments on pull requests and job summaries of GitHub and GitLab."""

from __future__ import annotations

import html
import re

from fusetune.bench.terminal.text import one_line

_MOST = 600
# What Markdown could take for more than itself within a line. A colon begins an emoji.
_MARKUP = re.compile(r"[\\`*_\[\]|~$@#]|:(?=[\w+-]+:)")
# Mentions, references and addresses of others must not notify or link from a comment.
_LINKING = re.compile(r"@|#|://|www\.|GH-", re.IGNORECASE)


def escaped(text: str, most: int = _MOST) -> str:
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
