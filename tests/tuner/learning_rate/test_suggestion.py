"""What is read off the curves of a sweep, on curves whose shape is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusetune.tuner.learning_rate.curve import Curve, DivergenceWatch, smoothed, smoothed_both_ways
from fusetune.tuner.learning_rate.suggestion import suggest


def falling(
    lrs: list[float], middle: float = 0.05, steepness: float = 2.0, explosion: float = 3.0
) -> list[float]:
    """A loss that falls from 2.3 to 0.3 around `middle` and rises far above it."""
    return [2.3 - 2 / (1 + (middle / lr) ** steepness) + (lr / explosion) ** 4 for lr in lrs]


def rates(steps: int = 100) -> list[float]:
    return [float(lr) for lr in np.geomspace(1e-7, 10, steps)]


def test_smoothing_is_a_weighted_mean_in_float64() -> None:
    losses = np.random.default_rng(0).normal(2, 1, 50)
    place = np.arange(50)
    back = [np.average(losses[: i + 1], weights=0.7 ** (i - place[: i + 1])) for i in range(50)]
    both = [np.average(losses, weights=0.7 ** abs(place - i)) for i in range(50)]
    assert smoothed(losses.tolist()) == pytest.approx(back)
    assert smoothed_both_ways(losses) == pytest.approx(both)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_any_loss_that_is_not_finite_has_diverged_at_once(bad: float) -> None:
    assert DivergenceWatch().diverged(bad)
    watch = DivergenceWatch()
    assert not watch.diverged(1.0)
    assert watch.diverged(bad)


def test_noise_and_a_steady_fall_do_not_diverge() -> None:
    noise = np.random.default_rng(1).normal(0, 0.3, 400)
    for level in (2.3, 0.0, -5.0):
        watch = DivergenceWatch()
        assert not any(watch.diverged(level + value) for value in noise)
    watch = DivergenceWatch()
    assert not any(watch.diverged(math.exp(-step / 20)) for step in range(300))


def test_a_loss_that_rises_by_its_own_height_has_diverged() -> None:
    watch = DivergenceWatch()
    losses = [2.3] * 20 + [0.5] * 20 + [9.0] * 20
    first = next(index for index, loss in enumerate(losses) if watch.diverged(loss))
    assert 40 <= first <= 43


def test_a_model_that_is_a_hundred_times_as_sensitive_gets_a_hundredth_of_the_rate() -> None:
    lrs = rates()
    for normalised in (False, True):
        high, low = (
            suggest(
                [Curve(lrs, falling(lrs, 0.05 * scale, explosion=3 * scale), diverged=False)],
                normalised=normalised,
            ).lr
            for scale in (1.0, 0.01)
        )
        assert high is not None
        assert low == pytest.approx(high / 100, rel=0.1)


def test_a_sudden_fall_leaves_less_room_than_a_wide_one() -> None:
    lrs = rates()
    wide, sudden = (suggest([Curve(lrs, falling(lrs, steepness=s), diverged=False)]).lr for s in (1.0, 6.0))
    assert wide is not None
    assert sudden is not None
    assert sudden < wide


def test_adams_rate_sinks_with_the_depth_of_a_shallow_fall() -> None:
    lrs = rates()
    # Losses above a floor fall at the same rates, by a smaller part of the 9.2 and 18.4 that they begin with.
    shallow, shallower = (
        suggest(
            [Curve(lrs, [floor + loss for loss in falling(lrs, explosion=100)], diverged=False)],
            normalised=True,
        ).lr
        for floor in (6.9, 16.1)
    )
    assert shallow is not None
    assert shallower == pytest.approx(shallow / 2)


@pytest.mark.parametrize("deepest", [0.1, 0.9, 1.1])
def test_adams_rate_is_where_a_third_of_the_untrained_loss_is_gone(deepest: float) -> None:
    # A straight line in log lr, which smoothing leaves as it is: a share p of the fall is made at 10^(4 p - 4).
    lrs = rates()
    fallen = np.clip((np.log10(lrs) + 4) / 4, 0, 1)
    losses = (2.3 - (2.3 - deepest) * fallen).tolist()
    expected = 10 ** (4 * min(max(0.35 * 2.3 / (2.3 - deepest), 0.5), 0.75) - 4)
    found = suggest([Curve(lrs, losses, diverged=False)], normalised=True)
    assert found.lr == pytest.approx(expected, rel=0.05)


def test_an_explosion_right_after_a_shallow_fall_does_not_hide_it() -> None:
    # A deep CNN leaves its plateau, explodes and is dead, all within ten steps: the height of the peak says nothing.
    lrs = rates()
    fall = [2.3 - 0.3 / (1 + (0.1 / lr) ** 3) for lr in lrs]
    noise = np.random.default_rng(3).normal(0, 0.01, len(lrs))

    def with_peak(height: float) -> list[float]:
        losses = [loss if lr < 0.3 else 2.31 for loss, lr in zip(fall, lrs, strict=True)]
        losses[sum(lr < 0.3 for lr in lrs)] = height
        return (np.array(losses) + noise).tolist()

    low, high = (suggest([Curve(lrs, with_peak(height), diverged=False)]) for height in (2.5, 1000.0))
    assert low.lr is not None
    assert high.lr == low.lr
    assert "for its noise" not in high.reason
    assert suggest([Curve(lrs, [*with_peak(2.5)[:-1], math.inf], diverged=True)]).lr == pytest.approx(
        low.lr, rel=1e-3
    )


def test_the_usual_rate_draws_suggestions_to_it_by_a_factor_of_two_at_most() -> None:
    curves = [Curve(rates(), falling(rates()), diverged=False)]
    free = suggest(curves).lr
    assert free is not None
    for usual in (free, 3 * free, free / 3):
        assert suggest(curves, usual_lr=usual).lr == pytest.approx(free * (usual / free) ** 0.3)
    assert suggest(curves, usual_lr=1e6 * free).lr == pytest.approx(2 * free)
    drawn = suggest(curves, usual_lr=1e-6 * free)
    assert drawn.lr == pytest.approx(free / 2)
    assert "towards the usual" in drawn.reason


def test_a_fall_that_hardly_shows_in_the_noise_makes_careful() -> None:
    lrs = rates()
    noise = np.random.default_rng(2).normal(0, 0.4, len(lrs))
    for normalised in (False, True):
        clear, hardly = (
            suggest(
                [Curve(lrs, (falling(lrs) + part * noise).tolist(), diverged=False)], normalised=normalised
            )
            for part in (0.01, 1.0)
        )
        assert clear.lr is not None
        assert hardly.lr is not None
        assert hardly.lr < 0.8 * clear.lr
        assert "for its noise" in hardly.reason
        assert "for its noise" not in clear.reason


def test_sgd_that_jumps_about_while_it_falls_gets_less_and_adam_as_much() -> None:
    lrs = rates()
    jumps = np.random.default_rng(4).normal(0, 1, len(lrs)) * (np.array(lrs) > 0.01)

    def suggested(deviation: float, normalised: bool) -> float | None:
        losses = np.array(falling(lrs, steepness=1.5)) + 0.02 * np.sin(np.arange(len(lrs)))
        return suggest(
            [Curve(lrs, (losses + deviation * jumps).tolist(), diverged=False)], normalised=normalised
        ).lr

    calm, rough = suggested(0.0, False), suggested(0.6, False)
    assert calm is not None
    assert rough is not None
    assert rough < 0.7 * calm
    assert suggested(0.6, True) == pytest.approx(suggested(0.0, True), rel=0.3)


def test_a_second_fall_after_a_rise_counts_for_nothing() -> None:
    lrs = rates()
    once = falling(lrs)
    twice = [loss if lr < 5 else 0.1 for lr, loss in zip(lrs, once, strict=True)]
    assert max(once) > 3.5
    first, second = (suggest([Curve(lrs, losses, diverged=False)]).lr for losses in (once, twice))
    assert first is not None
    assert second is not None
    # Taken to the second fall, at rates above 5, the suggestion would be 2.5.
    assert first / 1.5 < second < 1.5 * first


def test_the_interval_lies_within_the_sweep_and_holds_the_suggestion() -> None:
    lrs = rates()
    curves = [Curve(lrs, falling(lrs, middle), diverged=False) for middle in (0.001, 0.05, 2.0)]
    found = suggest(curves)
    assert found.lr is not None
    assert found.interval is not None
    assert lrs[0] <= found.interval[0] <= found.lr <= found.interval[1] <= lrs[-1]
    assert any("repeats disagree" in warning for warning in found.warnings)


def test_a_loss_that_only_rises_gives_no_suggestion() -> None:
    lrs = rates()
    found = suggest([Curve(lrs, [1 + lr for lr in lrs], diverged=False)])
    assert found.lr is None
    assert "never falls" in found.reason


def test_normalised_steps_stay_below_two_fifths_of_the_weights_size() -> None:
    curves = [Curve(rates(), falling(rates()), diverged=False)]
    free = suggest(curves, normalised=True).lr
    assert free is not None
    bounded = suggest(curves, normalised=True, weight_size=free)
    assert bounded.lr == pytest.approx(0.4 * free)
    assert "root mean square" in bounded.reason
    assert suggest(curves, normalised=True, weight_size=3 * free).lr == free
    assert suggest(curves, weight_size=1e-3 * free).lr == suggest(curves).lr


def test_where_a_bound_decides_the_reason_says_so_and_there_is_no_interval() -> None:
    curves = [Curve(rates(), falling(rates(), middle), diverged=False) for middle in (0.03, 0.05, 0.08)]
    bounded = suggest(curves, normalised=True, weight_size=1e-3)
    assert bounded.lr == pytest.approx(0.4e-3)
    assert bounded.interval is None
    assert bounded.warnings == ()
    assert "a bound decides" in bounded.reason
    assert suggest(curves, normalised=True, weight_size=1e3).interval is not None


# Models that begin with guesses worse than blind ones.


def in_two_stages(untrained: float, blind: float, learned: float, noise: float, seed: int) -> list[float]:
    """A loss that falls to a blind guess's around 0.001 and on around 0.3, and leaves its lowest level above 1."""
    random = np.random.default_rng(seed)
    return [
        untrained
        - (untrained - blind) / (1 + (0.001 / lr) ** 2)
        - (blind - learned) / (1 + (0.3 / lr) ** 2)
        + 0.3 * (lr / 2) ** 3
        + random.normal(0, noise)
        for lr in rates()
    ]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("learned", [0.7, 1.1])
