"""What Triton's own `@triton.autotune` tuned, as a table of our report."""

from __future__ import annotations

import math

from rich.table import Table

from fusetune.bench.units import format_seconds
from fusetune.kernels import TritonSearch


def search_table(search: TritonSearch, most: int = 10) -> Table:
    """Return the configs of a search, the fastest first.

    Args:
        search: of `@triton.autotune`.
        most: rows that are shown. The others are counted in the caption.

    Example:
        >>> table = search_table(TritonSearch("add", (), ({"BLOCK": 8},), ((1e-6, 1e-6, 2e-6),), {"BLOCK": 8}))
        >>> table.row_count, [str(column.header) for column in table.columns]
        (1, ['BLOCK', 'median', 'p20', 'p80', 'of the best', ''])
    """
    names = [*dict.fromkeys(name for config in search.configs for name in config)]
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for header in (*names, "median", "p20", "p80", "of the best", ""):
        table.add_column(header, justify="left" if header == "" else "right")
    pairs = sorted(zip(search.configs, search.latencies_s, strict=False), key=lambda pair: pair[1][:1])
    best = pairs[0][1][0] if pairs and pairs[0][1] else math.nan
    for config, times in pairs[:most]:
        cells = [format_seconds(time) if math.isfinite(time) else "-" for time in times[:3]]
        cells += [""] * (3 - len(cells))
        if times and math.isinf(times[0]):
            share, note = "", "failed"
        else:
            share = f"{times[0] / best:.2f}x" if times else ""
            note = "chosen" if config == search.best else ""
        table.add_row(*(str(config.get(name, "")) for name in names), *cells, share, note)
    if len(pairs) > most:
        table.caption = f"and {len(pairs) - most} more"
    return table
