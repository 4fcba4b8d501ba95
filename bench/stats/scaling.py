"""How the throughput of a training grows with the number of devices that share its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fusetune.bench.results import Record, Sharing, TrainingOutcome
from fusetune.bench.spec import field_of, freeze
from fusetune.tuner.measure import is_contended

# Factors that are nothing on one device, so what is compared with one device may differ in them.
_OF_DEVICES = ("train.devices", "train.parallel", "train.sync_batchnorm")


@dataclass(frozen=True)
class Scaling:
    """A configuration on several devices. Numbers are medians over its trainings.

        efficiency = throughput(N) / (N throughput(1))        of the same batches, so 1 is N times as fast

    Args:
        factors: factor name -> value.
        devices: N.
        samples_per_s: throughput of all devices together.
        efficiency: None where the same configuration on one device has no throughput.
        communication_share: share of the step time in which gradients were exchanged. None: not measured.
        overlap: share of that in which the backward pass computed meanwhile. None: not measured.
        contended: whether a timing of it, or of one device, was taken while others used the processor.
    """

    factors: dict[str, Any]
    devices: int
    samples_per_s: float
    efficiency: float | None
    communication_share: float | None
    overlap: float | None
    contended: bool


def scaling_of(records: Sequence[Record]) -> tuple[Scaling, ...]:
    """Return how each configuration on several devices compares with one device, in the order of the records.

    Example:
        >>> def record(devices: int, speed: float) -> Record:
        ...     sharing = Sharing(devices, "ddp", 1) if devices > 1 else None
        ...     return Record(f"{devices}", {"devices": devices}, 0, "ok", values={"samples_per_s": speed},
        ...                   outcome=TrainingOutcome(sharing=sharing))
        >>> [found] = scaling_of([record(1, 1000.0), record(4, 3000.0)])
        >>> found.devices, found.efficiency
        (4, 0.75)
    """
    if next(_sharings(records), None) is None:
        return ()  # as most runs, of which some have 100,000 records
    alone: dict[Any, list[Record]] = {}
    shared: dict[Any, list[Record]] = {}
    for record in records:
        if "samples_per_s" in record.values and isinstance(record.outcome, TrainingOutcome):
            if record.outcome.sharing is None:
                alone.setdefault(freeze(_others(record.factors)), []).append(record)
            else:
                shared.setdefault(freeze(record.factors), []).append(record)
    return tuple(
        _scaling(group, alone.get(freeze(_others(group[0].factors)), [])) for group in shared.values()
    )


def _scaling(group: Sequence[Record], alone: Sequence[Record]) -> Scaling:
    """Compare the trainings of a configuration with those on one device."""
    sharings = list(_sharings(group))
    devices = sharings[0].devices
    speed = median(record.values["samples_per_s"] for record in group)
    one = median(record.values["samples_per_s"] for record in alone) if alone else 0.0
    shares = [each.communication_share for each in sharings if each.communication_share is not None]
    overlaps = [each.overlap for each in sharings if each.overlap is not None]
    return Scaling(
        factors=group[0].factors,
        devices=devices,
        samples_per_s=speed,
        efficiency=speed / (devices * one) if one else None,
        communication_share=median(shares) if shares else None,
        overlap=median(overlaps) if overlaps else None,
        contended=any(
            is_contended(record.values.get("processor_missing", 0.0)) for record in (*group, *alone)
        ),
    )


def _sharings(records: Iterable[Record]) -> Iterator[Sharing]:
    for record in records:
        if isinstance(record.outcome, TrainingOutcome) and record.outcome.sharing is not None:
            yield record.outcome.sharing


def _others(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the factors that a training on one device has too."""
    return {name: value for name, value in factors.items() if field_of(name) not in _OF_DEVICES}
