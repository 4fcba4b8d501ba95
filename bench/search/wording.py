"""Sentences of a search, as the terminal's report and the page have them."""

from __future__ import annotations

from fusetune.bench.search.plan import is_left
from fusetune.bench.search.study import SearchStudy
from fusetune.bench.stats import configuration_label, counted
from fusetune.tuner.search import SearchTrial


def ended_words(trial: SearchTrial) -> str:
    """Return how a training ended."""
    return "paused at the budget's end" if is_left(trial) else trial.status.replace("_", " ")


def header(study: SearchStudy) -> str:
    """Return what was searched, and what it took."""
    return (
        f"{study.run.spec.name}: search for the best {study.plan.metric}, "
        f"{study.epochs_used} of {study.plan.budget_epochs} epochs, {counted(len(study.trials), 'training')}, "
        f"{study.prior}"
    )


def nothing_found(study: SearchStudy) -> str:
    """Return why a search has no winner, and what to try."""
    return study.failure[:1].upper() + study.failure[1:] + "."


def winner(study: SearchStudy) -> str:
    """Return the winner, its value in the search, and on fresh seeds."""
    assert study.winner is not None
    text = (
        f"Use {configuration_label(study.winner)}: {study.plan.metric} {study.value:.4g} at epoch {study.epoch} in the "
        f"search. The best of many is partly luck; {on_fresh_seeds(study)}"
    )
    if study.rates:
        rates = ", ".join(f"{rate:.3g} (seed {seed})" for seed, rate in study.rates)
        text += f" Its base_lr: auto chose {rates}."
    return text


def on_fresh_seeds(study: SearchStudy) -> str:
    """Return the mean of the winner on fresh seeds, with its interval."""
    fresh = study.fresh
    if fresh.mean is None:
        return "it has not been trained on fresh seeds."
    seeds = counted(len(fresh.values), "fresh seed")
    if fresh.low is None or fresh.high is None:
        return f"on {seeds}: {fresh.mean:.4g}."
    return f"on {seeds}: {fresh.mean:.4g}, 95 % interval {fresh.low:.4g}..{fresh.high:.4g}."
