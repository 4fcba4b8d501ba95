"""The search: budget, pausing, failures and memory, on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fusetune.tuner.search.budget import search
from fusetune.tuner.search.decision import Chooser
from fusetune.tuner.search.prior import Prior
from fusetune.tuner.search.searcher import Searcher

SPACE: dict[str, Any] = {
    "lr": [0.001, 0.01, 0.1, 1.0],
    "optimizer": ["sgd", "adam"],
    "schedule": ["constant", "one-cycle"],
}
EPOCHS = 4


def accuracy(config: dict[str, Any], epoch: int) -> float:
    """Curves with one best configuration (lr 0.1, sgd, one-cycle), which leads only in the last epoch."""
    top = 0.95 - 0.1 * abs(math.log10(config["lr"]) + 1) - 0.05 * (config["optimizer"] == "adam")
    if config["schedule"] == "one-cycle":
        return top - 0.12 * (EPOCHS - epoch) / EPOCHS
    return top - 0.03 - 0.02 * (EPOCHS - epoch) / EPOCHS


class Trainings:
    """Makes generators, and knows how many epochs each made and which were closed."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.open = 0
        self.most_open = 0
        self.begun: list[dict[str, Any]] = []

    def __call__(self, config: dict[str, Any], seed: int) -> Iterator[float]:
        self.begun.append(config)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for epoch in range(1, EPOCHS + 1):
                self.epochs.append((repr(config), epoch))
                yield accuracy(config, epoch)
        finally:
            self.open -= 1


@pytest.mark.parametrize("budget", [1, 5, 17, 30])
def test_budget_is_spent_and_never_exceeded(budget: int) -> None:
    trainings = Trainings()
    result = search(SPACE, trainings, max_epochs=EPOCHS, budget_epochs=budget, prior=None)
    assert len(trainings.epochs) == result.epochs_used == budget
    assert sum(trial.epochs for trial in result.trials) == budget


def test_search_ends_when_everything_is_trained() -> None:
    result = search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=1000, prior=None)
    assert result.epochs_used <= 64
    assert all(trial.status in ("finished", "dropped") for trial in result.trials)


def test_no_training_makes_an_epoch_twice_and_all_generators_are_closed() -> None:
    trainings = Trainings()
    search(SPACE, trainings, max_epochs=EPOCHS, budget_epochs=40, prior=None)
    assert len(set(trainings.epochs)) == len(trainings.epochs) == 40
    assert trainings.open == 0


def test_trainings_are_paused_and_the_late_bloomer_is_found() -> None:
    result = search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=40, prior=None)
    assert result.best is not None
    assert result.best.config == {"lr": 0.1, "optimizer": "sgd", "schedule": "one-cycle"}
    assert (result.best.value, result.best.epoch) == (pytest.approx(0.95), EPOCHS)
    assert any(decision.action == "resume" for decision in result.log)


def test_minimizing_the_negative_takes_the_same_decisions() -> None:
    def negative(config: dict[str, Any], seed: int) -> Iterator[float]:
        for epoch in range(1, EPOCHS + 1):
            yield -accuracy(config, epoch)

    up = search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=30, prior=None)
    down = search(SPACE, negative, max_epochs=EPOCHS, budget_epochs=30, maximize=False, prior=None)
    assert [trial.config for trial in up.trials] == [trial.config for trial in down.trials]
    assert up.best is not None
    assert down.best is not None
    assert up.best.value == -down.best.value


@pytest.mark.parametrize("prior", ["shipped", None])
def test_the_same_seed_takes_the_same_decisions(prior: Any) -> None:
    runs = [
        search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=30, seed=seed, prior=prior).log
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_seed_is_handed_to_the_evaluation_and_the_configuration_is_the_callers_own() -> None:
    seen = []

    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        seen.append(seed)
        config.clear()
        yield 0.5

    result = search(SPACE, evaluate, max_epochs=1, budget_epochs=4, seed=11, prior=None)
    assert seen == [11] * 4
    assert all(set(trial.config) == set(SPACE) for trial in result.trials)


