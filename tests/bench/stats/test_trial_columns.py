"""Main effects on arrays are those of pairs that are sought one by one, also where trials are missing or twice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

import fusetune.bench.stats.summary as summary_module
from fusetune.bench.report import training_part
from fusetune.bench.report.curves import learning_curves
from fusetune.bench.results import Record, RunDirectory
from fusetune.bench.results.record_reader import Reader
from fusetune.bench.stats.curves import CurvePoint, median_curve
from fusetune.bench.stats.effects import main_effect
from fusetune.bench.stats.summary import summarize
from fusetune.bench.stats.trial_columns import TrialColumns
from tests.perf.large_runs import large_run

FACTORS: dict[str, list[Any]] = {
    "optimizer": ["sgd", {"name": "lion"}, None],
    "batch_size": [16, 64.0, True],
    "x": [0],
}


def irregular(draw: random.Random) -> list[Record]:
    records: list[Record] = []
    for seed, levels in product((3, 2**62, 5, 8), product(*FACTORS.values())):
        values = {"time_to_target_s": draw.uniform(1, 2), "steps_to_target": draw.randint(1, 9)}
        values |= {"step_time_s": draw.random(), "best_val_accuracy": draw.random()}
        values = {name: value for name, value in values.items() if draw.random() < 0.9 or "_to_" in name}
        status = draw.choice(["ok", "ok", "missed_target"])
        factors = dict(zip(FACTORS, levels, strict=True))
        records.append(Record(f"{len(records)}", factors, seed, status, values=values))  # type: ignore[arg-type]
    kept = draw.sample(records, 25)
    return [*kept, *draw.sample(kept, 3)]


def mean_ratio(pairs: list[tuple[Record, Record]], metric: str, *, of_target: bool) -> float | None:
    """The geometric mean of first / second over the pairs that have the metric."""
    both = [
        (a.values[metric], b.values[metric])
        for a, b in pairs
        if metric in a.values and metric in b.values and (not of_target or a.status == b.status == "ok")
    ]
    return math.exp(fmean(math.log(a / b) for a, b in both)) if both else None


@pytest.mark.parametrize("number", range(20))
def test_main_effects_are_those_of_all_matching_pairs(number: int) -> None:
    records = irregular(random.Random(number))
    columns = TrialColumns(records, "best_val_accuracy")
    for factor, values in FACTORS.items():
        effect = main_effect(factor, values, {factor: values[0]}, columns, with_target=True)
        last = {(repr(record.factors), record.seed): record for record in records}
        for level in effect.levels:
            mine = [record for record in last.values() if record.factors[factor] is level.value]
            assert level.n == len(mine)
            assert level.reached == sum(record.status == "ok" for record in mine)
            if level.is_reference:
                assert level.pairs == 0
                continue
            partners = [last.get((repr({**r.factors, factor: values[0]}), r.seed)) for r in mine]
            pairs = [(partner, r) for partner, r in zip(partners, mine, strict=True) if partner is not None]
            assert level.pairs == len(pairs)
            for found, metric, of_target in (
                (level.time, "time_to_target_s", True),
                (level.steps, "steps_to_target", True),
                (level.step_time, "step_time_s", False),
            ):
                expected = mean_ratio(pairs, metric, of_target=of_target)
                assert (found and found.value) == (expected and pytest.approx(expected, rel=1e-12))


@pytest.mark.parametrize("kinds", [("Example CPU",), ("H100", "H100", "A100")])
def test_report_and_page_say_the_same_of_what_they_read_as_of_all(
    tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    directory = RunDirectory.open(large_run(tmp_path, 20, 5))
    file = directory.path / "records.jsonl"
    lines = enumerate(file.read_text().splitlines(keepends=True))
    file.write_text("".join(line.replace("Example CPU", kinds[at % len(kinds)]) for at, line in lines))
    whole, _ = directory.records()
    expected = summarize(directory.run, whole)
    assert expected.configurations[0].curve
    readers: tuple[Reader, ...] = ("report", "page")
    for needed_by in readers:
        read, _ = directory.records(needed_by=needed_by)
        found = summarize(directory.run, read)
        assert found == expected
        assert [each.curve for each in found.configurations] == [
            each.curve for each in expected.configurations
        ]
    assert training_part(expected, read) == training_part(expected, whole)


def test_numbers_of_a_metric_are_those_of_the_records() -> None:
    draw = random.Random(0)
    whole, broken, large = [3, 0, 7], [0.5, 1.0, 2.25], [2**53 + 1, 2, 5]
    for numbers in (whole, broken, large, [*whole, *broken], [1.0, 2.0], [*large, 1.0]):
        records = [
            Record(f"{at}", {}, at, "ok", values={"steps": number, **({"epochs": 1} if at % 2 else {})})
            for at, number in enumerate(numbers)
        ]
        places = draw.sample(range(len(records)), len(records))
        found = TrialColumns(records, "best_val_accuracy").numbers("steps", np.array(places))
        assert list(map(repr, found)) == [repr(records[place].values["steps"]) for place in places]


def test_a_report_computes_the_curves_that_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    compute = median_curve

    def counted(records: Sequence[Record], metric: str) -> tuple[CurvePoint, ...]:
        computed.append(metric)
        return compute(records, metric)

    monkeypatch.setattr(summary_module, "median_curve", counted)
    directory = RunDirectory.open(large_run(tmp_path, 20, 2))
    summary = summarize(directory.run, directory.records(needed_by="report")[0])
    assert learning_curves(summary) is not None
    # Those of the nine that have a digit, and of the baseline if it is none of them.
    assert 5 <= len(computed) <= 10
