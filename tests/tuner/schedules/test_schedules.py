"""Every schedule against torch's own class, step by step; analytic values where torch has no class."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fusetune.tuner.schedules.table import SCHEDULES, Schedule, build_momentum, build_schedule, check_schedule

PEAK = 0.4  # a base_lr that is not 1, so that an absolute value cannot pass for a multiplier
OF_STEP = [name for name, schedule in SCHEDULES.items() if schedule.follows == "step"]
WITH_MOMENTUM = [name for name, schedule in SCHEDULES.items() if schedule.momentum is not None]

MakeScheduler = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def torch_history(make: MakeScheduler, steps: int) -> tuple[list[float], list[float]]:
    """Step torch's scheduler and read its learning rate and momentum before every step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK, momentum=0.9)
    rates, momenta = [], []
    with warnings.catch_warnings():
        # SequentialLR warns of its own way of calling the schedulers it is made of.
        warnings.simplefilter("ignore", UserWarning)
        scheduler = make(optimizer)
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            scheduler.step()
    return rates, momenta


def assert_equal_histories(ours: list[float], theirs: list[float]) -> None:
    """Compare step by step; the absolute part is for zeros, which torch's recursions reach only roughly."""
    for step, (mine, torchs) in enumerate(zip(ours, theirs, strict=True)):
        assert mine == pytest.approx(torchs, rel=1e-12, abs=1e-14), f"step {step}"


def cyclic(optimizer: torch.optim.Optimizer, min_factor: float, **arguments: object) -> lr_scheduler.CyclicLR:
    """Make torch's CyclicLR with our meaning of min_factor."""
    return lr_scheduler.CyclicLR(optimizer, base_lr=min_factor * PEAK, max_lr=PEAK, **arguments)  # type: ignore[arg-type]


# name, parameters of the spec, torch's class for 400 steps of 20 to an epoch
CASES: list[tuple[str, dict[str, object], MakeScheduler]] = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ("step", {}, lambda o: lr_scheduler.StepLR(o, 134)),
    ("step", {"every_epochs": 1.5, "gamma": 0.7}, lambda o: lr_scheduler.StepLR(o, 30, gamma=0.7)),
    ("multistep", {}, lambda o: lr_scheduler.MultiStepLR(o, [200, 300])),
    (
        "multistep",
        {"milestones_epochs": [1, 2.5, 19], "gamma": 0.3},
        lambda o: lr_scheduler.MultiStepLR(o, [20, 50, 380], gamma=0.3),
    ),
    ("exponential", {"gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8 ** (1 / 20))),
    ("polynomial", {}, lambda o: lr_scheduler.PolynomialLR(o, 400)),
    ("polynomial", {"power": 2.5}, lambda o: lr_scheduler.PolynomialLR(o, 400, power=2.5)),
    ("linear", {}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 400)),
    (
        "linear",
        {"start_factor": 0.2, "end_factor": 0.9},
        lambda o: lr_scheduler.LinearLR(o, 0.2, 0.9, 400),
    ),
    ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, 400)),
    ("cosine", {"min_factor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 400, eta_min=0.1 * PEAK)),
    ("cosine-restarts", {}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 58, 2)),
    (
        "cosine-restarts",
        {"first_epochs": 1, "mult": 1, "min_factor": 0.1},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 20, 1, eta_min=0.1 * PEAK),
    ),
    (
        "cosine-restarts",
        {"first_epochs": 0.5, "mult": 3},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 3),
    ),
    ("triangular", {}, lambda o: cyclic(o, 0.25, step_size_up=50)),
    (
        "triangular",
        {"up_epochs": 1, "down_epochs": 3, "min_factor": 0.0},
        lambda o: cyclic(o, 0.0, step_size_up=20, step_size_down=60),
    ),
    (
        "triangular2",
        {"up_epochs": 1.5, "min_factor": 0.1},
        lambda o: cyclic(o, 0.1, step_size_up=30, mode="triangular2"),
    ),
    (
        "exp-range",
        {"up_epochs": 2, "down_epochs": 1, "gamma": 0.7},
        lambda o: cyclic(
            o, 0.25, step_size_up=40, step_size_down=20, mode="exp_range", gamma=0.7 ** (1 / 20)
        ),
    ),
    ("one-cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, PEAK, 401)),
    ("one-cycle", {"three_phase": True}, lambda o: lr_scheduler.OneCycleLR(o, PEAK, 401, three_phase=True)),
    (
        "one-cycle",
        {"pct_start": 0.45, "anneal_strategy": "linear", "div_factor": 10, "final_div_factor": 100},
        lambda o: lr_scheduler.OneCycleLR(
            o, PEAK, 401, pct_start=0.45, anneal_strategy="linear", div_factor=10, final_div_factor=100
        ),
    ),
    (
        "one-cycle",
        {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.2},
        lambda o: lr_scheduler.OneCycleLR(
            o, PEAK, 401, three_phase=True, anneal_strategy="linear", pct_start=0.2
        ),
    ),
]


