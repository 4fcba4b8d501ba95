"""The model of the curves, against the equations of a Gaussian process written out in full."""

from __future__ import annotations

import numpy as np
import pytest

from fusetune.tuner.search.model import (
    CurveModel,
    Kernel,
    Observations,
    adapted_noise,
    adapted_reach,
    configuration_correlation,
    gap_scale,
    paired_correlation,
)

POINTS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
IS_NAME = np.array([False, True])
REACH = np.array([1.5, 0.6])
OBSERVATIONS = Observations(
    trial=np.array([0, 0, 1, 2, 2, 2]),
    share=np.array([0.25, 0.5, 0.25, 0.25, 0.5, 1.0]),
    z=np.array([0.3, 0.9, -0.2, 0.5, 1.0, 1.4]),
    prior=np.array([[0.1, 0.3], [0.5, 0.2], [-0.4, 0.1], [0.2, -0.5], [0.6, -0.2], [1.0, 0.4]]),
)


def matern(distance: float) -> float:
    return float((1 + 5**0.5 * distance + 5 / 3 * distance**2) * np.exp(-(5**0.5) * distance))


def plain_covariance(
    kernel: Kernel, a: tuple[int, float, list[float]], b: tuple[int, float, list[float]], points: np.ndarray
) -> float:
    """The covariance of z of two (trial, share, terms of the prior), noise left out, term by term."""
    x, y = points[a[0]], points[b[0]]
    parts = [matern(abs(x[0] - y[0]) / REACH[0]), 1.0 if x[1] == y[1] else REACH[1]]
    apart = abs(a[1] - b[1])
    smooth = kernel.smooth * (0.1 * sum(parts) / 2 + 0.9 * parts[0] * parts[1])
    total = smooth * matern(apart / kernel.epochs) + kernel.offset * matern(apart / 1.5)
    total += kernel.luck * (a[0] == b[0]) * matern(apart / kernel.luck_epochs)
    return total + kernel.prior**2 * a[2][0] * b[2][0] + kernel.deviations**2 * a[2][1] * b[2][1]


@pytest.mark.parametrize("with_prior", [False, True])
def test_prediction_is_the_textbook_posterior(with_prior: bool) -> None:
    kernel = Kernel()
    prior = OBSERVATIONS.prior if with_prior else np.zeros((6, 2))
    assert prior is not None
    observed = Observations(
        OBSERVATIONS.trial, OBSERVATIONS.share, OBSERVATIONS.z, prior if with_prior else None
    )
    within = configuration_correlation(REACH, IS_NAME, POINTS, POINTS)
    model = CurveModel(kernel, within, observed)
    points = np.vstack([POINTS, [[0.5, 1.0]]])
    asked_prior = np.array([[0.9, -0.3], [0.8, 0.6]]) if with_prior else np.zeros((2, 2))
    across = configuration_correlation(REACH, IS_NAME, points[[1, 3]], POINTS)
    mean, deviation = model.predict(across, np.array([1, -1]), prior=asked_prior if with_prior else None)

    rows = list(zip(observed.trial.tolist(), observed.share.tolist(), prior.tolist(), strict=True))
    noise = kernel.noise + kernel.early_noise * (1 - observed.share) + 1e-6
    covariance = np.array([[plain_covariance(kernel, a, b, points) for b in rows] for a in rows])
    inverse = np.linalg.inv(covariance + np.diag(noise))
    offset = (observed.z - kernel.prior_mean * prior[:, 0]).mean()
    for index, asked in enumerate([(1, 1.0, asked_prior[0].tolist()), (3, 1.0, asked_prior[1].tolist())]):
        k = np.array([plain_covariance(kernel, asked, row, points) for row in rows])
        expected = offset + kernel.prior_mean * asked[2][0]
        expected += k @ inverse @ (observed.z - kernel.prior_mean * prior[:, 0] - offset)
        variance = plain_covariance(kernel, asked, asked, points) - k @ inverse @ k
        assert mean[index] == pytest.approx(expected, rel=1e-9)
        assert deviation[index] == pytest.approx(variance**0.5, rel=1e-6)