def test_a_generator_that_raises_is_a_failed_trial_with_its_reason() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        yield accuracy(config, 1)
        if config["optimizer"] == "adam":
            raise RuntimeError("cable\nunplugged")
        for epoch in range(2, EPOCHS + 1):
            yield accuracy(config, epoch)

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=60, prior=None)
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert failed
    assert all(trial.config["optimizer"] == "adam" for trial in failed)
    assert {trial.reason for trial in failed} == {"RuntimeError: cable unplugged"}
    assert result.best is not None
    assert result.best.config["optimizer"] == "sgd"


def test_what_a_failed_training_did_before_counts_no_more_than_before_a_divergence() -> None:
    def ending_badly(*, raises: bool) -> Any:
        def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
            for epoch in range(1, EPOCHS + 1):
                if config["lr"] >= 0.1 and epoch == 2:
                    if raises:
                        raise RuntimeError("no rate above 0.01")
                    yield math.nan
                yield accuracy(config, epoch)

        return evaluate

    failed, diverged = (
        search(SPACE, ending_badly(raises=raises), max_epochs=EPOCHS, budget_epochs=40, prior=None)
        for raises in (True, False)
    )
    assert any(trial.status == "failed" for trial in failed.trials)
    assert [trial.config for trial in failed.trials] == [trial.config for trial in diverged.trials]
    assert [trial.values for trial in failed.trials] == [trial.values for trial in diverged.trials]


class BadlyClosed:
    """Trainings that raise when they are closed, every one of them or the first alone."""

    def __init__(self, error: BaseException, *, all_of_them: bool = True) -> None:
        self.error = error
        self.all_of_them = all_of_them
        self.begun = self.closed = 0

    def __call__(self, config: dict[str, Any], seed: int) -> Iterator[float]:
        self.begun += 1
        try:
            for epoch in range(1, EPOCHS + 1):
                yield accuracy(config, epoch)
        finally:
            self.closed += 1
            if self.all_of_them or self.closed == 1:
                raise self.error


def test_a_generator_that_raises_when_it_is_closed_is_a_line_of_the_log_and_costs_no_trial() -> None:
    trainings = BadlyClosed(RuntimeError("cleanup\nfailed"))
    result = search(SPACE, trainings, max_epochs=EPOCHS, budget_epochs=40, prior=None)
    assert trainings.closed == trainings.begun == len(result.trials)
    assert result.best is not None
    assert result.epochs_used == 40
    sentence = "closing it raised RuntimeError: cleanup failed"
    assert all(sentence in trial.reason for trial in result.trials)
    assert sum(decision.why == sentence for decision in result.log) == len(result.trials)
    finished = next(trial for trial in result.trials if trial.status == "finished")
    assert finished.reason.startswith(f"all {EPOCHS} epochs")


def test_a_generator_that_will_not_be_closed_costs_no_trial() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        asked = False  # to end; it does so when asked again, by the garbage collector
        for epoch in range(40):
            try:
                yield accuracy(config, min(epoch + 1, EPOCHS))
            except GeneratorExit:
                if asked:
                    raise
                asked = True

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=12, prior=None)
    assert result.epochs_used == 12
    assert result.best is not None
    assert any("ignored GeneratorExit" in trial.reason for trial in result.trials)


def test_an_interrupt_while_a_generator_is_closed_is_passed_on_once_all_are() -> None:
    trainings = BadlyClosed(KeyboardInterrupt(), all_of_them=False)
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, trainings, max_epochs=EPOCHS, budget_epochs=8, prior=None)
    assert trainings.closed == trainings.begun > 1


@pytest.mark.parametrize(
    ("evaluate", "sentence"),
    [
        (None, "evaluate: a NoneType cannot be called"),
        (lambda config, seed: 0.5, "evaluate: returned a float"),
        (lambda config, seed: None, "evaluate: returned a NoneType"),
    ],
    ids=["nothing", "number", "forgotten-yield"],
)
def test_an_evaluation_that_yields_nothing_is_refused_before_it_spends_anything(
    evaluate: Any, sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=10, prior=None)