@pytest.mark.parametrize(("name", "parameters", "make"), CASES)
def test_multiplier_is_torchs_at_every_step(
    name: str, parameters: dict[str, object], make: MakeScheduler
) -> None:
    # torch's OneCycleLR raises beyond its last step, so the 401st step is its last.
    total_steps = 401 if name == "one-cycle" else 400
    multiplier = build_schedule(name, total_steps=total_steps, steps_per_epoch=20, **parameters)
    theirs, _ = torch_history(make, 400)
    assert_equal_histories([PEAK * multiplier(step) for step in range(400)], theirs)


@pytest.mark.parametrize(
    ("name", "parameters", "make"),
    [
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, 270)),
        ("step", {"every_epochs": 4}, lambda o: lr_scheduler.StepLR(o, 80)),
        ("polynomial", {"power": 2.0}, lambda o: lr_scheduler.PolynomialLR(o, 270, power=2.0)),
        ("triangular", {"up_epochs": 2}, lambda o: cyclic(o, 0.25, step_size_up=40, cycle_momentum=False)),
        ("one-cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, PEAK, 270, cycle_momentum=False)),
    ],
)
def test_warmup_is_torchs_linear_then_schedule(
    name: str, parameters: dict[str, object], make: MakeScheduler
) -> None:
    def warmed_up(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        main = make(optimizer)  # first: it sets the initial_lr that the warmup aims at
        rise = lr_scheduler.LinearLR(optimizer, 0.05, 1.0, 30)
        return lr_scheduler.SequentialLR(optimizer, [rise, main], [30])

    multiplier = build_schedule(
        name, total_steps=300, steps_per_epoch=20, warmup_epochs=1.5, warmup_factor=0.05, **parameters
    )
    theirs, _ = torch_history(warmed_up, 300)
    assert_equal_histories([PEAK * multiplier(step) for step in range(300)], theirs)


@pytest.mark.parametrize(
    ("name", "parameters", "make"),
    [
        ("one-cycle", {}, lambda o: lr_scheduler.OneCycleLR(o, PEAK, 401)),
        (
            "one-cycle",
            {"base_momentum": 0.7, "max_momentum": 0.99, "three_phase": True, "anneal_strategy": "linear"},
            lambda o: lr_scheduler.OneCycleLR(
                o,
                PEAK,
                401,
                base_momentum=0.7,
                max_momentum=0.99,
                three_phase=True,
                anneal_strategy="linear",
            ),
        ),
        ("triangular", {"up_epochs": 2}, lambda o: cyclic(o, 0.25, step_size_up=40)),
        (
            "triangular2",
            {"up_epochs": 1, "down_epochs": 2, "base_momentum": 0.5, "max_momentum": 0.95},
            lambda o: cyclic(
                o,
                0.25,
                step_size_up=20,
                step_size_down=40,
                mode="triangular2",
                base_momentum=0.5,
                max_momentum=0.95,
            ),
        ),
        (
            "exp-range",
            {"up_epochs": 1, "gamma": 0.8},
            lambda o: cyclic(o, 0.25, step_size_up=20, mode="exp_range", gamma=0.8 ** (1 / 20)),
        ),
    ],
)
def test_cycled_momentum_is_torchs_at_every_step(
    name: str, parameters: dict[str, object], make: MakeScheduler
) -> None:
    momentum = build_momentum(name, total_steps=401, steps_per_epoch=20, cycle_momentum=True, **parameters)
    assert momentum is not None
    _, theirs = torch_history(make, 400)
    assert_equal_histories([momentum(step) for step in range(400)], theirs)


def test_momentum_is_highest_during_warmup() -> None:
    momentum = build_momentum(
        "one-cycle", total_steps=50, steps_per_epoch=10, cycle_momentum=True, warmup_epochs=1
    )
    assert momentum is not None
    assert [momentum(step) for step in range(11)] == [0.95] * 11
    assert momentum(12) < 0.95


@pytest.mark.parametrize("name", OF_STEP)
def test_momentum_stays_unless_asked(name: str) -> None:
    assert build_momentum(name, total_steps=40, steps_per_epoch=10) is None


def test_exponential_meets_torch_stepped_once_an_epoch() -> None:
    multiplier = build_schedule("exponential", total_steps=100, steps_per_epoch=10, gamma=0.6)
    theirs, _ = torch_history(lambda o: lr_scheduler.ExponentialLR(o, 0.6), 10)
    assert_equal_histories([PEAK * multiplier(10 * epoch) for epoch in range(10)], theirs)


def test_inverse_sqrt_with_equal_warmup_is_the_transformers() -> None:
    """min(step^-1/2, step warmup^-3/2), scaled to a peak of 1 (Vaswani et al. 2017, equation 3)."""
    warmup = 40
    multiplier = build_schedule(
        "inverse-sqrt",
        total_steps=1000,
        steps_per_epoch=10,
        timescale_epochs=4,
        warmup_epochs=4,
        warmup_factor=0,
    )
    for step in range(1, 1000):
        expected = math.sqrt(warmup) * min(step**-0.5, step * warmup**-1.5)
        assert multiplier(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("sqrt", 1 - math.sqrt(0.5))]
)
def test_warmup_stable_decay_rises_stays_and_falls(shape: str, halfway: float) -> None:
    multiplier = build_schedule(
        "warmup-stable-decay",
        total_steps=110,
        steps_per_epoch=10,
        warmup_epochs=1,
        warmup_factor=0.0,
        decay_fraction=0.4,
        decay_shape=shape,
        min_factor=0.1,
    )
    assert [multiplier(step) for step in (0, 5)] == [0.0, 0.5]
    assert {multiplier(step) for step in range(10, 71)} == {1.0}
    assert multiplier(90) == pytest.approx(0.1 + 0.9 * halfway, rel=1e-12)
    assert multiplier(110) == pytest.approx(0.1, rel=1e-12)


