"""What differs between two runs besides their code: versions, device, threads, kernel."""

from __future__ import annotations

from collections.abc import Iterator

from fusetune.bench.history.entries import Entry
from fusetune.bench.units import format_bytes

_TITLES = {
    "device_name": "device",
    "cpu_capability": "vector instructions",
    "cpu_quota": "processor quota",
    "threads": "threads",
    "memory_bytes": "memory",
    "os": "kernel",
    "compute_capability": "compute capability",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
}
# The kernel keeps a few pages more or fewer for itself with each release.
_SAME_MEMORY = 0.01


def environment_changes(before: Entry, after: Entry, benchmark: str) -> tuple[str, ...]:
    """Return what changed from one run to another, a phrase each.

    Args:
        before, after: two runs.
        benchmark: whose threads are compared.
    """
    return tuple(_changes(before, after, benchmark))


def _changes(before: Entry, after: Entry, benchmark: str) -> Iterator[str]:
    for name in sorted({*before.versions, *after.versions}):
        yield from _change(name, before.versions.get(name), after.versions.get(name))
    for name in dict.fromkeys((*before.machine, *after.machine)):
        first, second = before.machine.get(name), after.machine.get(name)
        if name == "cpu" and after.machine.get("device") == "cpu":  # the device says the same
            continue
        if name.endswith("_bytes") and isinstance(first, int) and isinstance(second, int):
            if abs(second - first) > _SAME_MEMORY * first:
                yield f"{_TITLES.get(name, name)} {format_bytes(first)} -> {format_bytes(second)}"
            continue
        yield from _change(_TITLES.get(name, name), first, second)
    yield from _change("recorded by bench", before.source, after.source)
    yield from _change("stand-in data", before.stand_in, after.stand_in)
    threads = [
        entry.benchmarks[benchmark].threads for entry in (before, after) if benchmark in entry.benchmarks
    ]
    if len(threads) == 2:
        yield from _change("threads of its processes", *threads)
    if before.dirty != after.dirty and True in (before.dirty, after.dirty):
        yield f"uncommitted changes {'before' if before.dirty else 'after'} it"


def _change(name: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        yield f"{name} {_shown(before)} -> {_shown(after)}"


def _shown(fact: object) -> str:
    return "none" if fact is None else f"{fact:g}" if isinstance(fact, float) else str(fact)
