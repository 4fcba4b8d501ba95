"""The gradient noise scale from squared gradient norms at two batch sizes, and how sure it is (no torch)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusetune.errors import InvalidValueError

LEAST_REPEATS = 4


@dataclass(frozen=True)
class NoiseScale:
    """How noisy the gradient of one sample is, against the gradient's own length.

    Args:
        value: tr(Sigma) / |G|^2 in samples. None where |G|^2 is not distinguishable from 0.
        low: lower end of its interval.
        high: upper end. Infinite where |G|^2 may be 0.
        confidence: of that interval.
        gradient_norm_squared: unbiased estimate of |G|^2, which may be negative where the noise is large.
        gradient_norm_squared_error: its standard error.
        noise_trace: unbiased estimate of tr(Sigma), the total variance of one sample's gradient.
        noise_trace_error: its standard error.
        small: samples of the small batch.
        big: samples of the big batch.
        repeats: pairs that were measured.
        reason: one sentence: the finding, or why there is none.
    """

    value: float | None
    low: float
    high: float
    confidence: float
    gradient_norm_squared: float
    gradient_norm_squared_error: float
    noise_trace: float
    noise_trace_error: float
    small: int
    big: int
    repeats: int
    reason: str


def estimate_noise_scale(
    small_squares: Sequence[float],
    big_squares: Sequence[float],
    *,
    small: int,
    big: int,
    samples: int | None = None,
    confidence: float = 0.9,
) -> NoiseScale:
    """Estimate the noise scale from pairs of squared gradient norms.

    Of each pair, with b samples in the small batch, B in the big one, and N to draw from (1/N = 0 for fresh samples):

        tr(Sigma) = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)
        |G|^2     = |g_B|^2 - tr(Sigma) (1/B - 1/N)

    Both are unbiased, for |g_b|^2 has the expectation |G|^2 + tr(Sigma) (1/b - 1/N). Their quotient is not, so the
    means over the pairs are divided: B_simple = mean tr(Sigma) / mean |G|^2. The interval is Fieller's: all ratios r
    for which mean (tr(Sigma) - r |G|^2) is compatible with 0 by Student's t. If |G|^2 is not distinguishable from 0,
    there is no value and no upper end. The lower one is the least tr(Sigma) over the largest |G|^2 that are likely.

    Args:
        small_squares: |g_b|^2 of each pair, or its mean over several small batches.
        big_squares: |g_B|^2 of each pair, as many.
        small: b, 1 or more.
        big: B, above b.
        samples: N, where a batch is drawn without replacement from a set that G is the gradient of. None: G is that of
            the distribution, every batch fresh.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: sizes, counts or numbers that do not fit together.

    Example:
        >>> found = estimate_noise_scale([5.2, 4.9, 5.1, 4.8], [2.1, 1.9, 2.0, 2.0], small=16, big=64)
        >>> round(found.noise_trace, 6), round(found.gradient_norm_squared, 6), round(found.value, 6)
        (64.0, 1.0, 64.0)
        >>> found.low < found.value < found.high
        True

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018), appendix A.1; E. C. Fieller,
        "Some problems in interval estimation" (1954).
    """
    check_sizes(small, big, len(big_squares), samples, confidence)
    if len(small_squares) != len(big_squares):
        raise InvalidValueError(
            "small_squares and big_squares",
            f"{len(small_squares)} and {len(big_squares)} values",
            to_do="Give pairs, as many of each",
        )
    pairs = list(zip(small_squares, big_squares, strict=True))
    if not all(math.isfinite(one) and math.isfinite(other) for one, other in pairs):
        reason = "a gradient was not finite, so there is no noise scale"
        nan = math.nan
        return NoiseScale(None, 0.0, math.inf, confidence, nan, nan, nan, nan, small, big, len(pairs), reason)
    traces = [(one - other) / (1 / small - 1 / big) for one, other in pairs]
    share = 1 / big - (0.0 if samples is None else 1 / samples)
    squares = [other - share * trace for (_, other), trace in zip(pairs, traces, strict=True)]
    trace, square = _mean(traces), _mean(squares)
    known, low, high = _fieller(traces, squares, confidence)
    value = max(0.0, trace / square) if known else None
    return NoiseScale(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        gradient_norm_squared=square,
        gradient_norm_squared_error=math.sqrt(_covariance(squares, squares) / len(pairs)),
        noise_trace=trace,
        noise_trace_error=math.sqrt(_covariance(traces, traces) / len(pairs)),
        small=small,
        big=big,
        repeats=len(pairs),
        reason=_reason(value, low, high, confidence, big, len(pairs)),
    )


def check_sizes(small: int, big: int, repeats: int, samples: int | None, confidence: float) -> None:
    """Refuse sizes that make no pair, and too few pairs.

    Raises:
        ValueError: a number out of its range.
    """
    if small < 1:
        raise InvalidValueError("small", f"{small} must be 1 or more")
    if big <= small:
        raise InvalidValueError(
            "big", f"{big} must be above small, {small}", "two sizes tell noise from gradient"
        )
    if samples is not None and samples < big:
        raise InvalidValueError(
            "samples", f"{samples} must be at least big, {big}", to_do="Take a smaller big batch"
        )
    if repeats < LEAST_REPEATS:
        raise InvalidValueError(
            "repeats",
            f"{repeats} are too few for an error bar",
            "10 is usual",
            f"Take {LEAST_REPEATS} or more",
        )
    if not 0 < confidence < 1:
        raise InvalidValueError("confidence", f"{confidence} must be between 0 and 1")


def _reason(value: float | None, low: float, high: float, confidence: float, big: int, repeats: int) -> str:
    """Say in a sentence what was found."""
    if value is None:
        return (
            f"the gradient cannot be told from 0 by {repeats} batches of {big} samples, so the noise scale is at least "
            f"{samples_text(low)} and has no upper end; take more repeats or a bigger batch"
        )
    return (
        f"a batch of {samples_text(value)} samples has as much noise as gradient ({100 * confidence:g} % interval "
        f"{samples_text(low)} to {samples_text(high)}, from {repeats} pairs of batches)"
    )


def samples_text(value: float) -> str:
    """Print a number of samples that was estimated: whole, or with two digits below 10.

    Example:
        >>> samples_text(5280.4), samples_text(0.1234)
        ('5,280', '0.12')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _fieller(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float
) -> tuple[bool, float, float]:
    """Return whether the mean denominator differs from 0, and the interval of the ratio of means, not below 0.

    (y - r x)^2 <= t^2 (v_yy - 2 r v_xy + r^2 v_xx) / n        a quadratic inequality in r
    """
    from scipy.special import stdtrit  # the only use of scipy; a report that has no noise scale does without

    n = len(numerators)
    y, x = _mean(numerators), _mean(denominators)
    spread = float(stdtrit(n - 1, (1 + confidence) / 2)) ** 2 / n
    a = x**2 - spread * _covariance(denominators, denominators)
    half_b = x * y - spread * _covariance(numerators, denominators)
    c = y**2 - spread * _covariance(numerators, numerators)
    discriminant = max(0.0, half_b**2 - a * c)
    if a > 0 and x > 0:
        root = math.sqrt(discriminant)
        return True, max(0.0, (half_b - root) / a), max(0.0, (half_b + root) / a)
    # No upper end. The lower one: the least noise over the largest |G|^2 that the data allow.
    least = y - math.sqrt(spread * _covariance(numerators, numerators))
    largest = max(0.0, x) + math.sqrt(spread * _covariance(denominators, denominators))
    return False, max(0.0, least / largest) if largest > 0 else 0.0, math.inf


def _mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def _covariance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the unbiased covariance."""
    centre, other_centre = _mean(one), _mean(other)
    products = ((a - centre) * (b - other_centre) for a, b in zip(one, other, strict=True))
    return math.fsum(products) / (len(one) - 1)