def test_warmup_stable_decay_warms_up_by_itself() -> None:
    multiplier = build_schedule("warmup-stable-decay", total_steps=100, steps_per_epoch=10)
    assert multiplier(0) == 0.01
    assert multiplier(4) < 1.0
    assert multiplier(5) == 1.0


def test_no_cycle_begins_in_the_last_steps_by_default() -> None:
    for total_steps in range(1, 300):
        peaks = [
            step
            for step in range(1, total_steps)
            if build_schedule("cosine-restarts", total_steps=total_steps, steps_per_epoch=10)(step) == 1.0
        ]
        assert len(peaks) <= 2


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "one-cycle", "warmup-stable-decay"])
def test_last_value_is_kept_after_the_end(name: str) -> None:
    multiplier = build_schedule(name, total_steps=60, steps_per_epoch=10)
    assert {multiplier(step) for step in range(60, 200)} == {multiplier(60)}
    assert multiplier(60) <= min(multiplier(step) for step in range(10, 60))


@pytest.mark.parametrize("name", OF_STEP)
@given(data=st.data())
def test_multiplier_lies_between_0_and_1(name: str, data: st.DataObject) -> None:
    total_steps = data.draw(st.integers(1, 2000))
    steps_per_epoch = data.draw(st.integers(1, 200))
    parameters = data.draw(valid_parameters(SCHEDULES[name]))
    parameters["warmup_epochs"] = data.draw(st.floats(0, (total_steps - 1) / steps_per_epoch / 2))
    multiplier = build_schedule(name, total_steps=total_steps, steps_per_epoch=steps_per_epoch, **parameters)
    steps = {0, 1, total_steps - 1, total_steps, 10 * total_steps} | data.draw(st.sets(st.integers(0, 10**6)))
    assert all(0.0 <= multiplier(step) <= 1.0 for step in steps)