def test_an_evaluation_that_forgets_to_yield_later_on_fails_that_trial_alone() -> None:
    trainings = Trainings()

    def evaluate(config: dict[str, Any], seed: int) -> Any:
        return trainings(config, seed) if config["optimizer"] == "sgd" or not trainings.begun else 0.5

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=20, prior=None)
    reasons = {trial.reason for trial in result.trials if trial.status == "failed"}
    assert len(reasons) == 1
    assert "evaluate: returned a float" in reasons.pop()
    assert result.best is not None


def test_a_list_of_metrics_will_do() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Any:
        return [accuracy(config, epoch) for epoch in range(1, EPOCHS + 1)]

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=40, prior=None)
    assert result.best is not None
    assert result.best.value == pytest.approx(0.95)


def test_a_search_that_ends_with_budget_left_says_why() -> None:
    result = search({"lr": [0.1, 0.2]}, lambda config, seed: [0.1, 0.2], max_epochs=2, budget_epochs=100)  # type: ignore[arg-type, return-value]
    assert (result.log[-1].action, result.log[-1].trial) == ("end", None)
    assert "all 2 configurations" in result.log[-1].why
    assert str(result.log[-1]) == f"[4] end: {result.log[-1].why}"

    def too_large(config: dict[str, Any], seed: int) -> Iterator[float]:
        raise MemoryError
        yield 0.0

    space = {"batch_size": [16, 32], "width": [8]}
    with pytest.warns(RuntimeWarning, match="[12] out of memory"):
        result = search(space, too_large, max_epochs=2, budget_epochs=100, prior=None)
    assert "memory" in result.log[-1].why

    spent = search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=5, prior=None)
    assert all(decision.action != "end" for decision in spent.log)


def test_a_search_in_which_everything_fails_ends_within_its_budget_without_a_best() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        raise ValueError("no such thing")
        yield 0.0

    space = {"lr": {"low": 1e-4, "high": 1.0, "log": True}}
    with pytest.warns(RuntimeWarning, match="10 failed; the last: ValueError: no such thing") as warned:
        result = search(space, evaluate, max_epochs=3, budget_epochs=10, prior=None)
    assert result.best is None
    assert result.epochs_used == 10
    assert {trial.status for trial in result.trials} == {"failed"}
    assert str(warned[0].message) == f"search: {result.failure}"
    assert "log" not in result.failure


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_metric_that_is_not_finite_means_diverged(value: Any) -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[Any]:
        for epoch in range(1, EPOCHS + 1):
            yield value if config["lr"] == 1.0 and epoch == 2 else accuracy(config, epoch)

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=60, prior=None)
    diverged = [trial for trial in result.trials if trial.status == "diverged"]
    assert diverged
    assert all(trial.config["lr"] == 1.0 and trial.epochs == 1 for trial in diverged)
    assert str(value) in diverged[0].reason
    assert result.best is not None
    assert result.best.config["lr"] == 0.1


def test_a_search_in_which_everything_diverges_goes_on_to_the_end() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        yield math.nan

    with pytest.warns(RuntimeWarning, match="16 diverged"):
        result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=100, prior=None)
    assert result.best is None
    assert result.epochs_used == len(result.trials) == 16


def finite_below(name: str, edge: float) -> Any:
    """Trainings that diverge at once unless a factor is small."""

    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        for _ in range(EPOCHS):
            yield 0.9 if config[name] < edge else math.nan

    return evaluate


@pytest.mark.parametrize("prior", ["shipped", None])
@pytest.mark.parametrize(("low", "high", "edge"), [(0.001, 10.0, 0.05), (0.0, 10.0, 0.05), (0.01, 1e5, 1.0)])
def test_a_search_goes_on_until_something_finite_is_found(
    low: float, high: float, edge: float, prior: Any
) -> None:
    lr = {"low": low, "high": high}
    for seed in range(3):
        evaluate = finite_below("lr", edge)
        result = search({"lr": lr}, evaluate, max_epochs=4, budget_epochs=80, prior=prior, seed=seed)
        assert result.best is not None
        assert result.best.config["lr"] < edge
        assert result.failure == ""
        assert result.epochs_used == 80


