"""Text of results: labels of factor values, ratios, the recommendation, and advice for a more certain result.

Every sentence is built from a `bench.stats.summary.Summary`. All reports share them.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from fusetune.bench.spec import key_id, left_out, value_label
from fusetune.bench.stats import significance
from fusetune.bench.stats.caveats import Caveat
from fusetune.bench.stats.effects import Gain
from fusetune.bench.stats.significance import Estimate
from fusetune.bench.stats.summary import TROUBLES, Configuration, Summary
from fusetune.bench.terminal import invocation
from fusetune.bench.units import METRICS, format_metric

FEW = 4  # most configurations for a second run with more seeds
# Parts of a spec that the command for a second run sets itself.
_SET_AGAIN = ("factors", "configurations", "design", "seeds")
_COMMAND_WIDTH = 76  # fits a terminal of 80 columns
# Strings that YAML reads as strings without quotes.
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*")
STATUS_WORDS = {
    "ok": "ok",
    "missed_target": "missed",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "stopped_early": "stopped early",
    "failed": "failed",
}


def label(value: Any) -> str:
    """Return a readable label of a factor's value.

    Example:
        >>> label("adam"), label(0.10), label(None), label({"name": "one-cycle", "pct_start": 0.3})
        ('adam', '0.1', 'null', 'one-cycle(pct_start=0.3)')
    """
    return value_label(value)


def configuration_label(factors: Mapping[str, Any]) -> str:
    """Return a configuration's label from its factors.

    Example:
        >>> configuration_label({"batch_size": 64, "optimizer": "adam"}), configuration_label({})
        ('batch_size=64, optimizer=adam', 'the `train` configuration')
    """
    return (
        ", ".join(f"{key_id(name)}={label(value)}" for name, value in factors.items())
        or "the `train` configuration"
    )


def percent(share: float) -> str:
    """Return a share of 1 as a whole percentage.

    Example:
        >>> percent(0.456)
        '46 %'
    """
    return f"{100 * share:.0f} %"


def ratio_text(value: float) -> str:
    """Return a ratio with about three digits.

    Example:
        >>> ratio_text(1.5), ratio_text(12.34), ratio_text(250.0)
        ('1.50x', '12.3x', '250x')
    """
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}x"


def estimate_text(estimate: Estimate) -> str:
    """Return a ratio, with `~` before it when it does not differ significantly from 1.

    Example:
        >>> estimate_text(Estimate(1.5, 1.2, 1.8, 3, 1.0)), estimate_text(Estimate(1.5, None, None, 2, 1.0))
        ('1.50x', '~1.50x')
    """
    return f"{'' if estimate.can_tell else '~'}{ratio_text(estimate.value)}"


def recommendation(summary: Summary) -> str:
    """Return the recommended configuration with reason and caveats.

    If no configuration reached the target, return the closest one and advice.
    """
    return " ".join(recommendation_sentences(summary))


def recommendation_sentences(summary: Summary) -> list[str]:
    """Return the sentences of `recommendation`. The first is the answer, the others are advice and caveats."""
    if not summary.configurations:
        return ["No trial has finished, so there is nothing to recommend."]
    first = summary.configurations[0]
    if set(first.statuses) <= set(TROUBLES):
        return ["No configuration could be trained to its end.", _mend(summary)]
    name = configuration_label(first.factors)
    if summary.target is not None and not first.reached:
        closest = f"Closest: {name}, {_score(summary, first)}."
        answer = f"No configuration reached {summary.target}."
        return [answer, closest, _try(summary), *shorts(summary.caveats)]
    return [f"Use {name}: {_reason(summary, first)}.", *_caveats(summary, first)]


def _score(summary: Summary, configuration: Configuration) -> str:
    """Return a configuration's score with its n."""
    spread = configuration.metrics.get(summary.score_metric)
    if spread is None:
        return f"no {METRICS[summary.score_metric].title} known"
    of = f"median of {spread.n} seeds" if spread.n > 1 else "one seed"
    return (
        f"{METRICS[summary.score_metric].title} {format_metric(summary.score_metric, spread.median)} ({of})"
    )


def _reason(summary: Summary, first: Configuration) -> str:
    """Return the result of the first place and its gain over `train`."""
    gain = _gain_clause(summary.gain) if summary.gain and first.factors else ""
    if summary.target is None:
        return f"{_score(summary, first)}, the best of {counted(len(summary.configurations), 'configuration')}{gain}"
    spread = first.metrics["time_to_target_s"]
    seeds = f"{first.reached} of {counted(first.n, 'seed')}"
    if math.isfinite(spread.median):
        return (
            f"reaches {summary.target} in {format_metric('time_to_target_s', spread.median)} ({seeds}){gain}"
        )
    return f"reaches {summary.target} in {seeds}, at best in {format_metric('time_to_target_s', spread.low)}{gain}"


