"""Names that a tracker accepts, made from any text so that different texts keep different names."""

from __future__ import annotations

import hashlib
import re

_DIGITS = 8


def valid_name(text: str, *, allowed: str, longest: int) -> str:
    r"""Return a text as a name of allowed characters. A text that is changed gets eight digits of its SHA-256.

    So two texts share a name only where those digits agree. A name that begins with a dot, or is empty, is changed too:
    it would be a hidden file, or none.

    Args:
        text: any string, lone surrogates included.
        allowed: the characters, as inside the brackets of a regular expression. `-` is among them.
        longest: characters of the name, at least 12.

    Example:
        >>> valid_name("batch_size=64,seed=0", allowed=r"\w=,.-", longest=100)
        'batch_size=64,seed=0'
        >>> valid_name("../etc", allowed=r"\w=,.-", longest=100)
        'etc-f7f9121f'
    """
    replaced = re.sub(f"[^{allowed}]+", "-", text, flags=re.ASCII)
    if replaced == text and 0 < len(text) <= longest and text[0] != ".":
        return text
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    kept = replaced.strip(".-")[: longest - _DIGITS - 1]
    return f"{kept}-{digits}" if kept else digits
