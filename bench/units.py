"""Quantities: parse what people write, print what people read, and say per metric which direction is better.

Everything inside the suite is in SI base units (seconds, bytes, samples/s); scaling happens here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*")

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """One number of a record: its unit, its title in a table and which direction is better."""

    title: str
    unit: Literal["s", "bytes", "samples/s", "count", "fraction", "nats", "none"]
    better: Better


METRICS: dict[str, Metric] = {
    "time_to_target_s": Metric("time to target", "s", "lower"),
    "steps_to_target": Metric("steps to target", "count", "lower"),
    "epochs_to_target": Metric("epochs to target", "count", "lower"),
    "samples_to_target": Metric("samples to target", "count", "lower"),
    "step_time_s": Metric("step time", "s", "lower"),
    "step_time_median_s": Metric("median step time", "s", "lower"),
    "step_time_q1_s": Metric("step time, lower quartile", "s", "lower"),
    "step_time_q3_s": Metric("step time, upper quartile", "s", "lower"),
    "processor_missing": Metric("processor missing", "fraction", "lower"),
    "samples_per_s": Metric("samples/s", "samples/s", "higher"),
    "peak_bytes": Metric("peak memory", "bytes", "lower"),
    "needed_bytes": Metric("memory needed", "bytes", "lower"),
    "wanted_bytes": Metric("memory wanted", "bytes", "lower"),
    "limit_bytes": Metric("memory limit", "bytes", "neither"),
    "best_val_accuracy": Metric("best val acc", "fraction", "higher"),
    "best_val_loss": Metric("best val loss", "nats", "lower"),
    "final_val_accuracy": Metric("final val acc", "fraction", "higher"),
    "final_val_loss": Metric("final val loss", "nats", "lower"),
    "final_train_accuracy": Metric("final train acc", "fraction", "higher"),
    "final_train_loss": Metric("final train loss", "nats", "lower"),
    "test_accuracy": Metric("test acc", "fraction", "higher"),
    "test_loss": Metric("test loss", "nats", "lower"),
    "steps": Metric("steps", "count", "neither"),
    "epochs": Metric("epochs", "count", "neither"),
    "samples": Metric("samples", "count", "neither"),
    "training_s": Metric("training clock", "s", "lower"),
    "evaluation_s": Metric("evaluation", "s", "neither"),
    "first_step_s": Metric("first step", "s", "lower"),
    "compile_s": Metric("compilation", "s", "lower"),
    "setup_s": Metric("set-up", "s", "neither"),
    "parameters": Metric("parameters", "count", "neither"),
    "suggested_lr": Metric("suggested lr", "none", "neither"),
    "range_lr": Metric("lr of the range test", "none", "neither"),
    "lr_low": Metric("cycle from", "none", "neither"),
    "lr_high": Metric("cycle to", "none", "neither"),
    "lr_interval_low": Metric("interval from", "none", "neither"),
    "lr_interval_high": Metric("interval to", "none", "neither"),
    "divergence_lr": Metric("diverges at lr", "none", "neither"),
    "latency_s": Metric("latency", "s", "lower"),
    "host_s": Metric("host time", "s", "lower"),
    "launches": Metric("launches", "count", "lower"),
    "moved_bytes": Metric("bytes moved", "bytes", "lower"),
    "extra_bytes": Metric("extra memory", "bytes", "lower"),
}


# More bytes than any machine has, and few enough for the system's calls.
MOST_BYTES = 2**60


def parse_bytes(text: str | int) -> int:
    """Read a number of bytes: `8GiB`, `512 MB`, `1073741824`. Raises ValueError with the known units.

    Example:
        >>> parse_bytes("8GiB"), parse_bytes("1.5kB"), parse_bytes(64)
        (8589934592, 1500, 64)
    """
    quantity = _parse(text, _BYTES, "B", "8GiB")
    if not 1 <= quantity <= MOST_BYTES:
        raise ValueError(f"{text!r} must be from 1 byte to 1 EiB. Write it like 8GiB")
    return round(quantity)


def parse_seconds(text: str | float) -> float:
    """Read a duration: `10min`, `90 s`, `1.5h`, `30`. Raises ValueError with the known units.

    Example:
        >>> parse_seconds("10min"), parse_seconds("250ms"), parse_seconds(30)
        (600.0, 0.25, 30.0)
    """
    return float(_parse(text, _SECONDS, "s", "10min"))


def _parse(text: str | float, units: dict[str, float] | dict[str, int], default: str, example: str) -> float:
    """Split `text` into number and unit; a bare number has the default unit."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        value, factor = float(text), 1.0
    else:
        match = _QUANTITY.fullmatch(str(text))
        unit = (match.group(2) or default) if match else ""
        if match is None or unit.lower() not in units:
            known = ", ".join(units)
            raise ValueError(f"{text!r} is not a quantity; known units: {known}. Write it like {example}")
        value, factor = float(match.group(1)), float(units[unit.lower()])
    quantity = value * factor
    if not math.isfinite(quantity) or quantity <= 0:
        raise ValueError(f"{text!r} must be finite and above 0. Write it like {example}")
    return quantity


