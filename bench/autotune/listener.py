"""What Triton's own `@triton.autotune` tuned, as rows: told by a lane, and shown beside what was tuned here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fusetune.bench.units import format_seconds
from fusetune.kernels import TritonSearch


def as_row(search: TritonSearch) -> dict[str, Any]:
    """Return a search as plain values, for JSON and for messages between processes.

    Infinity, which JSON does not have, is None: a config that failed.

    Example:
        >>> as_row(TritonSearch("add", (), ({"BLOCK": 8},), ((float("inf"),),), {"BLOCK": 8}))["configs"]
        [{'config': {'BLOCK': 8}, 'latency_s': None, 'p20_s': None, 'p80_s': None}]
    """
    configs = []
    for index, config in enumerate(search.configs):
        told = search.latencies_s[index] if index < len(search.latencies_s) else ()
        times = [time if math.isfinite(time) else None for time in told]
        latency, p20, p80 = (*times, None, None, None)[:3]
        configs.append({"config": dict(config), "latency_s": latency, "p20_s": p20, "p80_s": p80})
    return {
        "kernel": search.kernel,
        "key": list(search.key),
        "best": dict(search.best),
        "seconds": search.seconds,
        "from_cache": search.from_cache,
        "configs": configs,
    }


def read_row(row: Mapping[str, Any]) -> TritonSearch:
    """Return the search that a row tells.

    Raises:
        KeyError, TypeError, ValueError: it is no such row. A lane may have told anything.

    Example:
        >>> search = TritonSearch("add", ("8",), ({"BLOCK": 8},), ((1e-6, 1e-6, 2e-6),), {"BLOCK": 8}, 0.5)
        >>> read_row(as_row(search)) == search
        True
    """
    seconds = row["seconds"]
    return TritonSearch(
        str(row["kernel"]),
        tuple(map(str, row["key"])),
        tuple(_config(each["config"]) for each in row["configs"]),
        tuple(_times(each) for each in row["configs"]),
        _config(row["best"]),
        None if seconds is None else float(seconds),
        bool(row["from_cache"]),
    )


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
    table = Table(title=search.sentence, title_justify="left", box=None)
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


def _config(told: Mapping[str, Any]) -> dict[str, int | str]:
    return {str(name): value if isinstance(value, int) else str(value) for name, value in told.items()}


def _times(told: Mapping[str, Any]) -> tuple[float, ...]:
    times = [told["latency_s"], told["p20_s"], told["p80_s"]]
    if times[0] is None:
        return (math.inf,)
    return tuple(float(time) for time in times if time is not None)
