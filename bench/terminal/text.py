"""Makes untrusted strings safe for a terminal, a log or a picture.

Names of factors, classes and files, values, and messages of exceptions can contain any character. Some control a
terminal, and others are not allowed in an SVG.
"""

from __future__ import annotations

import re

# Control characters except tab and newline, lone surrogates, bidirectional controls, line separators other than
# newline, invisible marks, and noncharacters, which XML forbids.
_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u206f\\ufdd0-\\ufdef\\ufeff"
    "\\ufffe\\uffff\\ud800-\\udfff\\U000e0000-\\U000e007f"
    + "".join(f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)


def printable(text: str) -> str:
    r"""Escape every character that controls a terminal or is invisible. Newlines and tabs stay.

    The function is idempotent but not injective: two texts that differ may give the same result.

    Args:
        text: any string, lone surrogates included.

    Returns:
        The text with escapes such as `\x1b` and `\u202e`. It can be encoded as UTF-8 and written as XML.

    Example:
        >>> print(printable("\x1b[31mred\x07"))
        \x1b[31mred\x07
    """
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: written_out(found[0]), text)


def written_out(character: str) -> str:
    r"""Return the escape of a character in a Python literal.

    Example:
        >>> print(written_out("\x9b"), written_out("\n"))
        \x9b \n
    """
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    r"""Make a text printable on one line: newlines and tabs are escaped too.

    Example:
        >>> print(one_line("a\nb"))
        a\nb
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")