@pytest.mark.parametrize(
    ("lr", "hint"),
    [
        ({"low": 0.01, "high": 100_000.0}, "lr: .* from 0.01 to 100000.0 lie above 10000. Give it log: true"),
        ({"low": 0, "high": 1000}, "Give it a low above 0 and log: true"),
    ],
)
def test_a_search_that_finds_nothing_spends_its_budget_and_says_which_range_to_give_in_decades(
    lr: dict[str, float], hint: str
) -> None:
    with pytest.warns(RuntimeWarning, match=hint):
        result = search({"lr": lr}, finite_below("lr", -1), max_epochs=4, budget_epochs=30, prior=None)
    assert (result.best, result.epochs_used, len(result.trials)) == (None, 30, 30)


def test_the_prior_s_favourites_are_given_up_where_they_diverge() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        yield 0.5 if config["lr"] == 0.0001 and config["optimizer"] == "sgd" else math.nan

    space = {
        "lr": [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0],
        "optimizer": ["sgd", "adam"],
        "width": [8, 16, 32, 64],
    }
    assert search(space, evaluate, max_epochs=2, budget_epochs=24).best is not None


def test_a_training_that_diverged_counts_as_worse_than_one_that_did_not_though_all_others_are_alike() -> None:
    space = {"lr": {"low": 0.0, "high": 1.0}}
    result = search(space, finite_below("lr", 0.5), max_epochs=EPOCHS, budget_epochs=60, prior=None)
    late = [trial.config["lr"] for trial in result.trials[16:]]
    assert late
    assert sum(lr < 0.5 for lr in late) > 0.8 * len(late)


@pytest.mark.parametrize(
    "given",
    [
        {"low": 0.999, "high": 0.99999},
        {"low": 1000.0, "high": 1000.01},
        {"low": 1.0, "high": 1.001, "log": True},
        {"low": 1, "high": 10_000},
    ],
)
def test_no_configuration_of_a_range_is_trained_twice(given: dict[str, Any]) -> None:
    width = given["high"] - given["low"]

    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        yield 1 - abs((config["b"] - given["low"]) / width - 0.7)

    result = search({"b": given}, evaluate, max_epochs=1, budget_epochs=60, prior=None)
    values = [trial.config["b"] for trial in result.trials]
    assert len(values) == len(set(values)) == 60
    assert all(given["low"] <= value <= given["high"] for value in values)
    assert result.best is not None
    assert result.best.value > 0.98


def test_a_batch_that_must_be_tiny_is_found_in_a_wide_range() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        if config["batch_size"] > 40:
            raise MemoryError
        yield 0.5

    space = {"batch_size": {"low": 1, "high": 1_000_000}}
    result = search(space, evaluate, max_epochs=1, budget_epochs=40, prior=None)
    assert result.best is not None


def test_a_generator_that_ends_early_is_a_finished_training() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        yield accuracy(config, 1)
        yield accuracy(config, 2)

    result = search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=100, prior=None)
    finished = [trial for trial in result.trials if trial.status == "finished"]
    assert finished
    assert all("ended by itself after epoch 2" in trial.reason for trial in finished)


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, which is told by its name."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("too much"),
        OutOfMemoryError("too much"),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
        ),
    ],
    ids=["python", "torch", "cpu"],
)
def test_nothing_that_needs_as_much_memory_is_tried_after_an_out_of_memory(error: Exception) -> None:
    begun: list[tuple[int, str]] = []

    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        begun.append((config["batch_size"], config["optimizer"]))
        if config["batch_size"] * (2 if config["optimizer"] == "adam" else 1) > 64:
            raise error
        for epoch in range(1, 4):
            yield (
                config["batch_size"] / 1000 + epoch / 100
            )  # larger is better: the search is drawn to the edge

    space = {
        "lr": [0.01, 0.1, 1.0],
        "batch_size": [16, 32, 64, 128, 256],
        "optimizer": ["sgd", "adam"],
    }
    result = search(space, evaluate, max_epochs=3, budget_epochs=90, prior=None)
    refused = [trial.config for trial in result.trials if trial.status == "out_of_memory"]
    for optimizer in ("sgd", "adam"):
        tried = [config["batch_size"] for config in refused if config["optimizer"] == optimizer]
        assert tried == sorted(tried, reverse=True)
        assert len(set(tried)) == len(tried), "the learning rate takes no memory: one attempt tells for all"
    assert result.best is not None
    assert result.best.config["batch_size"] == 64


