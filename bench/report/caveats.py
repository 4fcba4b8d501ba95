"""Caveats over a report, a line each. Banners stand out without colour too, by their capitals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from fusetune.bench.stats import Caveat


def caveat_lines(caveats: Iterable[Caveat]) -> Iterator[Text]:
    """Yield a line for each caveat.

    Args:
        caveats: from `bench.stats.caveats.caveats_of`.
    """
    for caveat in caveats:
        yield Text(
            caveat.sentence if caveat.is_banner else f"note: {caveat.sentence}",
            style="bold yellow" if caveat.is_banner else "yellow",
        )
