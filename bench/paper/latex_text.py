r"""Text of others in LaTeX: shown as it is, whatever it holds, by pdfLaTeX, XeLaTeX and LuaLaTeX without a package."""

from __future__ import annotations

import re
import unicodedata

from fusetune.bench.terminal import one_line

# What LaTeX takes for a command, or for another character in its old fonts.
_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "%": r"\%",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": r"\`{}",
}
_SYMBOLS = {
    "∞": r"$\infty$",
    "µ": r"$\mu$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∼": r"$\sim$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "−": "$-$",
    "°": r"$^{\circ}$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "…": r"\dots{}",
    "–": "--{}",
    "—": "---{}",
    "‘": "`{}",
    "’": "'{}",
    "“": "``{}",
    "”": "''{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "\u00a0": "~",
}
_GREEK = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
    ),
    *("xi", "o", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_SYMBOLS |= {
    chr(0x3B1 + place): f"${name}$" if name == "o" else f"$\\{name}$" for place, name in enumerate(_GREEK)
}
_SYMBOLS |= {
    letter: f"$\\{name}$"
    for letter, name in zip(
        "ΓΔΘΛΞΠΣΥΦΨΩ",
        ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
        strict=True,
    )
}
# Two of these in a row become one character. A text on one line has no NUL, which stands for the gap.
_LIGATURES = re.compile("--+|,,+|''+")
# Combining accent -> its command.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def escaped_for_latex(text: str) -> str:
    r"""Escape a text so that LaTeX shows it as it is, on one line.

    Letters with an accent and common symbols are written by commands. Any other character is written as its number,
    for example U+4E2D, because the fonts of pdfLaTeX do not have it.

    Args:
        text: any string.

    Example:
        >>> print(escaped_for_latex("a_b & 50% é"))
        a\_b \& 50\% \'{e}
        >>> print(escaped_for_latex("\\input{x}"), escaped_for_latex("中"))
        \textbackslash{}input\{x\} \texttt{U+4E2D}
    """
    apart = _LIGATURES.sub(lambda found: "\0".join(found[0]), one_line(text))
    return "".join("{}" if character == "\0" else _character(character) for character in apart)


def _character(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    if character.isascii():
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        # The accent takes the place of the dot.
        letter = {"i": r"\i", "j": r"\j"}.get(letter, letter) if accents[0] != "\u0327" else letter
        return f"\\{_ACCENTS[accents[0]]}{{{letter}}}"
    return f"\\texttt{{U+{ord(character):04X}}}"
