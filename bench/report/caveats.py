"""Caveats before a run and over its report, a line each. Banners are in capitals, so they need no colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from fusetune.bench.results import RunInfo
from fusetune.bench.stats import Caveat, caveats_of


def banner(run: RunInfo) -> list[str]:
    """Return the lines before the first trial: caveats, and the profile that was merged over the spec.

    Args:
        run: the run.
    """
    lines = [caveat.sentence for caveat in caveats_of(run, [])]
    if run.profile:
        lines.append(f"profile {run.profile}: {'; '.join(run.profile_changes)}")
    return lines


def caveat_lines(caveats: Iterable[Caveat]) -> Iterator[Text]:
    """Yield one line for each caveat.

    Args:
        caveats: from `bench.stats.caveats.caveats_of`.
    """
    for caveat in caveats:
        yield Text(
            caveat.sentence if caveat.is_banner else f"note: {caveat.sentence}",
            style="bold yellow" if caveat.is_banner else "yellow",
        )
