"""Golden reports of synthetic batch-size searches, and their pictures.

`UPDATE_GOLDEN=1 pytest tests/bench/batch_size/test_report.py` writes the reports anew.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fusetune.bench.batch_size.measurements import MeasuredStudy, Measurements, study_measurements
from fusetune.bench.batch_size.plot import draw_batch_size
from fusetune.bench.batch_size.report import render_batch_size
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, SizeRow
from fusetune.bench.batch_size.wording import devices_sentences
from fusetune.bench.results.outcomes import (
    DeviceMemory,
    DeviceProbe,
    EarlierRangeTests,
    EarlierTrainings,
    FailedMeasurement,
    MemoryPrediction,
    NoiseOutcome,
    RateAtSize,
    SizeToTarget,
    ThroughputOutcome,
)
from fusetune.bench.results.pictures import Pictures
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.stats.caveats import caveats_of
from fusetune.tuner.batch_size.largest import Overhead
from fusetune.tuner.memory.lines import Line, Moment, StepMemory

GOLDEN = Path(__file__).parents[1] / "golden"
MIB = 2**20
# Samples/s of a device that is full at about 256 samples.
RATES = {2: 800, 4: 1500, 8: 2600, 16: 4200, 32: 6000, 64: 7600, 100: 8500, 128: 8900, 256: 9700, 300: 9650}
LINE = Overhead(20.0 * MIB, 1.4)


def predicted(size: int) -> float:
    return (10 + 0.5 * size) * MIB


def size_rows(largest: int, failed: int | None) -> tuple[SizeRow, ...]:
    rows = [
        SizeRow(size, "predicted", predicted(size), LINE.needed(predicted(size)))
        for size in (2**exponent for exponent in range(11))
        if size not in (largest, failed)
    ]
    need = LINE.needed(predicted(largest))
    rows.append(SizeRow(largest, "ok", predicted(largest), 0.9 * need, need, 0.8 * need, -0.1, 0.03, probe=1))
    if failed:
        lower_bound = LINE.needed(predicted(failed)) + 3 * MIB
        rows.append(
            SizeRow(
                failed,
                "out_of_memory",
                predicted(failed),
                0.95 * lower_bound,
                lower_bound,
                reason="wanted at least 300 MiB, the limit is 256 MiB",
                probe=2,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.batch_size))


def configuration(largest: int | None = 300, failed: int | None = 330, **changes: Any) -> ConfigurationStudy:
    study = ConfigurationStudy(
        factors={},
        batch_size=largest,
        bound="memory",
        limit_bytes=256 * MIB,
        limit_source="--memory",
        samples=1200,
        phase="backward",
        parts={"parameters": 6 * MIB, "activations": 140 * MIB, "gradients": 0},
        method="traced",
        note="",
        overhead=LINE,
        rows=size_rows(largest, failed) if largest else (),
        probes=2 if failed else 1,
    )
    return dataclasses.replace(study, **changes)


def study_of(study: ConfigurationStudy, **changes: Any) -> BatchSizeStudy:
    run: dict[str, Any] = {
        "spec": {"name": "demo", "train": {"accumulation_steps": 1}},
        "spec_path": "specs/demo.yaml",
        "device": "cpu",
        "options": {"train_batch_size": 128, "device": None},
        "stand_in": None,
    }
    for key in ("spec_path", "stand_in"):
        run[key] = changes.pop(key, run[key])
    run["options"] |= changes.pop("options", {})
    info = RunInfo.from_dict(run)
    changes.setdefault("caveats", caveats_of(info, []))
    return BatchSizeStudy(info, None, (study,), "results/demo/20260102-030405-ab12", **changes)


def throughput_records() -> list[Record]:
    records = []
    for size, rate in RATES.items():
        times = [size / rate * (1 + 0.01 * ((5 * i + size) % 7 - 3)) for i in range(12)]
        records.append(
            Record(
                f"seed=0,batch_size={size},throughput",
                {"batch_size": size},
                0,
                "ok",
                samples={"step_time_s": times},
                outcome=ThroughputOutcome(),
            )
        )
    return records


def noise_record(epoch: int, noise_scale: float, gradient: float = 1.0) -> Record:
    """Ten pairs of 32 and 512 samples whose means give this noise scale; |G|^2 scatters by a tenth."""
    small, big = 32, 512
    squares = [gradient * (1 + 0.1 * ((3 * i) % 10 - 4.5) / 4.5) for i in range(10)]
    trace = noise_scale * gradient if gradient else noise_scale
    scatter = [0.1 * trace / big * ((7 * i) % 10 - 4.5) / 4.5 for i in range(10)]
    return Record(
        f"seed=0,noise,epoch={epoch}",
        {},
        0,
        "ok",
        values={"epochs": float(epoch), "steps": 10.0 * epoch},
        samples={
            "small_gradient_square": [square + trace / small for square in squares],
            "big_gradient_square": [
                square + trace * (1 / big - 1 / 10**6) + other
                for square, other in zip(squares, scatter, strict=True)
            ],
        },
        outcome=NoiseOutcome(small, big, samples=10**6, train_batch_size=128),
    )


def runs_record() -> Record:
    rows = tuple(
        SizeToTarget(
            size,
            size,
            {"batch_size": size},
            3,
            tuple(steps * (1 + 400 / size) for steps in (95, 100, 105)[: 3 if size < 256 else 1]),
            tuple(
                steps * (1 + 400 / size) * size / RATES[size]
                for steps in (95, 100, 105)[: 3 if size < 256 else 1]
            ),
        )
        for size in (16, 64, 128, 256)
    )
    run = EarlierTrainings("results/demo/20260101-010101-cd34", {}, rows)
    return Record("seed=0,runs", {}, 0, "ok", outcome=run)


def rates_record() -> Record:
    rows = tuple(
        RateAtSize(size, 0.01 * (size / 16) ** 0.7 * factor, {"batch_size": size})
        for size in (16, 64, 256)
        for factor in (0.9, 1.0, 1.1)
    )
    run = EarlierRangeTests("results/demo/20260101-020202-ef56", {}, rows)
    return Record("seed=0,rates", {}, 0, "ok", outcome=run)


Case = tuple[BatchSizeStudy, list[Record]]


def plateau_binds() -> Case:
    return study_of(configuration()), [*throughput_records(), noise_record(0, 60), noise_record(4, 9000)]


def noise_binds() -> Case:
    return study_of(configuration()), [*throughput_records(), noise_record(0, 20), noise_record(4, 40)]


def memory_binds() -> Case:
    small = configuration(100, 110, limit_bytes=104 * MIB)
    records = [record for record in throughput_records() if record.factors["batch_size"] <= 100]
    return study_of(small, options={"train_batch_size": 512}), [*records, noise_record(0, 5000)]


def noise_beyond_measure() -> Case:
    return study_of(configuration(), stand_in="made-up digits in place of digits"), [
        *throughput_records(),
        noise_record(0, 60),
        noise_record(4, 1000, gradient=0.0),
    ]


def runs_and_rates() -> Case:
    records = [*throughput_records(), noise_record(0, 60), noise_record(4, 900)]
    return study_of(configuration()), [*records, runs_record(), rates_record()]


def memory_alone() -> Case:
    return study_of(configuration(1200, None, bound="samples", limit_bytes=2048 * MIB)), []


def measurements_failed() -> Case:
    failures = [
        Record(
            f"seed=0,{name}",
            {},
            0,
            "failed",
            "the worker was killed by the system",
            outcome=FailedMeasurement(name),
        )
        for name in ("throughput", "noise")
    ]
    return study_of(configuration()), failures


def nothing_fits() -> Case:
    return study_of(configuration(None, None, bound="nothing fits", probes=0, failure="all probes died")), []


def device_not_there() -> Case:
    study = dataclasses.replace(study_of(configuration(failed=None, probes=0)), accelerator="a100-40")
    return study, []


def memory_of(devices: int) -> dict[str, Any]:
    """Return a memory whose weights are split among devices, and whose activations are not."""
    parts = {"parameters": Line(4.0 * MIB / devices, 0.0), "activations": Line(6.0 * MIB, 0.5 * MIB)}
    parts["data set"] = Line(0.0, 0.0)
    return StepMemory((Moment("backward", parts),)).as_dict()


def device_records() -> list[Record]:
    """Return the predictions for one device, for two and for eight."""
    alone = MemoryPrediction(memory_of(1), 1200, 256 * MIB, "--memory", 0)
    records = [Record("seed=0,prediction", {}, 0, "ok", outcome=alone)]
    for number in (2, 8):
        spread = DeviceMemory(number, "fsdp", memory_of(number), 1200 // number)
        records.append(Record(f"seed=0,devices={number}", {}, 0, "ok", outcome=spread))
    return records


def several_devices() -> Case:
    options = {"devices": [1, 2, 8], "parallel": "fsdp"}
    noise = [noise_record(0, 60), noise_record(4, 500)]
    return study_of(configuration(), options=options), [*throughput_records(), *noise, *device_records()]


def several_devices_were_timed() -> Case:
    study, records = several_devices()
    for run, (size, rate, status, need) in enumerate(
        ((624, 18_000.0, "ok", 246.0), (642, 0.0, "out_of_memory", 258.0), (128, 14_000.0, "ok", 78.0)),
        start=1,
    ):
        fits = status == "ok"
        steps = [size / rate * (1 + 0.01 * step) for step in range(-2, 3)] if fits else []
        records.append(
            Record(
                f"seed=0,devices=2,batch_size={size},probe={run}",
                {"batch_size": size},
                0,
                "ok" if fits else "out_of_memory",
                "" if fits else "rank 1 of 2: wanted 258 MiB, the limit is 256 MiB",
                values={"needed_bytes" if fits else "wanted_bytes": need * MIB},
                samples={"step_time_s": steps} if fits else {},
                outcome=DeviceProbe(2, "fsdp", 0.2),
            )
        )
    return study, records


def one_device_is_too_small() -> Case:
    alone = configuration(None, None, bound="nothing fits", probes=0, failure="one device has no room")
    options = {"devices": [1, 2, 8], "parallel": "fsdp"}
    return study_of(alone, options=options), device_records()


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        plateau_binds,
        noise_binds,
        memory_binds,
        noise_beyond_measure,
        runs_and_rates,
        memory_alone,
        measurements_failed,
        nothing_fits,
        device_not_there,
        several_devices,
        several_devices_were_timed,
        one_device_is_too_small,
    )
}


def measured(case: str) -> tuple[BatchSizeStudy, list[Measurements]]:
    study, records = CASES[case]()
    return study, study_measurements(study, records)


def text(study: BatchSizeStudy, measurements: list[Measurements], width: int = 100) -> str:
    stream = io.StringIO()
    render_batch_size(study, measurements, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_as_it_was(case: str) -> None:
    printed = text(*measured(case))
    path = GOLDEN / f"batch_size_{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("expected", "needed", "words"),
    [
        (9 * MIB + 4096, 4096, "+9.00 MiB"),
        (33 * MIB, 30 * MIB, "+10.0%"),
        (8 * MIB, 40 * MIB, "-32.0 MiB"),
        (24 * MIB, 30 * MIB, "-20.0%"),
    ],
)
def test_an_expectation_that_is_far_off_is_off_by_bytes(expected: float, needed: float, words: str) -> None:
    row = SizeRow(4, "ok", 1000.0, expected, needed, needed, expected / needed - 1, probe=1)
    study = study_of(configuration(4, None, rows=(row,), probes=1))
    assert words in text(study, study_measurements(study, []))


@pytest.mark.parametrize("case", CASES)
def test_the_report_fits_into_100_columns(case: str) -> None:
    lines = text(*measured(case)).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("case", "binds"),
    [
        ("plateau_binds", "throughput plateau"),
        ("noise_binds", "noise scale"),
        ("memory_binds", "memory"),
        ("noise_beyond_measure", "throughput plateau"),
        ("memory_alone", "samples"),
    ],
)
def test_each_limit_can_bind(case: str, binds: str) -> None:
    _, (found,) = measured(case)
    assert found.recommendation is not None
    assert found.recommendation.binds == binds


def test_each_of_several_devices_is_filled_up_to_the_limit() -> None:
    _, (found,) = measured("several_devices")
    alone, *spread = found.devices
    assert (alone.batch_size, alone.ran) == (300, True)
    for row in spread:
        # 20 MiB + 1.4 x tensors, of which a sample has 0.5 MiB
        room = (256 - 20) / 1.4 - 6 - 4 / row.devices
        most = min(2 * room, 1200 // row.devices)
        assert 0.9 * most < row.share <= most
        assert row.batch_size == row.devices * row.share
    assert found.device_choice is not None
    assert (found.device_choice.devices, found.device_choice.batch_size) == (2, 500)


def test_timed_devices_are_taken_by_the_expected_time() -> None:
    _, (found,) = measured("several_devices_were_timed")
    assert found.device_choice is not None
    # (1 + 128 / 500) / 14,000, and on one device (1 + 100 / 500) / 8,500 at best
    assert (found.device_choice.devices, found.device_choice.batch_size) == (2, 128)
    assert found.device_choice.binds == "time"
    assert "8 devices" in found.device_choice.reason


def test_what_ran_on_several_devices_counts_before_what_is_predicted() -> None:
    _, (found,) = measured("several_devices_were_timed")
    _, two, eight = found.devices
    # The batch that did not fit is a row, and not the answer.
    assert [(run.batch_size, run.status) for run in two.runs] == [
        (312, "ok"),
        (321, "out_of_memory"),
        (64, "ok"),
    ]
    assert (two.share, two.ran, two.expected_bytes) == (312, True, 246 * MIB)
    # Before the first run: the line of one device, and a slope that is 5 % steeper.
    assert two.runs[0].expected_bytes == pytest.approx((20 + 1.05 * 1.4 * (4 / 2 + 6 + 0.5 * 312)) * MIB)
    assert (eight.ran, eight.runs) == (False, ())
    assert found.failures == ()
    assert found.device_rates.keys() == {1, 2}
    assert "This batch ran in full under the limit of each device." in devices_sentences(found)[0]
    _, (unmeasured,) = measured("several_devices")
    assert "This batch is predicted, and did not run." in devices_sentences(unmeasured)[0]


def test_the_learning_rate_comes_from_the_fitted_power_law() -> None:
    _, (found,) = measured("runs_and_rates")
    assert found.recommendation is not None
    assert found.lr == pytest.approx(0.01 * (found.recommendation.batch_size / 16) ** 0.7, rel=0.02)
    assert found.scaling is not None
    assert found.scaling.exponent == pytest.approx(0.7, abs=0.02)


def test_the_trainings_count_before_the_noise_scale() -> None:
    _, (found,) = measured("runs_and_rates")
    assert found.critical_batch[1] == "the critical batch size"
    assert found.critical_batch[0] == pytest.approx(400, rel=0.15)


def test_all_of_it_is_in_the_json() -> None:
    study, measurements = measured("noise_beyond_measure")
    content = json.loads(json.dumps(MeasuredStudy(study, tuple(measurements)).as_dict(), allow_nan=False))
    (found,) = content["configurations"]
    assert [row["batch_size"] for row in found["rows"]][:3] == [1, 2, 4]
    inner = found["measurements"]
    assert inner["throughputs"][0]["batch_size"] == 2
    assert inner["recommendation"]["binds"] == "throughput plateau"
    assert inner["noise"][0]["scale"]["value"] == pytest.approx(60, rel=1e-3)
    assert (inner["noise"][1]["scale"]["value"], inner["noise"][1]["scale"]["high"]) == (None, None)


@pytest.mark.parametrize("case", ["runs_and_rates", "memory_alone", "nothing_fits"])
def test_the_pictures_are_drawn_where_there_is_something_to_see(case: str, tmp_path: Path) -> None:
    study, measurements = measured(case)
    pictures = Pictures(tmp_path, drawing=True)
    draw_batch_size(study, measurements, pictures)
    if case == "nothing_fits":
        assert not list(tmp_path.iterdir())
        return
    assert pictures.paths == [tmp_path / "batch-size.png"]
    assert pictures.paths[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "batch-size.svg").read_text()


def test_a_recommendation_on_contended_timings_says_so_and_what_to_do() -> None:
    study, records = plateau_binds()
    for missing, contended in ((0.02, False), (0.4, True)):
        timed = [
            dataclasses.replace(record, values={**record.values, "processor_missing": missing})
            if isinstance(record.outcome, ThroughputOutcome)
            else record
            for record in records
        ]
        printed = " ".join(text(study, study_measurements(study, timed)).split())
        assert ("40 % of the processor" in printed and "quiet machine" in printed) == contended
