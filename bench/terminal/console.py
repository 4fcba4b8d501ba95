"""The only ways to print: `say` for a line, `SafeConsole` for tables. No string can send control characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fusetune.bench.terminal.text import printable


def say(text: str = "", *, err: bool = False, newline: bool = True) -> None:
    r"""Print a text to stdout or stderr, with control characters escaped.

    Example:
        >>> say("\x1b]0;a title for your window\x07")
        \x1b]0;a title for your window\x07
    """
    click.echo(printable(text), nl=newline, err=err)


class SafeConsole(Console):
    r"""Rich's console for untrusted strings.

    Brackets are no markup, and colons no emoji. Control characters are escaped before they are printed, and in a `Text`
    already before lines are broken.

    Args:
        settings: those of `rich.console.Console`.

    Example:
        >>> SafeConsole(color_system=None).print("[/red] \x1b[2J")
        [/red] \x1b[2J
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a plain string into a printable text."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with texts made printable."""
        if isinstance(renderable, Text):
            renderable = _printable(renderable)
        for segment in super().render(renderable, options):
            if segment.control or (text := printable(segment.text)) == segment.text:
                yield segment
            else:
                yield Segment(text, segment.style)


def _printable(text: Text) -> Text:
    """Make a styled text printable. An escaped character keeps its style."""
    if printable(text.plain) == text.plain:
        return text
    found = text.blank_copy()
    for character in text.divide(range(1, len(text))):
        written = Text(printable(character.plain))
        for span in character.spans:
            written.stylize(span.style)
        found.append_text(written)
    return found