def _gain_clause(gain: Gain) -> str:
    """Return the first place's gain over `train` as a clause."""
    if gain.obstacle == "first is train":
        return ", and it is the `train` configuration itself"
    if gain.obstacle == "train never reached":
        return ", which the `train` configuration never did"
    if gain.time is None or gain.steps is None or gain.step_time is None:
        return ""
    if not gain.time.can_tell and 1 / 1.05 < gain.time.value < 1.05:
        return ", about as soon as the `train` configuration"
    steps = _fewer(gain.steps)
    step_time = _faster(gain.step_time)
    sooner = (
        f"{_marked(gain.time)} {'sooner' if gain.time.value > 1 else 'later'} than the `train` configuration"
    )
    if not gain.time.can_tell:
        return f", {sooner}, a difference that is not significant"
    if gain.same_work:
        return f", {sooner}, because it needs {steps} of the same work"
    if (gain.steps.value > 1) == (gain.step_time.value > 1):
        return f", {sooner}, because it needs {steps} and each step is {step_time}"
    if (gain.steps.value > 1) == (gain.time.value > 1):
        return f", {sooner}, because it needs {steps}, although each step is {step_time}"
    return f", {sooner}, because each step is {step_time}, although it needs {steps}"


def _marked(estimate: Estimate) -> str:
    """Return a ratio or its reciprocal, whichever is above 1, with `~` when it is not significant."""
    return f"{'' if estimate.can_tell else '~'}{ratio_text(max(estimate.value, 1 / estimate.value))}"


def _fewer(steps: Estimate) -> str:
    if ratio_text(max(steps.value, 1 / steps.value)) == "1.00x":
        return "as many steps"
    return f"{_marked(steps)} {'fewer' if steps.value > 1 else 'more'} steps"


def _faster(step_time: Estimate) -> str:
    if ratio_text(max(step_time.value, 1 / step_time.value)) == "1.00x":
        return "as fast"
    return f"{_marked(step_time)} {'faster' if step_time.value > 1 else 'slower'}"


def _caveats(summary: Summary, first: Configuration) -> list[str]:
    caveats = []
    if "test_accuracy" in first.metrics and not (
        summary.target and summary.target.metric.startswith("test_")
    ):
        accuracy = format_metric("test_accuracy", first.metrics["test_accuracy"].median)
        caveats.append(f"Its test accuracy at the end of training is {accuracy}.")
    ties = undecided(summary)
    if first.n == 1 and summary.first:
        caveats.append("With one seed, the spread between seeds is unknown.")
    elif ties:
        which = f"rank {ties[0]}" if len(ties) == 1 else f"{len(ties)} others, rank {ties[0]} among them"
        caveats.append(f"These data cannot tell it from {which}.")
    elif summary.first:
        caveats.append(
            "It is ahead of every other configuration (exact Mann-Whitney tests, p <= 0.05 after Holm)."
        )
    return [*caveats, *shorts(summary.caveats)]


def shorts(caveats: Iterable[Caveat]) -> list[str]:
    """Return the caveats' texts for a recommendation."""
    return [caveat.short for caveat in caveats if caveat.short]


def undecided(summary: Summary) -> list[int]:
    """Return the ranks whose difference from the first place is not significant."""
    comparisons = summary.first.comparisons if summary.first else ()
    return [comparison.rank for comparison in comparisons if comparison.verdict != "pass"]


def _try(summary: Summary) -> str:
    """Return advice for a target that no trial reached."""
    stopped = any("stopped_early" in configuration.statuses for configuration in summary.configurations)
    longer = "more epochs, a longer early_stop.patience" if stopped else "more epochs"
    return f"Try {longer}, another base_lr or a lower target."


def _mend(summary: Summary) -> str:
    """Return advice for trials that could not be trained."""
    advice = {
        "diverged": "a smaller base_lr or a warmup against divergence",
        "out_of_memory": "a smaller batch_size or a higher limits.memory against running out of memory",
        "failed": "fixing the failures listed above",
    }
    seen = {trouble.status for trouble in summary.troubles}
    return f"Try {', '.join(text for status, text in advice.items() if status in seen)}."


def what_would_make_it_surer(summary: Summary) -> list[str]:
    """Return advice for a more certain first place. Empty if it is significant and without caveats."""
    return [*_more_seeds(summary), *(caveat.mend for caveat in summary.caveats if caveat.mend)]