def format_bytes(value: float) -> str:
    """Print bytes with binary prefixes, three significant digits.

    Example:
        >>> format_bytes(8 * 2**30), format_bytes(1536), format_bytes(12)
        ('8.00 GiB', '1.50 KiB', '12 B')
    """
    for factor, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three_digits(value / factor)} {name}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """Print a duration in the unit that suits it, three significant digits.

    Example:
        >>> format_seconds(0.00123), format_seconds(12.3), format_seconds(754), format_seconds(float("inf"))
        ('1.23 ms', '12.3 s', '12m34s', '∞')
    """
    if math.isinf(value):
        return "∞"
    if abs(value) >= 99.95:
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three_digits(value / factor)} {name}"
    return "0 s" if value == 0 else f"{_three_digits(value / 1e-9)} ns"


def format_count(value: float) -> str:
    """Print a count with thousands separated by a thin comma; large ones shortened.

    Example:
        >>> format_count(12), format_count(12345), format_count(2.5e6), format_count(float("inf"))
        ('12', '12,345', '2.50M', '∞')
    """
    if math.isinf(value):
        return "∞"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}M"
    return f"{value:,.0f}"


def format_rate(bytes_per_s: float) -> str:
    """Print a bandwidth as data sheets do, by powers of ten.

    Example:
        >>> format_rate(1.024e10), format_rate(3.35e12), format_rate(2.5e8)
        ('10.2 GB/s', '3350 GB/s', '0.250 GB/s')
    """
    value = bytes_per_s / 1e9
    return f"{value:.0f} GB/s" if value >= 99.95 else f"{_three_digits(value)} GB/s"


def format_metric(name: str, value: float | None) -> str:
    """Print one value of the metric `name` in its unit; `-` when there is none."""
    if value is None or math.isnan(value):
        return "-"
    return format_value(value, METRICS[name].unit)


def format_value(value: float, unit: str) -> str:
    """Print a number in its unit.

    Example:
        >>> format_value(0.0123, "s"), format_value(0.925, "fraction"), format_value(2048, "bytes")
        ('12.3 ms', '92.50 %', '2.00 KiB')
    """
    if unit == "s":
        return format_seconds(value)
    if unit == "bytes":
        return format_bytes(value)
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    return format_count(value) if unit in ("count", "samples/s") else f"{value:.4g}"


# Unit of a metric -> the units of tables, the largest first: what a number is divided by, and its name.
_DISPLAYED: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "fraction": ((0.01, "%"),),
    "samples/s": ((1.0, "samples/s"),),
    "nats": ((1.0, "nats"),),
    "bytes/s": ((1e9, "GB/s"),),
}


def display_unit(unit: str, values: Sequence[float]) -> tuple[float, str]:
    """Return the unit that a column of numbers is printed in: what to divide by, and its name.

    Args:
        unit: as in `METRICS`, or `bytes/s`. Others have no name, such as counts.
        values: the finite numbers of the column, not negative. Their median is 1 or more in the unit.

    Example:
        >>> display_unit("s", [0.012, 0.5, 0.02]), display_unit("bytes", [2.0**21]), display_unit("count", [3.0])
        ((0.001, 'ms'), (1048576.0, 'MiB'), (1.0, ''))
    """
    known = _DISPLAYED.get(unit, ((1.0, ""),))
    middle = sorted(values)[len(values) // 2] if values else 0.0
    return next(((factor, name) for factor, name in known if middle >= factor), known[-1 if middle else 0])


def _three_digits(value: float) -> str:
    """Format with three significant digits, never in scientific notation."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:.{digits}f}"
