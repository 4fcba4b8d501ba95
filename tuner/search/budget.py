"""Spend a budget of epochs: trainings are generators, advanced one epoch at a time, paused, and closed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal

from fusetune.errors import InvalidTypeError, InvalidValueError
from fusetune.tuner.measure import is_out_of_memory
from fusetune.tuner.search.prior import Prior, shipped_prior
from fusetune.tuner.search.result import SearchResult, SearchTrial
from fusetune.tuner.search.searcher import Searcher, check_count

Evaluate = Callable[[dict[str, Any], int], Iterator[float]]


def search(
    space: Mapping[str, Any],
    evaluate: Evaluate,
    *,
    max_epochs: int,
    budget_epochs: int,
    seed: int = 0,
    maximize: bool = True,
    prior: Prior | Literal["shipped"] | None = "shipped",
    max_paused: int = 128,
) -> SearchResult:
    """Find a good configuration within a budget of epochs.

    Args:
        space: name -> list of choices, or {low, high} with `log: true` for decades. A range between two integers
            holds the integers.
        evaluate: (configuration, seed) -> generator of the validation metric after each epoch. It is advanced one
            epoch at a time, paused between them, and closed when it is dropped. One that raises is a failed trial
            with its reason, and counts as the worst that was seen, or worse. After a MemoryError (or torch's) no
            training that needs as much memory is begun. One that raises when it is closed adds that to its trial's
            reason.
        max_epochs: epochs of a whole training, 1 or more.
        budget_epochs: epochs in all, 1 or more; never exceeded. An epoch that raised counts. Where nothing is left
            to train before they are used, the last line of the log says why.
        seed: handed to `evaluate`, 0 or more; equal seeds and equal values lead to equal decisions.
        maximize: whether a larger value is better.
        prior: what earlier runs say about factors it knows by name; "shipped", one of your own, or None.
        max_paused: most trainings that wait paused, 1 or more; the least promising beyond it are dropped.

    Warns:
        RuntimeWarning: no training reported a finite value. The result's `failure` is the same sentence.

    Memory:
        Whatever `max_paused` + 1 generators hold.

    Raises:
        ValueError: a space, a number of epochs, a budget, a seed or a prior that cannot be searched with.
        TypeError: `evaluate` cannot be called, or returned no generator for the first configuration.

    Example:
        >>> def evaluate(config, seed):
        ...     for epoch in range(1, 5):
        ...         yield 1 - (config["x"] - 0.3) ** 2 - 0.1 / epoch
        >>> result = search({"x": {"low": 0.0, "high": 1.0}}, evaluate, max_epochs=4, budget_epochs=40, prior=None)
        >>> abs(result.best.config["x"] - 0.3) < 0.1, result.best.epoch, result.epochs_used
        (True, 4, 40)
    """
    if not callable(evaluate):
        raise InvalidTypeError(
            "evaluate",
            f"a {type(evaluate).__name__} cannot be called",
            to_do="Give (config, seed) -> generator",
        )
    if not (prior is None or prior == "shipped" or isinstance(prior, Prior)):
        raise InvalidValueError("prior", f"{prior!r} is none", to_do="Give 'shipped', a Prior or None")
    known = prior if isinstance(prior, Prior) else shipped_prior() if prior else None
    check_count("budget_epochs", budget_epochs)
    check_count("max_paused", max_paused)
    searcher = Searcher(
        space, max_epochs=max_epochs, seed=seed, maximize=maximize, prior=known, max_paused=max_paused
    )
    _spend(searcher, evaluate, seed, budget_epochs)
    result = searcher.result()
    if result.failure:
        warnings.warn(f"search: {result.failure}", RuntimeWarning, stacklevel=2)
    return result


def _spend(searcher: Searcher, evaluate: Evaluate, seed: int, budget_epochs: int) -> None:
    """Train until the budget is spent or nothing is left. Close all generators, whatever happens."""
    running: dict[int, Iterator[float]] = {}
    try:
        while searcher.epochs_used < budget_epochs and (trial := searcher.ask()) is not None:
            _advance(searcher, trial, running, evaluate, seed)
            for number in [number for number in running if searcher.trials[number].status != "paused"]:
                _close(searcher, number, running.pop(number))
        if searcher.epochs_used < budget_epochs:
            searcher.nothing_left()
    finally:
        # Whatever happens while one is closed, an interrupt included: the others are closed too.
        with ExitStack() as stack:
            for number, generator in running.items():
                stack.callback(_close, searcher, number, generator)


def _advance(
    searcher: Searcher, trial: SearchTrial, running: dict[int, Iterator[float]], evaluate: Evaluate, seed: int
) -> None:
    """Train one epoch and tell the searcher what came of it."""
    try:
        if trial.number not in running:
            running[trial.number] = _begun(evaluate, trial, seed)
        value = next(running[trial.number])
        number = None if value is None else float(value)
    except StopIteration:
        searcher.end(trial)
    except Exception as error:  # a person's `evaluate`
        if isinstance(error, _NoIteratorError) and trial.number == 0:
            raise  # no training will be another's: better told at once than after the whole budget
        searcher.fail(trial, _in_a_line(error), out_of_memory=is_out_of_memory(error))
    else:
        searcher.tell(trial, number)


class _NoIteratorError(InvalidTypeError):
    """What `evaluate` returned cannot be iterated."""


def _begun(evaluate: Evaluate, trial: SearchTrial, seed: int) -> Iterator[float]:
    """Begin a training."""
    made = evaluate(dict(trial.config), seed)
    if not isinstance(made, Iterable):
        raise _NoIteratorError(
            "evaluate",
            f"returned a {type(made).__name__}, not a generator",
            to_do="Let it yield the metric after each epoch",
        )
    return iter(made)


def _close(searcher: Searcher, number: int, generator: Iterator[float]) -> None:
    """Close a generator. An iterator of another kind has nothing to close. One that raises keeps its trial."""
    close = getattr(generator, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:  # a person's `evaluate`
        searcher.remark(searcher.trials[number], f"closing it raised {_in_a_line(error)}")


def _in_a_line(error: BaseException) -> str:
    """Return an error's name and text."""
    return " ".join(f"{type(error).__name__}: {error}".split())