def test_what_has_run_may_be_tried_again_though_the_same_was_out_of_memory_once() -> None:
    space = {"lr": [0.01, 0.1, 1.0], "batch_size": [16, 64]}
    searcher = Searcher(space, max_epochs=1)
    asked = []
    while (trial := searcher.ask()) is not None:
        asked.append(trial.config["batch_size"])
        if asked.count(64) == 2 and trial.config["batch_size"] == 64:
            searcher.fail(trial, "another process took the memory", out_of_memory=True)
        else:
            searcher.tell(trial, 0.5 + trial.config["lr"])
    assert sorted(asked) == [16, 16, 16, 64, 64, 64]


def test_no_more_trainings_wait_than_asked_for() -> None:
    trainings = Trainings()
    result = search(SPACE, trainings, max_epochs=EPOCHS, budget_epochs=40, prior=None, max_paused=3)
    assert trainings.most_open <= 4 + 8  # the first eight begin before anything is compared
    late = result.log[20:]
    assert any(decision.action == "dropped" for decision in result.log)
    assert late


def test_several_trainings_can_be_in_flight() -> None:
    searcher = Searcher(SPACE, max_epochs=EPOCHS)
    used = 0
    while used < 40:
        batch = [trial for trial in (searcher.ask() for _ in range(3)) if trial is not None]
        assert len({trial.number for trial in batch}) == len(batch)
        for trial in reversed(batch):
            searcher.tell(trial, accuracy(trial.config, trial.epochs + 1))
        used += len(batch)
    best = searcher.result().best
    assert best is not None
    assert best.config == {"lr": 0.1, "optimizer": "sgd", "schedule": "one-cycle"}


def test_a_range_is_searched_to_near_its_best() -> None:
    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        for epoch in range(1, 4):
            yield (
                1
                - (math.log10(config["lr"]) + 2.3) ** 2 / 10
                - (config["width"] - 40) ** 2 / 1e4
                - 0.1 / epoch
            )

    space = {"lr": {"low": 1e-5, "high": 1.0, "log": True}, "width": {"low": 8, "high": 128}}
    result = search(space, evaluate, max_epochs=3, budget_epochs=60, prior=None)
    assert result.best is not None
    assert abs(math.log10(result.best.config["lr"]) + 2.3) < 0.4
    assert isinstance(result.best.config["width"], int)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"max_epochs": 0}, "max_epochs: 0 must be a whole number of 1 or more"),
        ({"max_epochs": 2.5}, "max_epochs: 2.5 must be"),
        ({"budget_epochs": 0}, "budget_epochs: 0 must be"),
        ({"budget_epochs": True}, "budget_epochs: True must be"),
        ({"max_paused": 0}, "max_paused: 0 must be"),
    ],
)
def test_numbers_of_epochs_that_make_no_sense_are_refused(numbers: dict[str, Any], sentence: str) -> None:
    given = {"max_epochs": 3, "budget_epochs": 9} | numbers
    with pytest.raises(ValueError, match="must be a whole number") as error:
        search(SPACE, Trainings(), **given)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ({"seed": -1}, "seed: -1 must be a whole number of 0 or more"),
        ({"seed": None}, "seed: None must be"),
        ({"seed": True}, "seed: True must be"),
        ({"seed": 1.5}, "seed: 1.5 must be"),
        ({"prior": "x"}, "prior: 'x' is none. Give 'shipped', a Prior or None"),
        ({"prior": 3}, "prior: 3 is none"),
        ({"maximize": "false"}, "maximize: 'false' must be True or False"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_a_sentence(
    argument: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        search(SPACE, Trainings(), max_epochs=3, budget_epochs=9, **argument)


def test_the_seed_may_be_numpys() -> None:
    runs = [
        search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=20, seed=seed, prior=None).log
        for seed in (np.int64(3), 3)
    ]
    assert runs[0] == runs[1]


def test_an_interrupt_closes_all_trainings_and_is_passed_on() -> None:
    trainings = Trainings()

    def evaluate(config: dict[str, Any], seed: int) -> Iterator[float]:
        for made, value in enumerate(trainings(config, seed)):
            if len(trainings.epochs) == 10:
                raise KeyboardInterrupt
            yield value + 0 * made

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, evaluate, max_epochs=EPOCHS, budget_epochs=40, prior=None)
    assert trainings.open == 0


