"""How wide a text is in LaTeX's usual font, so that a table can be made to fit without running LaTeX."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import inf
from typing import Literal

Size = Literal["small", "footnotesize", "scriptsize"]

# A column of text of the class `article`, in points.
TEXT_WIDTH = 345.0
# Thousandths of the size for the characters from the space to `~`, in Computer Modern Roman at 10 pt.
_WIDTHS = (
    *(
        278,
        278,
        378,
        833,
        500,
        833,
        778,
        278,
        389,
        389,
        500,
        778,
        278,
        333,
        278,
        500,
        500,
        500,
        500,
        500,
        500,
        500,
    ),
    *(
        500,
        500,
        500,
        500,
        278,
        278,
        778,
        778,
        778,
        472,
        778,
        750,
        708,
        722,
        764,
        681,
        653,
        785,
        750,
        361,
        514,
        778,
    ),
    *(
        625,
        917,
        750,
        778,
        681,
        778,
        736,
        556,
        722,
        750,
        750,
        1028,
        750,
        750,
        611,
        278,
        500,
        278,
        500,
        300,
        278,
        500,
    ),
    *(
        556,
        444,
        556,
        444,
        306,
        500,
        556,
        278,
        306,
        528,
        278,
        833,
        556,
        500,
        556,
        528,
        392,
        394,
        389,
        556,
        528,
        722,
    ),
    *(528, 528, 444, 500, 278, 500, 500),
)
_OTHER = 778
# Points of the size, by the factor that letters of a small font are wider.
_POINTS: dict[Size, float] = {"small": 9.25, "footnotesize": 8.5, "scriptsize": 7.97}


def width_of(text: str, size: Size) -> float:
    """Return the width of a text in points, within a few percent.

    Args:
        text: before it is escaped. A character that is not of ASCII counts as a wide one.
        size: of the font, in the class `article` at 10 pt.

    Example:
        >>> round(width_of("implementation", "footnotesize")), round(width_of("0", "scriptsize"), 2)
        (58, 3.98)
    """
    thousandths = sum(_WIDTHS[ord(each) - 32] if " " <= each <= "~" else _OTHER for each in text)
    return thousandths * _POINTS[size] / 1000


def broken(title: str, most: int, size: Size) -> tuple[str, ...]:
    """Break a heading at spaces into few lines that are as narrow as they can be.

    Args:
        title: one line.
        most: lines, at least 1.
        size: of the font.

    Example:
        >>> broken("peak memory [MiB]", 2, "small"), broken("peak memory [MiB]", 3, "small")
        (('peak memory', '[MiB]'), ('peak', 'memory', '[MiB]'))
    """
    words = title.split(" ")
    best: tuple[str, ...] = (title,)
    least = inf
    for count in range(min(most, len(words))):
        for places in combinations(range(1, len(words)), count):
            ends = (0, *places, len(words))
            lines = tuple(" ".join(words[a:b]) for a, b in pairwise(ends))
            widest = max(width_of(line, size) for line in lines)
            if widest < least:
                best, least = lines, widest
    return best