def test_a_fall_to_a_blind_guess_is_none_to_learn_from(learned: float, normalised: bool) -> None:
    curves = [
        Curve(rates(), in_two_stages(1.5, 1.1, learned, 0.05, seed), diverged=False) for seed in range(3)
    ]
    found = suggest(curves, normalised=normalised, blind_loss=1.1)
    assert found.lr is not None
    assert found.edge is not None
    assert 0.03 < found.lr < 0.3 < found.edge < 3
    assert found.lr == pytest.approx(0.1 * found.edge, rel=0.01)
    assert found.interval is not None
    assert found.interval[1] < 10 * found.interval[0]
    assert "a blind guess has 1.1" in found.reason
    warned = any("does not clearly fall below a blind guess's, 1.1" in warning for warning in found.warnings)
    assert warned == (learned == 1.1)
    # Taken for all there is, the first fall gives a rate at which nothing is learned.
    if learned == 1.1:
        misled = suggest(curves, normalised=normalised).lr
        assert misled is not None
        assert misled < 0.01


def test_a_model_that_begins_like_a_blind_guess_is_judged_as_if_none_were_known() -> None:
    curves = [Curve(rates(), falling(rates()), diverged=False)]
    for blind in (2.3, 2.0, 5.0):
        assert suggest(curves, blind_loss=blind) == suggest(curves)
    assert suggest(curves, blind_loss=1.8) != suggest(curves)


