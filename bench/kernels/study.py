"""What the rows of a run come to: latencies as numbers, bandwidth against the limits, speedups with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from fusetune.bench.kernels.case import Direction
from fusetune.bench.kernels.records import row_of_record
from fusetune.bench.kernels.row import Row, SideResult, Verification
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.stats import Caveat, Estimate, caveats_of, median_ratio
from fusetune.errors import InvalidValueError

# Of a shorter call, what is on the clock decides its latency, so that all policies are shown.
SHORT_S = 50e-6
# From so many sizes on, a kernel is drawn over its bytes.
LEAST_SWEEP = 3


@dataclass(frozen=True)
class Latency:
    """Seconds of a call, over the rounds of one policy."""

    median_s: float
    p20_s: float
    p80_s: float
    n: int


@dataclass(frozen=True)
class RowStudy:
    """One row, and what its raw numbers come to.

    Args:
        row: as measured.
        latencies: policy -> the kernel's own. The first is the row's. Empty where the row has no time.
        bytes_per_s: bytes moved by second, of the median.
        share_of_copy: of the copy measured in the same run.
        share_of_datasheet: of the GPU's data sheet. None: the device is not in the table.
        speedups: competitor -> its time / the kernel's, over paired rounds. Only competitors that have a time.
        contention: the median share of processor time that the rounds did not get.
    """

    row: Row
    latencies: Mapping[str, Latency]
    bytes_per_s: float | None = None
    share_of_copy: float | None = None
    share_of_datasheet: float | None = None
    speedups: Mapping[str, Estimate] | None = None
    contention: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the row has a time."""
        return self.row.status == "ok" and bool(self.latencies)

    @property
    def latency(self) -> Latency | None:
        """By the row's own policy."""
        return next(iter(self.latencies.values()), None) if self.is_ok else None

    @property
    def verification(self) -> Verification | None:
        """Of the kernel's results."""
        return self.row.ours.verification


@dataclass(frozen=True)
class KernelsStudy:
    """The rows of a run."""

    run: RunInfo
    rows: tuple[RowStudy, ...]
    caveats: tuple[Caveat, ...] = ()
    directory: str = ""


def study_rows(run: RunInfo, records: Sequence[Record], directory: str = "") -> KernelsStudy:
    """Study the records of a run.

    Args:
        run: the run.
        records: one a row.
        directory: the run's directory.

    Raises:
        InvalidValueError: a record holds no row.
    """
    rows = tuple(study_row(row_of_record(record)) for record in records)
    # Contention is said of each row, where it matters.
    caveats = tuple(each for each in caveats_of(run, records) if each.name != "contended_timings")
    return KernelsStudy(run, rows, caveats, directory)


def study_row(row: Row) -> RowStudy:
    """Work out what a row's raw numbers come to.

    Args:
        row: of any status. Times that are not above 0 are refused.

    Raises:
        InvalidValueError: a time is not above 0.

    Example:
        >>> from fusetune.bench.kernels import Case, KernelSource, Policy, SideResult
        >>> times = (("ours", 0.5), ("eager", 1.0))
        >>> sides = [SideResult(name, latencies_s={"wall, cold": [time] * 6}) for name, time in times]
        >>> study = study_row(Row(Case(KernelSource("gelu"), "gelu", 8, "float32"), tuple(sides), bytes_moved=64))
        >>> study.latency.median_s, study.bytes_per_s, study.speedups["eager"].value
        (0.5, 128.0, 2.0)
    """
    own = row.policies[0].name
    ours = row.ours
    for side in row.sides:
        if any(not time > 0 for times in side.latencies_s.values() for time in times):
            raise InvalidValueError(row.case.name, f"a time of {side.name} is not above 0")
    order = [own, *(name for name in ours.latencies_s if name != own)]
    latencies = {name: _latency(ours.latencies_s[name]) for name in order if ours.latencies_s.get(name)}
    contention = median(ours.contention) if ours.contention else None
    if row.status != "ok" or own not in latencies:
        return RowStudy(row, {}, contention=contention)
    rate = row.bytes_moved / latencies[own].median_s if row.bytes_moved else None
    return RowStudy(
        row,
        latencies,
        bytes_per_s=rate,
        share_of_copy=rate / row.copy.bytes_per_s if rate and row.copy else None,
        share_of_datasheet=rate / row.datasheet_bytes_per_s if rate and row.datasheet_bytes_per_s else None,
        speedups=dict(_speedups(row, own)),
        contention=contention,
    )


def _speedups(row: Row, policy: str) -> Iterator[tuple[str, Estimate]]:
    """Yield each competitor that has a time, over the rounds that both sides have."""
    ours = row.ours.latencies_s[policy]
    for side in row.sides[1:]:
        theirs = side.latencies_s.get(policy, ()) if side.status == "ok" else ()
        found = median_ratio(list(zip(theirs, ours, strict=False)))
        if found is not None:
            yield side.name, found


def _latency(times: Sequence[float]) -> Latency:
    return Latency(median(times), quantile(times, 0.2), quantile(times, 0.8), len(times))


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, between two values in proportion.

    Example:
        >>> quantile([3.0, 1.0, 2.0], 0.75), quantile([5.0], 0.2)
        (2.5, 5.0)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True)
class Sweep:
    """One kernel over several sizes.

    Args:
        kernel, dtype, direction: what the rows share.
        rows: with a time, by their bytes.
    """

    kernel: str
    dtype: str
    direction: Direction
    rows: tuple[RowStudy, ...]

    @property
    def name(self) -> str:
        """What it is called in titles and file names."""
        parts = [self.kernel, self.dtype]
        return "/".join([*parts, self.direction] if self.direction == "backward" else parts)


def sweeps_of(rows: Sequence[RowStudy]) -> tuple[Sweep, ...]:
    """Return the size sweeps among rows: three sizes or more of a kernel, dtype and direction, with a time each."""
    sized = [row for row in rows if row.is_ok and row.row.bytes_moved and isinstance(row.row.case.shape, int)]

    def key(row: RowStudy) -> tuple[str, str, Direction]:
        return row.row.case.kernel, row.row.case.dtype, row.row.case.direction

    found = []
    order = list(dict.fromkeys(map(key, sized)))
    for group, of_group in groupby(sorted(sized, key=lambda row: order.index(key(row))), key=key):
        ordered = sorted(of_group, key=lambda row: row.row.bytes_moved or 0)
        if len(ordered) >= LEAST_SWEEP:
            found.append(Sweep(*group, tuple(ordered)))
    return tuple(found)


def rates_of(row: RowStudy) -> Mapping[str, float]:
    """Return side -> bytes by second of its median, for all sides that have a time."""
    own = row.row.policies[0].name
    moved = row.row.bytes_moved or 0
    return {
        side.name: moved / median(side.latencies_s[own])
        for side in row.row.sides
        if side.status == "ok" and side.latencies_s.get(own)
    }


def lost(side: SideResult) -> str:
    """Say in a few words why a side has no time.

    Example:
        >>> lost(SideResult("liger", "skipped", "liger-kernel is not installed"))
        'liger-kernel is not installed'
        >>> lost(SideResult("ours", "wrong", "the error is 0.1")), lost(SideResult("ours", "crashed"))
        ('wrong: the error is 0.1', 'crashed')
    """
    if side.status == "skipped":
        return side.reason or "skipped"
    return f"{side.status}: {side.reason}" if side.reason else side.status
