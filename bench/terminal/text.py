"""Makes a string that somebody else wrote safe for where it goes: a terminal, a log, a picture.

Names of factors, of classes and of files, values and texts of exceptions can hold any character. A terminal obeys some
of them, an SVG may not hold others, and Matplotlib reads what stands between two dollars as mathematics.
"""

from __future__ import annotations

import re

# Control characters but tab and newline, lone surrogates, what turns the direction of writing around, what ends a line
# without being a newline, marks that are not seen, and code points that are no characters and that XML forbids.
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u206f\\ufdd0-\\ufdef\\ufeff"
    "\\ufffe\\uffff\\ud800-\\udfff\\U000e0000-\\U000e007f"
    + "".join(f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)


def printable(text: str) -> str:
    r"""Write out every character that a terminal would obey or not show. Newlines and tabs stay.

    Applied twice, it changes nothing more. Two texts that differ may come out alike.

    Args:
        text: any string, lone surrogates included.

    Returns:
        The text, with `\x1b` for an escape, `\u202e` for a turn of direction, and so on. UTF-8 can write it, XML too.

    Example:
        >>> print(printable("\x1b[31mred\x07"))
        \x1b[31mred\x07
    """
    return _UNSAFE.sub(lambda found: written_out(found[0]), text)


def written_out(character: str) -> str:
    r"""Return a character as Python writes it in a literal.

    Example:
        >>> print(written_out("\x9b"), written_out("\n"))
        \x9b \n
    """
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    r"""Make a text printable on one line: as `printable`, with newlines and tabs written out too.

    Example:
        >>> print(one_line("a\nb"))
        a\nb
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")