def test_the_usual_rate_and_the_weights_size_count_after_a_bad_beginning_too() -> None:
    curves = [Curve(rates(), in_two_stages(1.5, 1.1, 0.9, 0.01, 0), diverged=False)]
    free = suggest(curves, blind_loss=1.1).lr
    assert free is not None
    assert suggest(curves, blind_loss=1.1, usual_lr=1e-6).lr == pytest.approx(free / 2)
    assert suggest(curves, blind_loss=1.1, normalised=True, weight_size=0.1).lr == pytest.approx(0.04)


@pytest.mark.parametrize("learned", [0.7, 1.1])
def test_an_edge_that_the_sweep_does_not_reach_makes_no_interval(learned: float) -> None:
    lrs = rates()[:85]  # up to 0.6
    curves = [
        Curve(lrs, in_two_stages(1.5, 1.1, learned, 0.01, seed)[:85], diverged=False) for seed in range(3)
    ]
    found = suggest(curves, blind_loss=1.1)
    assert found.lr is not None
    if learned == 0.7:
        assert found == suggest(curves)
    else:
        assert found.lr == pytest.approx(0.1 * lrs[-1], rel=0.1)
        assert found.interval is None
        assert any("sweep to a higher lr_max" in warning for warning in found.warnings)


def test_repeats_that_disagree_over_much_of_the_sweep_make_a_guess() -> None:
    curves = [Curve(rates(), falling(rates(), middle), diverged=False) for middle in (1e-4, 0.01, 1.0)]
    (warning,) = (warning for warning in suggest(curves).warnings if "disagree" in warning)
    assert "% of the sweep: the suggestion is a guess" in warning


def test_repeats_that_say_nothing_by_themselves_are_warned_of() -> None:
    curves = [Curve(rates(), in_two_stages(1.5, 1.1, 1.05, 0.3, seed), diverged=False) for seed in range(12)]
    found = suggest(curves, blind_loss=1.1)
    assert found.lr is not None
    assert found.interval is None
    assert any("no two repeats" in warning for warning in found.warnings)