def test_the_log_says_what_was_dropped_and_why() -> None:
    result = search(SPACE, Trainings(), max_epochs=EPOCHS, budget_epochs=64, prior=None)
    dropped = [trial for trial in result.trials if trial.status == "dropped"]
    assert all(
        "predicted to end at" in trial.reason or "least promising" in trial.reason for trial in dropped
    )
    assert [decision.epochs_used for decision in result.log] == sorted(d.epochs_used for d in result.log)


def known(values: np.ndarray) -> Prior:
    """A prior about SPACE's factors, from final values, the same at every epoch."""
    choices = {"lr": SPACE["lr"], "optimizer": SPACE["optimizer"], "schedule": SPACE["schedule"]}
    return Prior.from_tables(choices, [values])


def table() -> np.ndarray:
    return np.array(
        [
            [
                [
                    [accuracy({"lr": lr, "optimizer": o, "schedule": s}, e) for e in range(1, EPOCHS + 1)]
                    for s in SPACE["schedule"]
                ]
                for o in SPACE["optimizer"]
            ]
            for lr in SPACE["lr"]
        ]
    )


def epochs_to_best(prior: Prior | None) -> int:
    """Epochs until the best value is reported."""
    searcher = Searcher(SPACE, max_epochs=EPOCHS, prior=prior)
    while (trial := searcher.ask()) is not None:
        searcher.tell(trial, accuracy(trial.config, trial.epochs + 1))
        if trial.values[-1] > 0.95 - 1e-9:
            return searcher.epochs_used
    raise AssertionError("not found")


def test_earlier_runs_that_are_right_lead_straight_to_the_best() -> None:
    assert epochs_to_best(known(table())) <= 2 * EPOCHS < epochs_to_best(None)


def test_earlier_runs_that_say_the_opposite_cost_little() -> None:
    assert epochs_to_best(known(1 - table())) <= 1.5 * epochs_to_best(None) + EPOCHS


def test_a_prior_decides_in_ever_fewer_decisions() -> None:
    """A prior that tells the first configuration from all others, in a space where it knows nothing of the rest."""
    space = {"lr": [10.0**-power for power in range(6)], "depth": list(range(40))}
    searcher = Searcher(
        space, max_epochs=1, prior=Prior({"lr": [1e-5, 1e-4, 1.0]}, np.array([[[9.0], [0.0], [0.0]]]))
    )
    for _ in range(60):
        trial = searcher.ask()
        assert trial is not None
        searcher.tell(trial, 0.5 + trial.config["depth"] / 1000 - 0.01 * (trial.config["lr"] == 1e-5))
    assert searcher.trials[0].config["lr"] == 1e-5
    late = [trial.config["lr"] for trial in searcher.trials[30:]]
    assert sum(lr == 1e-5 for lr in late) < len(late) / 2
    assert sum(decision.action == "doubt the prior" for decision in searcher.log) == 1


def test_decisions_use_one_thread_and_give_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    seen: list[int] = []

    def counting(chooser: Chooser, elsewhere: Any) -> None:
        seen.extend(threads())

    monkeypatch.setattr(Chooser, "choose", counting)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        Searcher(SPACE, max_epochs=1).ask()
        assert threads() == before
    assert set(seen) == {1}