def test_likelihood_is_that_of_the_normal_distribution() -> None:
    from scipy.stats import multivariate_normal

    kernel = Kernel()
    observed = Observations(OBSERVATIONS.trial, OBSERVATIONS.share, OBSERVATIONS.z)
    model = CurveModel(kernel, configuration_correlation(REACH, IS_NAME, POINTS, POINTS), observed)
    rows = [(t, s, [0.0, 0.0]) for t, s in zip(observed.trial.tolist(), observed.share.tolist(), strict=True)]
    covariance = np.array([[plain_covariance(kernel, a, b, POINTS) for b in rows] for a in rows])
    covariance += np.diag(kernel.noise + kernel.early_noise * (1 - observed.share) + 1e-6)
    full = multivariate_normal(np.full(6, observed.z.mean()), covariance).logpdf(observed.z)
    assert model.log_likelihood == pytest.approx(full + 3 * np.log(2 * np.pi), rel=1e-9)


def test_scale_gives_equal_steps_to_equal_factors_of_the_gap_and_leads_back() -> None:
    scale = gap_scale(np.array([0.2, 0.5, 0.9, 0.95]))
    z = scale.z(np.array([0.15, 0.55, 0.75]))  # gaps of 0.8, 0.4 and 0.2
    assert z[0] < z[1] < z[2]
    assert z[1] - z[0] == pytest.approx(z[2] - z[1], rel=0.06)
    assert [scale.y(float(value)) for value in z] == pytest.approx([0.15, 0.55, 0.75])


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.5], [-3.0, -0.1], [0.0, -1e-30], [1e9, 1e9 + 1]])
def test_scale_is_finite_whatever_the_metric(values: list[float]) -> None:
    scale = gap_scale(np.array(values))
    assert np.isfinite(scale.z(np.array(values))).all()


def test_thinning_keeps_the_first_and_the_last_epoch_of_each_training() -> None:
    many = Observations(np.repeat([0, 1, 2], 5), np.tile(np.arange(1, 6) / 5, 3), np.arange(15.0))
    few = many.thinned(6)
    assert few.trial.tolist() == [0, 0, 1, 1, 2, 2]
    assert few.z.tolist() == [0, 4, 5, 9, 10, 14]
    assert many.thinned(15) is many


def test_thinning_keeps_the_best_training_however_long_ago_it_was() -> None:
    z = np.zeros(100)
    z[3] = 2.0
    few = Observations(np.arange(100), np.ones(100), z).thinned(20)
    assert len(few.z) <= 20
    assert 3 in few.trial
    assert {97, 98, 99} <= set(few.trial.tolist())
    assert (np.diff(few.trial) > 0).all()


@pytest.mark.parametrize(("spread", "more"), [(1.0, True), (0.02, False)])
def test_adapting_finds_how_far_chance_reaches(spread: float, more: bool) -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.random(40) * 2, np.zeros(40)], axis=1)
    within = configuration_correlation(REACH, IS_NAME, points, points)
    z = np.sin(2 * points[:, 0]) + rng.normal(0, spread, 40)
    observed = Observations(np.arange(40), np.ones(40), z)
    kernel, factor = Kernel(), 1.0
    for _ in range(4):
        factor = adapted_noise(kernel, factor, within, observed)
    assert (factor > 2) if more else (factor < 0.5)
    assert kernel.noisier(factor).luck == kernel.luck * factor


def test_adapting_finds_that_a_name_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.random(40) * 2, rng.integers(0, 2, 40)], axis=1)
    kernel = Kernel()
    usual = np.array([1.2, 0.2])
    observed = Observations(np.arange(40), np.ones(40), np.sin(2 * points[:, 0]))

    def within(reach: np.ndarray) -> np.ndarray:
        return configuration_correlation(reach, IS_NAME, points, points)

    reach = adapted_reach(kernel, IS_NAME, within, usual, usual, observed)
    assert reach is not None
    assert reach[1] > 0.3


def test_the_correlation_of_pairs_is_the_diagonal_of_that_of_all() -> None:
    others = POINTS[::-1].copy()
    whole = configuration_correlation(REACH, IS_NAME, POINTS, others)
    np.testing.assert_array_equal(paired_correlation(REACH, IS_NAME, POINTS, others), np.diag(whole))
