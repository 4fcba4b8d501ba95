"""A number of devices and a batch for them together, out of what fits on each and how fast they are (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fusetune.errors import InvalidValueError
from fusetune.tuner.batch_size.throughput_curve import TOLERANCE, Throughput

DeviceLimit = Literal["time", "noise scale", "the batch asked for", "memory"]


@dataclass(frozen=True)
class DeviceOption:
    """What so many devices can do together.

    Args:
        devices: 1 or more.
        share: the most samples that one of them holds in a forward. 0: none fits.
        rates: throughput of all devices together at batch sizes of all together. Empty where it was not measured.
    """

    devices: int
    share: int
    rates: tuple[Throughput, ...] = ()

    @property
    def batch_size(self) -> int:
        """The largest batch of all devices together."""
        return self.devices * self.share


@dataclass(frozen=True)
class DeviceChoice:
    """The devices to train with, and the batch that they share.

    Args:
        devices: how many.
        batch_size: samples in a forward of all devices together, a multiple of `devices`.
        binds: what the choice goes by: expected time, the noise of the gradient, the batch that was asked for, or
            memory.
        reason: one or two sentences.
    """

    devices: int
    batch_size: int
    binds: DeviceLimit
    reason: str


def recommend_devices(
    options: Sequence[DeviceOption],
    *,
    wanted: int,
    critical: float | None = None,
    critical_source: str = "the noise scale",
    accumulation_steps: int = 1,
    tolerance: float = TOLERANCE,
) -> DeviceChoice | None:
    """Recommend the fewest devices that are about as good as any, and their batch.

    Where the throughput of two numbers of devices or more is known, good is an early target, as in
    `tuner.batch_size.recommendation.recommend`:

        T(N, B) = (1 + B / B_crit) / samples_per_s(N, B)
        recommended:  min N, then min B, with T(N, B) <= min T / (1 - tolerance)

    Without it, good is room for a batch: for B_crit, since larger ones save few steps, or else for the batch that was
    asked for. Where no number of devices has that room, the fewest with the most room are recommended.

    Args:
        options: one for each number of devices.
        wanted: the batch that was asked for, of all devices together, 1 or more.
        critical: B_crit, or the noise scale in its place, in samples of a step. None: not known.
        critical_source: its name in the reason.
        accumulation_steps: forwards in a step.
        tolerance: what counts as about as soon, in [0, 1).

    Returns:
        None where no batch fits on any number of devices.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> options = [DeviceOption(1, 100), DeviceOption(2, 180), DeviceOption(8, 240)]
        >>> found = recommend_devices(options, wanted=64, critical=300.0)
        >>> found.devices, found.batch_size, found.binds
        (2, 300, 'noise scale')

    Source: for T, S. McCandlish et al., "An empirical model of large-batch training" (2018), equation 2.12.
    """
    if wanted < 1:
        raise InvalidValueError("wanted", f"{wanted} must be 1 or more")
    if critical is not None and not critical > 0:
        raise InvalidValueError("critical", f"{critical} must be above 0, or None where it is not known")
    roomy = sorted((option for option in options if option.share), key=lambda option: option.devices)
    if not roomy:
        return None
    timed = [option for option in roomy if option.rates]
    if len(timed) > 1:
        return _soonest(timed, (critical or math.inf) / accumulation_steps, tolerance, _untimed(roomy))
    return _roomiest(roomy, wanted, critical, critical_source, accumulation_steps)


def _soonest(
    timed: Sequence[DeviceOption], per_forward: float, tolerance: float, untimed: str
) -> DeviceChoice:
    """Choose by the expected time to the target."""
    times = {
        (option.devices, rate.batch_size): (1 + rate.batch_size / per_forward) / rate.samples_per_s
        for option in timed
        for rate in option.rates
    }
    best = min(times, key=lambda pair: times[pair])
    devices, batch_size = min(pair for pair in times if times[pair] <= times[best] / (1 - tolerance))
    fewest = timed[0].devices
    soonest = {number: min(time for pair, time in times.items() if pair[0] == number) for number, _ in times}
    if devices == fewest:
        found = f"more devices are expected to save at most {100 * tolerance:g} % of the time to the target"
    else:
        share = times[devices, batch_size] / soonest[fewest]
        found = f"the expected time to the target is {share:.2f} of the best on {_devices(fewest)}"
        if devices < timed[-1].devices:
            found += f", and more devices save at most {100 * tolerance:g} % of it"
    return DeviceChoice(devices, batch_size, "time", found + untimed)


def _roomiest(
    roomy: Sequence[DeviceOption],
    wanted: int,
    critical: float | None,
    critical_source: str,
    accumulation_steps: int,
) -> DeviceChoice:
    """Choose by room for a batch alone."""
    goal, what = wanted, f"the batch_size asked for, {wanted:,}"
    binds: DeviceLimit = "the batch asked for"
    if critical is not None:
        goal = max(1, round(critical / accumulation_steps))
        what, binds = f"{critical_source}, about {critical:,.0f} samples", "noise scale"
    unknown = ". How fast several devices are was not measured, so more of them may be faster"
    enough = [option for option in roomy if goal // option.devices <= option.share]
    if not enough:
        most = max(roomy, key=lambda option: (option.batch_size, -option.devices))
        found = f"memory binds: no number of devices holds {what}, and {_devices(most.devices)} hold the most"
        return DeviceChoice(most.devices, most.batch_size, "memory", found + unknown)
    chosen = enough[0]
    batch_size = max(1, goal // chosen.devices) * chosen.devices
    verb = "is the fewest that holds" if chosen.devices == 1 else "are the fewest that hold"
    saving = ", and larger batches save few steps" if critical is not None else ""
    return DeviceChoice(
        chosen.devices, batch_size, binds, f"{_devices(chosen.devices)} {verb} {what}{saving}{unknown}"
    )


def _untimed(roomy: Sequence[DeviceOption]) -> str:
    """Say whose speed is not known."""
    left = [f"{option.devices:,}" for option in roomy if not option.rates]
    return f". How fast {', '.join(left)} devices are was not measured" if left else ""


def _devices(number: int) -> str:
    return "1 device" if number == 1 else f"{number:,} devices"