def _more_seeds(summary: Summary) -> list[str]:
    """Return the number of seeds that a significant first place needs."""
    first = summary.first
    if first is None or first.verdict == "pass":
        return []
    count = len(summary.configurations)
    if first.n < first.least_n:
        again = ""
        if count > FEW:
            fewer = significance.least_n(math.comb(FEW, 2))
            command = again_command(summary, FEW, fewer)
            again = f". With the first {FEW} alone, {fewer} are enough:\n{command}"
        return [
            f"seeds: a significant first of {counted(count, 'configuration')} needs at least {first.least_n}, "
            f"now n = {first.n}{again}"
        ]
    if first.smallest_visible is None:
        return [f"seeds: more than the present n = {first.n}"]
    return [
        f"seeds: more than the present n = {first.n}, which detects a ratio of {ratio_text(first.smallest_visible)} or "
        "more with a power of 80 %. The undecided ones are closer than that, or vary more"
    ]


def again_command(summary: Summary, count: int, seeds: int) -> str:
    """Return the command that trains only the first configurations, on lines that a shell joins.

    Args:
        summary: the run's summary.
        count: number of configurations, by rank.
        seeds: number of seeds.
    """
    run = summary.run
    levels = run.spec.levels
    entries = []
    for configuration in summary.configurations[:count]:
        # Omit the factors that have the spec's own value.
        named = {
            key: [value] if isinstance(value, list) else value
            for key, value in configuration.factors.items()
            if value != left_out(levels.get(key, []))
        }
        entries.append(flow_yaml(named))
    kept = [text for text in run.overrides if _overridden(text) not in _SET_AGAIN]
    settings = [*kept, *(["factors={}"] if run.spec.factors else [])]
    if run.spec.design != "grid":
        settings.append("design=grid")
    settings.append(f"seeds={seeds}")
    words = [f"--set {shlex.quote(' '.join(text.split()))}" for text in settings]
    results = PurePath(summary.directory or "results/-/-").parents[1]
    if str(results) != "results":
        words.insert(0, f"--results {shlex.quote(str(results))}")
    lines = [f"{invocation()} run {shlex.quote(run.spec_path or 'SPEC')}{run.executor_option}"]
    for word in words:
        if len(lines[-1]) + len(word) < _COMMAND_WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    # Inside the quotes, break lines at YAML's spaces, preferably between two configurations.
    whole = [entry if len(entry) > _COMMAND_WIDTH else entry.replace(" ", "\0") for entry in entries]
    listed = textwrap.wrap(", ".join(whole), _COMMAND_WIDTH, break_long_words=False, break_on_hyphens=False)
    inside = "\n".join(listed).replace("\0", " ")
    lines.append("--set " + shlex.quote(f"configurations=[\n{inside}]"))
    return " \\\n".join(lines)


def _overridden(text: str) -> str:
    """Return the top-level key of the spec that a `--set` changes."""
    return text.partition("=")[0].strip().split(".")[0]


def flow_yaml(value: Any) -> str:
    """Return plain data as one line of YAML, which loads to equal data.

    Example:
        >>> flow_yaml({"model.width": 8, "schedule": {"name": "one-cycle"}, "betas": [[0.9, 0.99]], "norm": None})
        '{model.width: 8, schedule: {name: one-cycle}, betas: [[0.9, 0.99]], norm: null}'
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{flow_yaml(str(key))}: {flow_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(flow_yaml, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def missing(summary: Summary) -> list[str]:
    """Return the number of trials not run yet, with the command that runs them."""
    left = summary.planned - summary.recorded
    if left <= 0:
        return []
    directory = shlex.quote(summary.directory) if summary.directory else "DIR"
    command = f"{invocation()} run --resume {directory}"
    return [f"{counted(left, 'trial')} of {summary.planned} not run yet. Continue with\n{command}"]


def gain_obstacle(summary: Summary) -> str | None:
    """Return why the first place's gain over `train` is not decomposed.

    None when it is, or when there are no records.
    """
    if summary.gain is None or summary.gain.obstacle is None:
        return None
    train = configuration_label(summary.run.baseline)
    return {
        "no target": "The spec names no target, so there is no time to split.",
        "none reached": f"No configuration reached {summary.target}, so there is no time to split.",
        "first is train": "The `train` configuration itself comes first.",
        "train not run": f"The `train` configuration ({train}) is not among the trials. Add its values to `factors`.",
        "train never reached": f"The `train` configuration ({train}) never reached {summary.target}.",
        "no shared seed": f"No seed reached {summary.target} both with the first place and with `train`.",
    }[summary.gain.obstacle]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural except for 1.

    Example:
        >>> counted(1, "seed"), counted(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
