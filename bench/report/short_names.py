"""Short names of configurations for plots, where a line has room for a few words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fusetune.bench.report.training_texts import rank_text
from fusetune.bench.spec import key_id
from fusetune.bench.stats import Configuration, Summary, label


def short_names(configurations: Sequence[Configuration], tied: Collection[int]) -> list[str]:
    """Return each configuration's rank with its marks, and its values without their factors' names.

    Args:
        configurations: in any order.
        tied: ranks that cannot be told from the first place.

    Example:
        >>> found = Configuration(2, {"batch_size": 64, "optimizer": "adam"}, 3, 3, {"ok": 3}, {}, True)
        >>> short_names([found], [2])
        ['~2* 64, adam']
    """
    return [
        f"{rank_text(each, tied).strip()} {', '.join(map(label, each.factors.values())) or 'train'}"
        for each in configurations
    ]


def names_note(summary: Summary) -> str:
    """Return the sentence that explains such names."""
    names = ", ".join(map(key_id, summary.configurations[0].factors)) if summary.configurations else ""
    return f"Names are the rank and {names}." if names else "Names are the rank and the configuration."


def distinct(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same, so that a plot keeps them apart.

    Example:
        >>> distinct(["0.1", "0.2", "0.1"])
        ['0.1', '0.2', '0.1 (2)']
    """
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names as a text, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d"])
        ('a, b', 'a, b, c and 1 more')
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
