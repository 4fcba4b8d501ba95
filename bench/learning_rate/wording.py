"""Sentences and numbers of LR range tests, as the terminal's report and the page have them."""

from __future__ import annotations

from fusetune.bench.learning_rate.study import MOST_SPREAD, LRStudy, Tested
from fusetune.bench.results import RangeTestOptions
from fusetune.bench.stats import counted
from fusetune.tuner.learning_rate import LRScaling

CANT_TELL = "can't tell"
NO_VALUE = "-"
_MOST_ANSWERED = 3


def judged(study: LRStudy) -> str:
    """Return which loss the sweeps were judged by."""
    validation = RangeTestOptions.from_dict(study.run.options).validation
    return "validation loss" if validation else "training loss"


def sweep_words(study: LRStudy) -> str:
    """Return what was swept, and what it was judged by."""
    options = RangeTestOptions.from_dict(study.run.options)
    sweep = (
        f"{options.repeats} x {options.steps} steps, {options.lr_min:g} to {options.lr_max:g}, {options.mode}"
    )
    return f"{sweep}, judged by the {judged(study)}"


def rate_text(value: float | None) -> str:
    """Return a rate with three digits.

    Example:
        >>> rate_text(0.012345), rate_text(None)
        ('0.0123', '-')
    """
    return NO_VALUE if value is None else f"{value:.3g}"


def span_text(test: Tested, low: str, high: str) -> str:
    """Return two values of a test as a range.

    Args:
        test: one test.
        low, high: names of its values.
    """
    return f"{test.values[low]:.3g}..{test.values[high]:.3g}" if low in test.values else NO_VALUE


def scaling_sentence(name: str, fit: LRScaling | str) -> str:
    """Return how the rate grows with the batch size, or why these tests cannot tell.

    Args:
        name: of the group of tests, `all` for the only one.
        fit: of `LRStudy.scalings`.

    Example:
        >>> scaling_sentence("all", LRScaling(0.5, 0.4, 0.6, -7.0, (16, 64, 256), 6))
        'lr ~ batch_size^0.50, 95 % interval 0.40..0.60 (6 tests at 16, 64, 256)'
    """
    prefix = "" if name == "all" else f"{name}: "
    if not isinstance(fit, LRScaling):
        return f"{prefix}no exponent: {fit}"
    sizes = ", ".join(map(str, fit.batch_sizes))
    text = (
        f"lr ~ batch_size^{fit.exponent:.2f}, 95 % interval {fit.low:.2f}..{fit.high:.2f} "
        f"({fit.points} tests at {sizes})"
    )
    if fit.left_out:
        text += (
            f"; {counted(fit.left_out, 'more test')} left out, "
            f"with an interval wider than a factor of {MOST_SPREAD:g}"
        )
    return prefix + text


def answer(study: LRStudy) -> tuple[str, str]:
    """Return the rates to use in one sentence, and a sentence on configurations for which these data cannot tell one.

    Returns:
        The answer, and what belongs to it, empty where there is no more to say.
    """
    if not study.tested:
        return "Nothing is recorded yet.", ""
    if len(study.tested) == 1:
        return _one_answer(study.tested[0])
    found = [test for test in study.tested if "suggested_lr" in test.values]
    unknown = [test.label for test in study.tested if "suggested_lr" not in test.values]
    if not found:
        return "These data cannot tell a rate for any configuration.", ""
    if len(found) > _MOST_ANSWERED:
        low, high = (pick(found, key=lambda test: test.values["suggested_lr"]) for pick in (min, max))
        answered = f"Use {_use(low)} to {_use(high)}, and the table's rate for others."
    else:
        answered = f"Use {'; '.join(map(_use, found))}."
    if not unknown:
        return answered, ""
    more = f" and {len(unknown) - _MOST_ANSWERED} more" if len(unknown) > _MOST_ANSWERED else ""
    return answered, f"These data cannot tell a rate for {'; '.join(unknown[:_MOST_ANSWERED])}{more}."


def _use(test: Tested) -> str:
    return f"{test.values['suggested_lr']:.3g} for {test.label}"


def _one_answer(test: Tested) -> tuple[str, str]:
    lr = test.values.get("suggested_lr")
    if lr is None:
        return "These data cannot tell a rate.", " ".join(
            f"{note[:1].upper() + note[1:]}." for note in test.notes
        )
    if test.outcome.confirm_lrs is not None:
        return (
            f"Use {lr:.3g}.",
            f"It is the best of the short trainings around the sweep's {test.values['range_lr']:.3g}.",
        )
    interval = span_text(test, "lr_interval_low", "lr_interval_high")
    return f"Use {lr:.3g}.", "" if interval == NO_VALUE else f"Its 95 % interval is {interval}."