@pytest.mark.parametrize("name", WITH_MOMENTUM)
@given(data=st.data())
def test_cycled_momentum_lies_between_its_bounds(name: str, data: st.DataObject) -> None:
    total_steps = data.draw(st.integers(1, 2000))
    momentum = build_momentum(
        name,
        total_steps=total_steps,
        steps_per_epoch=7,
        cycle_momentum=True,
        base_momentum=0.5,
        max_momentum=0.75,
        **data.draw(valid_parameters(SCHEDULES[name])),
    )
    assert momentum is not None
    assert all(0.5 <= momentum(step) <= 0.75 for step in data.draw(st.sets(st.integers(0, 10**6))))


@st.composite
def valid_parameters(draw: st.DrawFn, schedule: Schedule) -> dict[str, object]:
    """Draw a subset of the schedule's own parameters, each inside its range."""
    drawn: dict[str, object] = {}
    for name, parameter in schedule.parameters.items():
        if name.startswith("warmup") or "momentum" in name or not draw(st.booleans()):
            continue
        high = 1e3 if math.isinf(parameter.high) else parameter.high
        number = st.floats(parameter.low, high, exclude_min=parameter.low_excluded)
        drawn[name] = draw(
            {
                "number": number,
                "numbers": st.sets(number, min_size=1, max_size=5).map(sorted),
                "integer": st.integers(int(parameter.low), 5),
                "flag": st.booleans(),
                "choice": st.sampled_from(parameter.choices or ("none",)),
            }[parameter.kind]
        )
    return drawn


