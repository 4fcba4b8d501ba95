"""Where numbers come from, as texts: data, device and trials. The terminal and the page share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusetune.bench.results import LOCAL, Machine, RunInfo
from fusetune.bench.stats import Places, Summary, counted
from fusetune.bench.units import format_bytes, format_seconds

_MOST_RATES = 4
_MOST_CLASSES = 12


def data_text(run: RunInfo) -> str:
    """Name the data that were used, and the set that a stand-in replaces. Empty for a run that uses none."""
    if not run.data and "data" not in run.spec.content:
        return ""
    wanted = run.spec.data
    used = ", ".join(run.data or [wanted])
    return f"{used}, a stand-in for {wanted}" if run.stand_in else used


def device_text(machine: Machine) -> str:
    """Name a device with its cores and memory."""
    parts = [
        machine.device or "unknown device",
        machine.device_name,
        f"{machine.cores} cores" if machine.cores else "",
        format_bytes(machine.memory_bytes) if machine.memory_bytes else "",
    ]
    return ", ".join(filter(None, parts))


def executor_text(run: RunInfo, places: Places | None) -> str:
    """Name the executor, with the nodes and devices that took part. Empty for a run on one machine.

    Example:
        >>> run = RunInfo(executor="ray: 4 devices on 2 nodes, NVIDIA H100")
        >>> executor_text(run, Places(3, {"NVIDIA H100": 4, "NVIDIA A100": 1}, lost=2, elsewhere=0))
        'ray, 3 nodes, 5 devices (4 NVIDIA H100, 1 NVIDIA A100), 2 attempts lost'
        >>> executor_text(run, None)
        'ray: 4 devices on 2 nodes, NVIDIA H100'
    """
    if places is None:
        return "" if run.executor == LOCAL else run.executor
    kinds = ", ".join(
        f"{count} {kind or 'of unknown kind'}" if len(places.devices) > 1 else kind
        for kind, count in places.devices.items()
    )
    parts = [
        "cluster" if run.executor == LOCAL else run.executor.partition(":")[0],
        counted(places.nodes, "node"),
        counted(sum(places.devices.values()), "device") + (f" ({kinds})" if kinds else ""),
        f"{counted(places.lost, 'attempt')} lost" if places.lost else "",
        f"{counted(places.elsewhere, 'trial')} on no cluster" if places.elsewhere else "",
    ]
    return ", ".join(filter(None, parts))


def training_facts(summary: Summary) -> Iterable[tuple[str, str]]:
    """Yield (name, text) of what is particular to trainings: classes, model, target, changes, paths, rates, trials.

    A name that is empty continues the one before it.
    """
    run = summary.run
    for names in run.classes:
        yield "classes", _classes(names)
    yield "model", run.spec.model
    yield "target", str(summary.target) if summary.target else "none; ranked by the best validation accuracy"
    if run.profile:
        yield "profile", f"{run.profile}: {'; '.join(run.profile_changes)}"
    if run.overrides:
        yield "set", ", ".join(" ".join(text.split()) for text in run.overrides)
    for path in summary.fused_paths:
        yield "fused", path
    shown = summary.auto_rates[:_MOST_RATES]
    for position, rate in enumerate(shown):
        yield "" if position else "auto lr", rate
    if len(summary.auto_rates) > len(shown):
        yield "", f"... and {len(summary.auto_rates) - len(shown)} more, in the records"
    yield "trials", _trials(summary)
    if summary.threads:
        yield "threads", summary.threads


def _classes(names: Sequence[str]) -> str:
    """List class names with their numbers, at most twelve."""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_MOST_CLASSES]))
    rest = len(names) - _MOST_CLASSES
    return f"{shown} and {rest} more, in the records" if rest > 0 else shown


def _trials(summary: Summary) -> str:
    spec = summary.run.spec
    design = "listed" if spec.is_listed else spec.design
    seeds = len(spec.seeds) or 1
    configurations = counted(summary.planned // seeds, "configuration")
    parts = [f"{design}: {configurations} x {counted(seeds, 'seed')} = {counted(summary.planned, 'trial')}"]
    if summary.recorded < summary.planned:
        parts.append(f"{summary.recorded} recorded")
    return ", ".join([*parts, f"{format_seconds(summary.trials_s)} together"])
