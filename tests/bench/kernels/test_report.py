"""What a person sees of kernel benchmarks, on rows made by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.kernels import Row, SideResult, study_rows
from fusetune.bench.kernels.outputs import as_csv, as_json, as_markdown, json_rows
from fusetune.bench.kernels.plot import draw
from fusetune.bench.kernels.records import record_of_row
from fusetune.bench.kernels.report import render_rows, show_rows
from fusetune.bench.kernels.study import KernelsStudy, study_row, sweeps_of
from fusetune.bench.results import Pictures
from fusetune.bench.terminal import SafeConsole
from fusetune.errors import InvalidValueError
from fusetune.kernels import TritonSearch
from tests.bench.kernels.made_rows import (
    COLD,
    all_rows,
    case,
    failed_row,
    good_row,
    noisy_row,
    row,
    run_info,
    short_row,
    side,
    sweep_rows,
)


def studied(rows: list[Row], **others: Any) -> KernelsStudy:
    return study_rows(run_info(**others), [record_of_row(each) for each in rows], "results/kernels/one")


def printed(study: KernelsStudy, width: int = 100) -> list[str]:
    console = SafeConsole(width=width, color_system=None, file=io.StringIO())
    render_rows(study, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def points(data: Any) -> list[float]:
    return [float(each) for each in data]


def test_the_report_of_a_good_row_word_by_word() -> None:
    assert printed(studied([good_row(), failed_row()])) == [
        "kernels: 2 rows ────────────────────────────────────────────────────────────────────────────────────",
        "Example CPU   1 thread   clock: wall, cold",
        "best copy of as many bytes: DRAM 10.5 GB/s",
        "",
        "                                latency        p20 .. p80   n  bandwidth    of copy  of datasheet",
        "gelu/1048576/float32             812 us  802 us .. 822 us  20  10.3 GB/s  98 % DRAM             -",
        "    eager 1.52x [1.52, 1.52]   compile 1.00x [1.00, 1.00]   liger: liger-kernel is not installed",
        "    error 3.1e-7 (limit 2.0e-6)   1 launch   host 21.0 us   compile 1.20 s   extra 0 B",
        "gelu_tanh/1048576/bfloat16",
        "    wrong: at 1,048,576 elements the largest error is 3.2e-02 of the scale of the result, and",
        "    2.0e-06 passes",
        "    1 launch   compile 1.10 s",
        "",
        "1 of 2 rows without a time: 1 wrong",
        "against eager: faster in 1, slower in 0, can't tell in 0 of 1",
        "against compile: faster in 1, slower in 0, can't tell in 0 of 1",
        "records: results/kernels/one",
    ]


def test_everything_fits_a_hundred_columns_and_says_what_it_must() -> None:
    lines = printed(studied([*all_rows(), *sweep_rows()]))
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for said in (
        "by clock: wall, cold 21.3 us   wall, warm 14.1 us   kernel, cold 3.02 us",  # shorter than 50 us
        "impossible: 52.0 GB/s is more than the best copy of as many bytes, 25.0 GB/s in L2",
        "eager ~",  # the rounds cannot tell
        "~ the rounds cannot tell the two sides apart",
        "75 %",  # of the data sheet
        "3 rounds void, because the device was throttled",
        "contended: 20 % of the processor missing",
        "two calls on the same values differ in their bits",
        "sm_90: H100 SXM, memory-bound, 100 % of copy, 40 registers, 0 spills",
        "BLOCK=1024 num_warps=4",
        "silu/float32 over its sizes",
        "best copy of as many bytes: DRAM 10.5 GB/s .. 3000 GB/s, L2 25.0 GB/s",
    ):
        assert said in text, said
    assert "by clock" not in "\n".join(printed(studied([good_row()])))  # longer than 50 us


def test_what_triton_tuned_is_a_table_below_its_row() -> None:
    configs = tuple({"BLOCK": block} for block in (64, 128, 256))
    times = ((3e-6, 2e-6, 4e-6), (1e-6, 1e-6, 2e-6), (math.inf,) * 3)
    search = TritonSearch("negate", ("1000", "torch.float32"), configs, times, configs[1], 0.5)
    lines = printed(studied([replace(good_row(), searches=(search.as_row(),))]))
    assert any("Triton chose BLOCK 128 for negate" in line for line in lines)
    start = next(place for place, line in enumerate(lines) if line.split()[:1] == ["BLOCK"])
    assert max(map(len, lines)) <= 100
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["128", "1.00", "us", "1.00", "us", "2.00", "us", "1.00x", "chosen"],
        ["64", "3.00", "us", "2.00", "us", "4.00", "us", "3.00x"],
        ["256", "-", "failed"],
    ]


def test_a_name_or_a_reason_of_others_controls_no_terminal() -> None:
    ours = SideResult("ours", "crashed", "\x1b[2J[red]gone")
    text = "\n".join(printed(studied([row([ours], case("mine\x1b]0;x\x07"))])))
    assert "\x1b" not in text
    assert "[red]gone" in text


def test_json_has_a_latency_only_where_the_row_is_ok() -> None:
    study = studied(all_rows())
    rows = json.loads(as_json(study))
    assert rows == json.loads(json.dumps(json_rows(study)))
    assert [each["status"] for each in rows] == ["ok", "ok", "wrong", "ok", "impossible"]
    for each in rows:
        assert ("latency_s" in each) == (each["status"] == "ok")
        assert ("reason" in each and bool(each["reason"])) == (each["status"] != "ok")
    assert rows[0]["latency_s"] == pytest.approx(812e-6)
    assert rows[0]["bandwidth_bytes_per_s"] == pytest.approx(8 * 2**20 / 812e-6)
    assert rows[0]["share_of_copy"] == pytest.approx(8 * 2**20 / 812e-6 / 10.5e9)
    assert rows[0]["missing"] == {"liger": "liger-kernel is not installed"}
    assert rows[3]["share_of_datasheet"] == pytest.approx(250e6 / 100e-6 / 3.35e12)


def test_csv_has_a_line_a_row_and_three_columns_a_competitor() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(studied(all_rows())))))
    assert [each["status"] for each in rows] == ["ok", "ok", "wrong", "ok", "impossible"]
    assert float(rows[0]["speedup_over_eager"]) == pytest.approx(1234 / 812)
    assert float(rows[3]["speedup_over_eager_low"]) < 1 < float(rows[3]["speedup_over_eager_high"])
    assert rows[1]["speedup_over_compile"] == rows[2]["latency_s"] == ""


def test_markdown_escapes_what_is_of_others() -> None:
    ours = SideResult("ours", "crashed", "@all | <b>")
    text = as_markdown(studied([good_row(), row([ours], case("a|b"))]))
    assert "| gelu/1048576/float32 | 812 us |" in text
    assert "a&#124;b/1048576/float32" in text
    assert "@all" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_a_sweep_is_drawn_with_the_copy_as_its_roofline(tmp_path: Path) -> None:
    study = studied([good_row(), *sweep_rows()])
    (sweep,) = sweeps_of(study.rows)
    assert sweep.name == "silu/float32"
    figure = draw("kernels", sweep)
    latency, bandwidth = figure.axes
    lines = {line.get_label(): line for line in bandwidth.get_lines()}
    assert points(lines["copy of as many bytes"].get_ydata()) == [11.0] * 6
    moved = points(lines["ours"].get_xdata())
    expected = [m / (10e-6 + m / 10e9) / 1e9 for m in moved]  # 10 us, then 10 GB/s
    assert points(lines["ours"].get_ydata()) == pytest.approx(expected, rel=1e-6)
    assert latency.get_xscale() == latency.get_yscale() == "log"
    pictures = Pictures(tmp_path, drawing=True)
    show_rows(study, SafeConsole(width=100, file=io.StringIO()), pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.png", "sweep.svg"]


def test_two_sizes_are_no_sweep_and_models_are_none() -> None:
    assert sweeps_of(studied(sweep_rows()[:2]).rows) == ()
    assert sweeps_of(studied([noisy_row()]).rows) == ()


def test_speedups_are_of_paired_rounds_so_that_a_drift_cancels() -> None:
    drift = [1 + 0.1 * i for i in range(20)]
    ours = SideResult("ours", latencies_s={COLD.name: [1e-3 * d for d in drift]})
    eager = SideResult("eager", latencies_s={COLD.name: [1.5e-3 * d for d in drift]})
    found = study_row(row([ours, eager])).speedups
    assert found is not None
    assert (found["eager"].value, found["eager"].low, found["eager"].high) == pytest.approx((1.5, 1.5, 1.5))
    assert found["eager"].can_tell


def test_a_time_that_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="a time of ours is not above 0"):
        study_row(row([side("ours", -1.0)]))


def test_a_short_call_shows_what_is_on_the_clock_in_json_too() -> None:
    (found,) = json_rows(studied([short_row()]))
    assert list(found["policies"]) == ["wall, cold", "wall, warm", "kernel, cold"]
