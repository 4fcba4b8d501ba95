"""One batch size out of what was measured, and which limit binds: memory, throughput or noise (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fusetune.errors import InvalidValueError
from fusetune.tuner.batch_size.throughput_curve import TOLERANCE, Plateau, Throughput, find_plateau, near_best

Binds = Literal["memory", "samples", "throughput plateau", "noise scale"]
# A number of equal batches is looked for up to this factor above the fewest.
_MOST_MORE_BATCHES = 2


@dataclass(frozen=True)
class Accumulation:
    """A step that does not fit at once.

    Args:
        wanted: samples that the step should have.
        batch_size: samples in a forward.
        steps: forwards in a step.
    """

    wanted: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Recommendation:
    """The batch size to train with.

    Args:
        batch_size: samples in a forward, not above the largest that ran in full.
        binds: what keeps it from being larger.
        plateau: of the throughput. None where that is not known.
        accumulation: how to make the step that was wanted, where it does not fit. Else None.
        reason: one or two sentences.
    """

    batch_size: int
    binds: Binds
    plateau: Plateau | None
    accumulation: Accumulation | None
    reason: str


def recommend(
    points: Sequence[Throughput],
    *,
    largest: int,
    memory_binds: bool,
    critical: float | None = None,
    critical_source: str = "the noise scale",
    wanted: int | None = None,
    accumulation_steps: int = 1,
    tolerance: float = TOLERANCE,
) -> Recommendation:
    """Recommend the smallest batch that is expected to reach the target about as soon as any that fits.

        samples to a target:  E(B) = E_min (1 + B / B_crit)
        time to the target:   T(B) = E(B) / samples_per_s(B)
        recommended:          min { B : T(B) / min T <= 1 / (1 - tolerance) }, see
            `tuner.batch_size.throughput_curve.near_best`

    Without a critical batch size (not known, or beyond measure) E is the same for all. The answer is then the smallest
    batch on the throughput plateau, see `tuner.batch_size.throughput_curve.find_plateau` for the intervals. A finite
    critical batch size only makes the answer smaller: then the noise scale binds.

    Args:
        points: throughput of sizes that fit. Empty where it was not measured.
        largest: the largest batch that ran in full, 1 or more.
        memory_binds: whether memory keeps `largest` from being larger. False where all samples fit.
        critical: B_crit, or the noise scale in its place, in samples of a step. None: not known.
        critical_source: what to call it in the reason.
        wanted: samples of the step that the person asked for. None: no wish.
        accumulation_steps: forwards in a step.
        tolerance: what counts as about as soon, in [0, 1).

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> from fusetune.tuner.batch_size.throughput_curve import throughput
        >>> rates = {16: 1000, 32: 1900, 64: 3000, 128: 4000, 256: 4700, 512: 4800}
        >>> points = [throughput(size, [size / rate] * 6) for size, rate in rates.items()]
        >>> for critical in (None, 64.0):
        ...     found = recommend(points, largest=512, memory_binds=True, critical=critical)
        ...     print(found.batch_size, found.binds)
        256 throughput plateau
        64 noise scale

    Source: for E(B), S. McCandlish et al., "An empirical model of large-batch training" (2018), equation 2.12.
    """
    for name, value in (("largest", largest), ("accumulation_steps", accumulation_steps), ("wanted", wanted)):
        if value is not None and value < 1:
            raise InvalidValueError(name, f"{value} must be 1 or more")
    if critical is not None and not critical > 0:
        raise InvalidValueError("critical", f"{critical} must be above 0, or None where it is not known")
    usable = [point for point in points if point.batch_size <= largest]
    limit: Binds = "memory" if memory_binds else "samples"
    plateau = find_plateau(usable, tolerance=tolerance) if usable else None
    doubtful: tuple[int, ...] = ()
    if plateau is None:
        size, binds = _without_throughput(largest, limit, critical, accumulation_steps)
    else:
        per_forward = (critical or math.inf) / accumulation_steps
        near = near_best(usable, lambda size: 1 + size / per_forward, tolerance)
        size, doubtful = near.size, near.doubtful
        binds = "throughput plateau"
        if size < plateau.start:
            binds = "noise scale"
        elif size == largest or not plateau.reached:
            binds = limit
    return Recommendation(
        batch_size=size,
        binds=binds,
        plateau=plateau,
        accumulation=_accumulation(wanted, largest),
        reason=_reason(size, binds, plateau, critical, critical_source, largest, tolerance)
        + _doubt(doubtful),
    )


def _doubt(doubtful: Sequence[int]) -> str:
    """Return which smaller sizes may be as good by these timings."""
    if not doubtful:
        return ""
    sizes = ", ".join(f"{size:,}" for size in doubtful)
    whose = "whose estimates are" if len(doubtful) > 1 else "whose estimate is"
    return f". The timings scatter too much to rule out batch size {sizes}, {whose} clearly worse"


def _without_throughput(
    largest: int, limit: Binds, critical: float | None, accumulation_steps: int
) -> tuple[int, Binds]:
    """Return the critical batch where it fits, else the largest that does."""
    if critical is not None and critical < largest * accumulation_steps:
        return max(1, round(critical / accumulation_steps)), "noise scale"
    return largest, limit


def _accumulation(wanted: int | None, largest: int) -> Accumulation | None:
    """Split a step that does not fit into equal batches, without a remainder where few more of them allow that."""
    if wanted is None or wanted <= largest:
        return None
    fewest = math.ceil(wanted / largest)
    equal = (steps for steps in range(fewest, _MOST_MORE_BATCHES * fewest + 1) if wanted % steps == 0)
    steps = next(equal, fewest)
    return Accumulation(wanted, math.ceil(wanted / steps), steps)


def _reason(
    size: int,
    binds: Binds,
    plateau: Plateau | None,
    critical: float | None,
    source: str,
    largest: int,
    tolerance: float,
) -> str:
    """Say which limit binds, and what the others would allow."""
    noise = f"{source}, about {critical:,.0f} samples," if critical is not None else ""
    if binds == "noise scale" and plateau is not None:
        return (
            f"{noise} binds: samples/s rises up to batch size {plateau.start:,}, but beyond {size:,} a larger batch "
            f"needs more samples to the target, and is not known to be there more than {100 * tolerance:g} % sooner"
        )
    if binds == "noise scale":
        return f"{noise} binds: beyond it a larger batch saves few steps. Throughput was not measured"
    allows = f"; {noise} does not call for less" if critical is not None else ""
    if plateau is None:
        what = "memory binds" if binds == "memory" else "the number of samples binds"
        return (
            f"{what}: {largest:,} is the largest batch there is room for. Throughput was not measured{allows}"
        )
    if binds == "throughput plateau":
        return (
            f"the throughput plateau binds: from batch size {plateau.start:,} on, samples/s is within "
            f"{100 * tolerance:g} % of the best{allows}"
        )
    what = "memory binds" if binds == "memory" else "the number of samples binds"
    return f"{what}: samples/s still rises up to {size:,}, the largest batch there is room for{allows}"
