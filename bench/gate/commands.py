"""Any program under the gate: a fresh process of a side, whose last line is a JSON object of metrics."""

from __future__ import annotations

import json
import math
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.gate.measured import Comparison, Measured, Metric
from fusetune.bench.gate.processes import (
    Ended,
    News,
    Place,
    check_import,
    failure_of,
    no_news,
    run_process,
    show_failure,
)
from fusetune.bench.gate.rules import Rules, unknown_direction
from fusetune.bench.terminal import one_line
from fusetune.bench.units import METRICS
from fusetune.tuner.measure import reference_rounds

# The index of the pair. A program that seeds its training by it is compared over paired seeds.
SEED_VARIABLE = "BENCH_GATE_SEED"
# They stand for the interpreter of the side's environment, whichever is first on the PATH.
_PYTHONS = ("python", "python3")
_MOST_SHOWN = 80
_FORM = 'its last line has the form {"metric": number or [numbers]} or {"benchmark": {"metric": ...}}'


@dataclass
class Command:
    """A command line that is run on both sides.

    Args:
        text: its words, as in a shell, though no shell runs it.
        rules: directions of metrics whose names do not tell them.
        news: takes the last lines of a process that failed.
    """

    text: str
    rules: Rules
    news: News = no_news
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Split the command line.

        Raises:
            InputError: it is empty, or a quote is not closed.
        """
        try:
            self.words = shlex.split(self.text)
        except ValueError as error:
            raise InputError("--command", f"cannot be split into words; {error}".lower()) from None
        if not self.words:
            raise InputError("--command", "is empty", to_do='Write it like --command "python bench.py"')

    @property
    def title(self) -> str:
        """What is gated."""
        return self.text

    @property
    def jobs(self) -> tuple[str, ...]:
        """The only job. A benchmark without a name of its own has this one."""
        return (self.text,)

    def measure(self, job: str, index: int, place: Place, limit_s: float | None) -> dict[str, Measured]:
        """Run the program once.

        Args:
            job: names what is measured where the program does not.
            index: of the pair. The program gets it as the variable BENCH_GATE_SEED.
            place: where the side runs.
            limit_s: the process is ended after so many seconds; None: never.

        Raises:
            InputError: there is no such program, or its last line is no JSON object of finite numbers.
            SetupError: it cannot be started or imported.
        """
        words = [place.python, *self.words[1:]] if self.words[0] in _PYTHONS else self.words
        before = reference_rounds()
        ended = run_process(words, place, limit_s=limit_s, environment={SEED_VARIABLE: str(index)})
        ref = (*before, *reference_rounds())
        _refuse(ended, words, place)
        if failure := failure_of(ended, limit_s):
            show_failure(self.news, place, failure, ended)
            return {job: Measured(ref=ref, seconds=ended.seconds, failure=failure)}
        found = read_metrics(ended.out, job, self.rules, place.name)
        return {name: Measured(metrics, ref, ended.seconds) for name, metrics in found.items()}


def read_metrics(out: str, job: str, rules: Rules, where: str) -> dict[str, dict[str, Metric]]:
    """Return benchmark -> metric -> what the last line of a program's output says.

    Args:
        out: standard output, or its end.
        job: the benchmark of metrics that have none.
        rules: directions.
        where: for messages.

    Raises:
        InputError: no such object, a number that is not finite, no metrics, or an unknown direction.

    Example:
        >>> found = read_metrics('warming up\\n{"decode_s": [0.5, 0.25]}\\n', "decode", Rules(), "head")
        >>> found["decode"]["decode_s"].values
        (0.5, 0.25)
    """
    lines = [line for line in out.splitlines() if line.strip()]
    if not lines:
        raise InputError(where, "printed nothing", _FORM)
    try:
        content = json.loads(lines[-1])
    except (ValueError, RecursionError):
        raise InputError(where, f"its last line is no JSON object: {_shown(lines[-1])}", _FORM) from None
    if not isinstance(content, dict):
        raise InputError(where, f"its last line is no JSON object: {_shown(lines[-1])}", _FORM)
    if not content:
        raise InputError(where, "its JSON object has no metrics", _FORM)
    is_nested = [isinstance(value, dict) for value in content.values()]
    if any(is_nested) and not all(is_nested):
        raise InputError(where, "its JSON object mixes metrics and benchmarks", _FORM)
    benchmarks = content if all(is_nested) else {job: content}
    return {
        one_line(benchmark): {
            one_line(name): _metric(benchmark, name, value, rules, where) for name, value in metrics.items()
        }
        for benchmark, metrics in benchmarks.items()
    }


def _metric(benchmark: str, name: str, given: Any, rules: Rules, where: str) -> Metric:
    """Turn one entry of the object into a metric."""
    values = given if isinstance(given, list) else [given]
    if not values:
        raise InputError(where, f"'{name}' has no values", _FORM)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(where, f"'{name}' is {_shown(json.dumps(value))}, which is no number", _FORM)
        if not _is_finite(value):
            raise InputError(where, f"'{name}' is {value}, which is not finite", _FORM)
    better = rules.better(benchmark, name)
    if better is None:
        raise unknown_direction(where, name)
    unit, comparison = _kind(name, all(isinstance(value, int) for value in values))
    if comparison == "timing" and min(values) <= 0:
        raise InputError(where, f"'{name}' is {min(values)}, and no timing is 0 or less")
    return Metric(tuple(map(float, values)), unit, better, comparison)


def _kind(name: str, whole: bool) -> tuple[str, Comparison]:
    """Return the unit of a metric by its name, and how it is compared."""
    known = METRICS.get(name)
    if name.endswith("_per_s") or (known and known.unit == "samples/s"):
        return "samples/s" if known else "none", "timing"
    if name.endswith("_to_target_s"):
        return "s", "learning"
    if name.endswith("_s") or (known and known.unit == "s"):
        return "s", "timing"
    if name.endswith("_bytes") or (known and known.unit == "bytes"):
        return "bytes", "exact"
    if name.endswith("_to_target"):
        return "count", "learning"
    if "accuracy" in name:
        return "fraction", "learning"
    if "loss" in name:
        return "nats", "learning"
    return ("count", "exact") if whole else ("none", "learning")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of 400 digits
        return False


def _refuse(ended: Ended, words: list[str], place: Place) -> None:
    """Refuse a program that is not there, or cannot be imported.

    Raises:
        InputError: Python finds no file of the script's name.
        SetupError: the program's last words say that an import failed.
    """
    if ended.code == 2 and "can't open file" in ended.last_line:
        scripts = [
            word
            for word in words[1:]
            if not os.path.exists(Path(place.folder, word)) and word in ended.last_line
        ]
        script = scripts[0] if scripts else words[-1]
        raise InputError(place.name, f"has no file '{script}'", to_do="Name one that both sides hold.")
    if ended.code and not ended.timed_out:
        check_import(ended.last_line, place)


def _shown(text: str) -> str:
    text = one_line(text)
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}...")
