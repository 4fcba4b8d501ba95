"""Collects the events of a run into its status. It knows no clock, so its callers say what time it is."""

from __future__ import annotations

import dataclasses
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fusetune.bench.results import Record
from fusetune.bench.status.run_status import DeviceNow, Loss, NodeNow, RunStatus, TrialNow, Unit

LOCAL = "local"
MOST_LOSSES = 50
# Nodes that have left and are still remembered. On spot nodes a long run sees any number of them.
MOST_GONE = 64


@dataclass
class Flight:
    """A trial in flight.

    Args:
        index: its position in the run, from 1.
        started_s: when it began.
        node: where it runs. Empty: not known yet.
        device: on which device.
        update: its news so far.
    """

    index: int
    started_s: float
    node: str = ""
    device: str = ""
    update: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the trial's steps that are done, 0 to 1."""
        steps = self.update.get("steps") or 0
        return min(1.0, self.update.get("step", 0) / steps) if steps else 0.0


@dataclass
class _Device:
    kind: str
    done: int = 0
    slots: int = 0


@dataclass
class _Node:
    devices: dict[str, _Device] = field(default_factory=dict)
    done: int = 0
    lost: int = 0
    left: int = 0
    reason: str = ""


class Board:
    """The state of a run, from its events. An event takes constant time.

    Without a device that joined, all trials run on the node `local`.

    Args:
        device: name of the local device.
        kind: name of its GPU or processor.
        executor: `local` or `ray`.
        unit: what is counted, `trial` or `epoch`.

    Example:
        >>> board = Board("cpu", "an example")
        >>> board.start(2, 0, now_s=0.0)
        >>> board.trial_started("seed=0", 1, now_s=0.0)
        >>> board.trial_progress("seed=0", {"epoch": 1, "step": 5, "steps": 10}).share
        0.5
        >>> board.time_left_s(now_s=4.0)  # the other half, and a second trial
        12.0
    """

    def __init__(self, device: str = "", kind: str = "", executor: str = LOCAL, unit: Unit = "trial") -> None:
        self.total = 0
        self.done = 0
        self.failed = 0
        self.lost = 0
        self.message = ""
        self.started_s = 0.0
        self.flights: dict[str, Flight] = {}
        self._local = (device, kind)
        self._executor, self._unit = executor, unit
        self._nodes: dict[str, _Node] = {}
        self._losses: deque[tuple[float, Loss]] = deque(maxlen=MOST_LOSSES)
        self._durations, self._durations_s = 0, 0.0
        self._local_done = 0

    @property
    def nodes(self) -> int:
        """How many nodes the run has or had, at least 1."""
        return max(1, len(self._nodes))

    def start(self, total: int, done: int, *, now_s: float, failed: int = 0) -> None:
        """Begin: `total` trials planned, `done` of them recorded before, `failed` of these failed."""
        self.total, self.done, self.failed, self.started_s = total, done, failed, now_s

    def said(self, message: str) -> None:
        """Keep the last message."""
        self.message = message

    def device_joined(self, node: str, device: str, kind: str) -> None:
        """Add a device of a node, or another one of that name. A node that had left is back."""
        devices = self._nodes.setdefault(node, _Node()).devices
        devices.setdefault(device, _Device(kind)).slots += 1

    def device_left(self, node: str, device: str, reason: str, *, now_s: float) -> bool:
        """Remove a device of a node, and return whether it was the node's last. One that is not known is ignored."""
        found = self._nodes.get(node)
        if found is None or device not in found.devices:
            return False
        found.devices[device].slots -= 1
        if not found.devices[device].slots:
            del found.devices[device]
        found.left += 1
        found.reason = reason
        self._losses.append((now_s, Loss("", node, reason, device=device)))
        gone = [name for name, each in self._nodes.items() if not each.devices]
        for name in gone[: max(0, len(gone) - MOST_GONE)]:
            del self._nodes[name]
        return not found.devices

    def devices_dismissed(self) -> None:
        """Remove all devices: their part of the run is over. The next part has devices that join for it."""
        for node in self._nodes.values():
            node.devices.clear()

    def trial_started(self, trial: str, index: int, *, now_s: float) -> None:
        """Add a trial in flight."""
        self.flights[trial] = Flight(index, now_s)

    def trial_progress(self, trial: str, update: Mapping[str, Any]) -> Flight | None:
        """Take news of a trial, and return it. None: it is not in flight."""
        flight = self.flights.get(trial)
        if flight is not None:
            flight.update = {**flight.update, **update}
            flight.node, flight.device = update.get("node", flight.node), update.get("device", flight.device)
        return flight

    def trial_lost(self, trial: str, node: str, reason: str, attempt: int, *, now_s: float) -> None:
        """Put a trial back among those that wait."""
        self.flights.pop(trial, None)
        self.lost += 1
        if node in self._nodes:
            self._nodes[node].lost += 1
        self._losses.append((now_s, Loss("", node, reason, trial, attempt)))

    def trial_withdrawn(self, trial: str) -> None:
        """Take a trial from those in flight, and count nothing."""
        self.flights.pop(trial, None)

    def trial_finished(self, record: Record, *, now_s: float) -> None:
        """Count a trial as done."""
        flight = self.flights.pop(record.trial, None)
        self.done += 1
        self.failed += record.status == "failed"
        if flight is None:
            return
        self._durations += 1
        self._durations_s += now_s - flight.started_s
        node = self._nodes.get(flight.node)
        if not self._nodes:
            self._local_done += 1
        elif node is not None:
            node.done += 1
            if flight.device in node.devices:
                node.devices[flight.device].done += 1

    def time_left_s(self, now_s: float) -> float | None:
        """Estimate the seconds left from the mean duration of the finished trials.

        Before the first trial has finished, durations are extrapolated from the steps that trials in flight have done.
        Trials in flight share the work to come. None: nothing is known yet.
        """
        in_flight = [(now_s - flight.started_s, flight.share) for flight in self.flights.values()]
        waiting = self.total - self.done - len(in_flight)
        if self._durations:
            usual_s = self._durations_s / self._durations
        else:
            known = [elapsed / share for elapsed, share in in_flight if share > 0]
            if not known:
                return 0.0 if not in_flight and waiting <= 0 else None
            usual_s = sum(known) / len(known)
        running_s = sum(
            elapsed / share - elapsed if share > 0 else max(0.0, usual_s - elapsed)
            for elapsed, share in in_flight
        )
        return (waiting * usual_s + running_s) / max(1, len(in_flight))

    def status(self, now_s: float, wall: datetime) -> RunStatus:
        """Return the run as it is now.

        Args:
            now_s: now, on the clock of the events.
            wall: now, with its offset from UTC.
        """

        def at(moment_s: float) -> str:
            return (wall + timedelta(seconds=moment_s - now_s)).isoformat(timespec="seconds")

        placed: dict[tuple[str, str], list[TrialNow]] = {}
        starting: list[TrialNow] = []
        for trial, flight in self.flights.items():
            place = (flight.node, flight.device) if self._nodes else (LOCAL, self._local[0])
            known = not self._nodes or place[1] in self._devices(place[0])
            (placed.setdefault(place, []) if known else starting).append(_now(trial, flight, at))
        left_s = self.time_left_s(now_s)
        return RunStatus(
            written=wall.isoformat(timespec="milliseconds"),
            started=at(self.started_s),
            host=socket.gethostname(),
            pid=os.getpid(),
            executor=self._executor,
            total=self.total,
            done=self.done,
            failed=self.failed,
            waiting=max(0, self.total - self.done - len(self.flights)),
            lost=self.lost,
            ends=None if left_s is None else at(now_s + left_s),
            nodes=self._nodes_now(placed),
            starting=tuple(starting),
            losses=tuple(dataclasses.replace(loss, at=at(moment_s)) for moment_s, loss in self._losses),
            message=self.message,
            unit=self._unit,
        )

    def _devices(self, node: str) -> Mapping[str, _Device]:
        return self._nodes[node].devices if node in self._nodes else {}

    def _nodes_now(self, placed: Mapping[tuple[str, str], Iterable[TrialNow]]) -> tuple[NodeNow, ...]:
        if not self._nodes:
            name, kind = self._local
            device = DeviceNow(name, kind, self._local_done, tuple(placed.get((LOCAL, name), ())))
            return (NodeNow(LOCAL, (device,), self._local_done),)
        return tuple(
            NodeNow(
                name,
                tuple(
                    DeviceNow(device, each.kind, each.done, tuple(placed.get((name, device), ())), each.slots)
                    for device, each in sorted(node.devices.items())
                ),
                node.done,
                node.lost,
                node.left,
                node.reason,
            )
            for name, node in sorted(self._nodes.items())
            if node.devices or node.left  # the others were dismissed
        )


def _now(trial: str, flight: Flight, at: Callable[[float], str]) -> TrialNow:
    update = flight.update
    speed = update.get("samples_per_s")
    return TrialNow(
        trial,
        flight.index,
        at(flight.started_s),
        update.get("phase"),
        update.get("epoch"),
        update.get("epochs"),
        update.get("step"),
        update.get("steps"),
        speed if speed is not None and math.isfinite(speed) else None,
    )
