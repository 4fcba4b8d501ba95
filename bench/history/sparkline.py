"""A series of numbers as a row of characters, one a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
CHANGE, GAP = "│", "┊"
_EARLIER = "…"


def sparkline(
    levels: Sequence[float], *, changes: Collection[int] = (), gaps: Collection[int] = (), width: int = 60
) -> str:
    """Draw the newest runs of a series from its lowest to its highest level.

    Levels beyond 1.5 interquartile ranges are drawn at the edge, so that an outlier does not flatten the rest.

    Args:
        levels: finite numbers.
        changes: indices of runs before which `│` stands: the level changed.
        gaps: indices of runs before which `┊` stands: they do not follow at once.
        width: columns at most.

    Example:
        >>> sparkline([1, 1, 1, 2, 2, 2], changes=[3])
        '▁▁▁│███'
        >>> sparkline([1, 2, 3, 4], width=3)
        '…▆█'
    """
    low, high = _range(levels)
    drawn: list[str] = []
    for index, level in enumerate(levels):
        if index in changes:
            drawn.append(CHANGE)
        elif index in gaps:
            drawn.append(GAP)
        share = (min(max(level, low), high) - low) / (high - low) if high > low else 0.5
        drawn.append(_BLOCKS[round(share * (len(_BLOCKS) - 1))])
    if len(drawn) > width:
        drawn = [_EARLIER, *drawn[len(drawn) - width + 1 :]]
    return "".join(drawn)


def place(level: float, levels: Sequence[float], width: int) -> str:
    """Draw one level as a dot between the lowest and the highest of all.

    Example:
        >>> place(2, [1, 2, 3], 9)
        '    •    '
    """
    low, high = _range(levels)
    share = (min(max(level, low), high) - low) / (high - low) if high > low else 0.5
    at = round(share * (width - 1))
    return " " * at + "•" + " " * (width - 1 - at)


def _range(levels: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest level that is drawn to scale."""
    import numpy as np

    q1, q3 = np.quantile(levels, (0.25, 0.75))
    # A series that hardly varies has no outliers to leave out.
    beyond = 1.5 * (q3 - q1) or np.inf
    return float(max(min(levels), q1 - beyond)), float(min(max(levels), q3 + beyond))
