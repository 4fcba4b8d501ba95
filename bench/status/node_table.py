"""A run's status as tables: a line a node where there are several, else a line a trial."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.table import Table

from fusetune.bench.stats import counted
from fusetune.bench.status.run_status import NodeNow, RunStatus, TrialNow
from fusetune.bench.units import format_count, format_seconds

_LONGEST_NODE = 28
_LONGEST_KIND = 18
_TAIL = 14  # names of nodes differ at their ends


def node_count(status: RunStatus) -> int:
    """Return how many nodes have devices."""
    return sum(bool(node.devices) for node in status.nodes)


def device_words(status: RunStatus) -> str:
    """Return how many nodes and busy devices a run has, in words.

    Example:
        >>> from datetime import datetime, timezone
        >>> from fusetune.bench.status import Board
        >>> device_words(Board("cpu").status(0.0, datetime.now(timezone.utc)))
        '1 node, 0 of 1 device busy'
    """
    devices = sum(node.slots for node in status.nodes)
    busy = sum(node.busy for node in status.nodes)
    return f"{counted(node_count(status), 'node')}, {busy} of {counted(devices, 'device')} busy"


def doing(trial: TrialNow) -> str:
    """Return phase and epoch of a trial, such as `training 3/12`."""
    epoch = "" if trial.epoch is None else f"{trial.epoch}/{trial.epochs or '?'}"
    return " ".join(filter(None, [trial.phase, epoch])) or "starting"


def by_node(status: RunStatus, now: datetime, most_rows: int | None = None) -> Table:
    """Return a line for each node, those with losses first, then the fastest.

    Args:
        status: the run.
        now: the time up to which trials in flight are counted.
        most_rows: lines of the table, at least 2. The other nodes are summed in the last one. None: all are shown.
    """
    ranked = sorted(status.nodes, key=lambda node: (-node.lost - node.left, -node.samples_per_s, node.node))
    shown = ranked if most_rows is None or len(ranked) <= most_rows else ranked[: most_rows - 1]
    kind = ["kind"] if len(kinds(ranked)) > 1 else []
    table = _table("node", *kind, "busy", "done", "samples/s", "lost", "longest in flight", "for")
    for node in shown:
        longest = min(node.trials, key=lambda trial: trial.since, default=None)
        table.add_row(
            shortened(node.node, _LONGEST_NODE),
            *(", ".join(kinds([node])) for _ in kind),
            *_sums([node]),
            (node.reason or "idle") if longest is None else longest.trial,
            "" if longest is None else _age(longest, now),
        )
    rest = ranked[len(shown) :]
    if rest:
        table.add_row(
            counted(len(rest), "other"), *(", ".join(kinds(rest)) for _ in kind), *_sums(rest), "", ""
        )
    return table


def by_trial(status: RunStatus, now: datetime) -> Table:
    """Return a line for each trial in flight and each idle device.

    Args:
        status: the run.
        now: the time up to which trials in flight are counted.
    """
    table = _table("device", "trial", "phase, epoch", "samples/s", "for")
    rows = [
        (device.device, trial) for node in status.nodes for device in node.devices for trial in device.trials
    ]
    rows += [("", trial) for trial in status.starting]
    for device, trial in rows:
        speed = "" if trial.samples_per_s is None else format_count(trial.samples_per_s)
        table.add_row(device, trial.trial, doing(trial), speed, _age(trial, now))
    for node in status.nodes:
        for each in node.devices:
            for _ in range(each.slots - each.busy):
                table.add_row(each.device, "idle", "", "", "")
    return table


def shortened(name: str, width: int) -> str:
    """Cut a name to some characters in the middle, and keep its end.

    Example:
        >>> shortened("raycluster-x7k2p-worker-gpus-4hq9z", 24)
        'raycluste…ker-gpus-4hq9z'
    """
    return name if len(name) <= width else f"{name[: width - _TAIL - 1]}…{name[-_TAIL:]}"


def whole_seconds(seconds: float) -> str:
    """Write a duration without fractions of a second.

    Example:
        >>> whole_seconds(0.3), whole_seconds(59.7), whole_seconds(754.0)
        ('0 s', '60 s', '12m34s')
    """
    return f"{round(seconds)} s" if seconds < 100 else format_seconds(seconds)


def _age(trial: TrialNow, now: datetime) -> str:
    """Say for how long a trial has been in flight."""
    return whole_seconds(max(0.0, (now - datetime.fromisoformat(trial.since)).total_seconds()))


def kinds(nodes: Iterable[NodeNow]) -> tuple[str, ...]:
    """Return the names of the GPUs or processors of some nodes, each once."""
    return tuple(dict.fromkeys(device.kind for node in nodes for device in node.devices if device.kind))


def _sums(nodes: Sequence[NodeNow]) -> tuple[str, str, str, str]:
    devices, lost = sum(node.slots for node in nodes), sum(node.lost for node in nodes)
    trials = [trial for node in nodes for trial in node.trials]
    known = [trial.samples_per_s for trial in trials if trial.samples_per_s is not None]
    return (
        f"{sum(node.busy for node in nodes)}/{devices}" if devices else "left",
        format_count(sum(node.done for node in nodes)),
        format_count(sum(known)) if known else "",
        str(lost) if lost else "",
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    numbers = {"busy", "done", "samples/s", "lost", "for"}
    flexible = {"trial", "longest in flight"}
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if heading in flexible else None,
            max_width=_LONGEST_KIND if heading == "kind" else None,
        )
    return table