@pytest.mark.parametrize("name", OF_STEP)
def test_every_listed_default_may_be_written_out(name: str) -> None:
    defaults = {key: parameter.default for key, parameter in SCHEDULES[name].parameters.items()}
    written = {key: value for key, value in defaults.items() if key not in ("base_momentum", "max_momentum")}
    explicit = build_schedule(name, total_steps=97, steps_per_epoch=10, **written)
    implicit = build_schedule(name, total_steps=97, steps_per_epoch=10)
    assert [explicit(step) for step in range(97)] == [implicit(step) for step in range(97)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_parameter_of_a_function_is_listed(name: str) -> None:
    taken = set(inspect.signature(SCHEDULES[name].function).parameters)
    context = {"step", "total_steps", "steps_per_epoch", "base_lr", "mode"}
    listed = {key.replace("_epochs", "_steps") for key in SCHEDULES[name].parameters}
    assert taken - context <= listed


def test_plateau_makes_a_rule_whose_lowest_rate_is_a_multiplier() -> None:
    check_schedule("plateau", {"factor": 0.5, "patience": 1})
    rule = SCHEDULES["plateau"].function(mode="max", factor=0.5, patience=1, min_factor=0.01)
    assert (rule["factor"], rule["patience"], rule["mode"], rule["min_factor"]) == (0.5, 1, "max", 0.01)
    assert "min_lr" not in rule


def test_plateau_defaults_are_torchs() -> None:
    signature = inspect.signature(lr_scheduler.ReduceLROnPlateau).parameters
    for name in ("factor", "patience", "threshold", "cooldown"):
        assert SCHEDULES["plateau"].parameters[name].default == signature[name].default


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cosin", {}, r"schedule: unknown 'cosin'; known: constant, .*Did you mean 'cosine'\?"),
        ("step", {"gama": 0.1}, r"schedule step: unknown 'gama'; known: every_epochs, gamma, .*'gamma'\?"),
        ("constant", {"cycle_momentum": True}, r"schedule constant: unknown 'cycle_momentum'"),
        ("step", {"gamma": "x"}, r"schedule step: gamma: 'x' is not a number; known: \(0, 1\]"),
        ("step", {"gamma": True}, r"gamma: True is not a number"),
        ("step", {"gamma": None}, r"gamma: None is not a number"),
        ("step", {"gamma": 0.0}, r"gamma: 0.0 is out of range; known: \(0, 1\]"),
        ("step", {"gamma": math.nan}, r"gamma: nan is out of range"),
        ("step", {"every_epochs": math.inf}, r"every_epochs: inf is out of range; known: \(0, inf\)"),
        ("multistep", {"milestones_epochs": 3}, r"3 is not a list of numbers"),
        ("multistep", {"milestones_epochs": []}, r"\[\] is not a list of numbers"),
        ("multistep", {"milestones_epochs": [3, 2]}, r"\[3, 2\] does not increase"),
        ("multistep", {"milestones_epochs": [0, 2]}, r"0 is out of range"),
        ("cosine-restarts", {"mult": 1.5}, r"mult: 1.5 is not an integer; known: \[1, inf\)"),
        ("one-cycle", {"anneal_strategy": "cosine"}, r"unknown 'cosine'; known: cos, linear"),
        ("one-cycle", {"three_phase": 1}, r"three_phase: 1 is not a flag"),
        ("one-cycle", {"base_momentum": 0.8}, r"base_momentum: has no effect by itself"),
        ("triangular", {"cycle_momentum": True, "base_momentum": 0.95}, r"0.95 is above max_momentum, 0.9"),
        ("plateau", {"factor": 1.0}, r"factor: 1.0 is out of range; known: \(0, 1\)"),
    ],
)
def test_wrong_names_and_values_say_what_is_known(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_schedule(name, parameters)


def test_warmup_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup takes 20 steps; the training has 20"):
        build_schedule("cosine", total_steps=20, steps_per_epoch=10, warmup_epochs=2)


def test_plateau_is_not_a_function_of_the_step() -> None:
    with pytest.raises(ValueError, match="follows the metric"):
        build_schedule("plateau", total_steps=20, steps_per_epoch=10)


def test_negative_step_and_empty_training_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        build_schedule("cosine", total_steps=20, steps_per_epoch=10)(-1)
    with pytest.raises(ValueError, match="total_steps is 0"):
        build_schedule("cosine", total_steps=0, steps_per_epoch=10)


def test_schedules_do_without_torch() -> None:
    code = "import sys, fusetune.tuner.schedules.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [(0.5, 1, 1), (0.1, 1, 1), (2.5, 1, 3), (0.5, 5, 3), (1.5, 1, 2), (0.25, 8, 2), (0, 8, 0)],
)
def test_a_warmup_that_is_asked_for_is_never_rounded_away_and_halves_go_up(
    epochs: float, steps_per_epoch: int, steps: int
) -> None:
    lr = build_schedule(
        "constant",
        total_steps=20,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=epochs,
        warmup_factor=0.0,
    )
    assert [lr(step) < 1 for step in range(20)] == [True] * steps + [False] * (20 - steps)


def test_other_lengths_round_halves_up_too() -> None:
    lr = build_schedule("step", total_steps=10, steps_per_epoch=1, every_epochs=2.5, gamma=0.1)
    assert [round(lr(step), 6) for step in (2, 3, 5, 6)] == [1.0, 0.1, 0.1, 0.01]
