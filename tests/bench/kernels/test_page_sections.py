"""What the page says of kernels: the numbers of the study, whatever has no time in words, and plots that compile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fusetune.bench.kernels import CopySpeed, Row, SideResult, kernels_part, study_rows
from fusetune.bench.kernels.records import record_of_row
from fusetune.bench.page import DataTable, Fold, Part
from fusetune.kernels import TritonSearch
from tests.bench.kernels.made_rows import (
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
from tests.bench.page_reader import blocks, check_page, line, plot, plots, sentences, table

HOSTILE = "gelu</script><script>alert(1)</script>\"'[x].y"


def part_of(rows: Sequence[Row]) -> Part:
    records = [record_of_row(each) for each in rows]
    return kernels_part(study_rows(run_info(), records, "results/kernels/one"), records)


def test_the_roofline_has_the_bytes_the_medians_and_the_copy_of_the_same_run() -> None:
    drawn = plot(part_of([good_row(), short_row(), failed_row()]), "Time of a call against the bytes")
    calls = drawn.data["calls"]
    ours = [at for at, side in enumerate(calls["side"]) if side == "ours"]
    # Made rows: 812 us for 8 MiB, 21.3 us for 8000 bytes. A row without a time has no point.
    assert [calls["bytes"][at] for at in ours] == [8 * 2**20, 8000]
    assert [calls["time"][at] for at in ours] == pytest.approx([812e-6, 21.3e-6])
    assert [calls["share"][at] for at in ours] == ["98 %", "2 %"]
    assert drawn.data["roof"]["copy"] == ["copy, DRAM", "copy, L2"]
    assert drawn.data["roof"]["time"] == pytest.approx([8 * 2**20 / 10.5e9, 8000 / 25e9])
    assert "with 98 %, the farthest gelu/1000/float32 with 2 %" in drawn.alt


def test_bandwidth_is_bytes_over_the_median_beside_copy_and_data_sheet() -> None:
    drawn = plot(part_of([good_row(), noisy_row()]), "Bandwidth of each row").data["rows"]
    assert drawn["rate"] == pytest.approx([8 * 2**20 / 812e-6 / 1e9, 2500.0])
    assert drawn["copy"] == pytest.approx([10.5, 3000.0])
    assert drawn["sheet"] == [None, pytest.approx(3350.0)]
    # Between the 80 % and the 20 % quantile of the rounds: made ones lie 2 % around 812 us.
    assert drawn["low"][0] == pytest.approx(8 * 2**20 / (812e-6 * 1.012) / 1e9, rel=1e-3)
    assert drawn["high"][0] == pytest.approx(8 * 2**20 / (812e-6 * 0.988) / 1e9, rel=1e-3)


def test_a_speedup_that_may_be_none_stays_unclear_in_table_and_plot() -> None:
    part = part_of([good_row(), noisy_row()])
    assert line(table(part, "Rows"), "adam/resnet50/float32")["against eager"].text.startswith("~1.01x")
    assert line(table(part, "Rows"), "adam/resnet50/float32")["against eager"].tone == "plain"
    assert line(table(part, "Rows"), "gelu/1048576/float32")["against eager"].text == "1.52x"
    drawn = plot(part, "Speed against competitors").data["speedups"]
    told = dict(zip(zip(drawn["row"], drawn["side"], strict=True), drawn["told"], strict=True))
    assert told["adam/resnet50/float32", "eager"] == "~"
    assert told["gelu/1048576/float32", "eager"] == "can tell"
    assert plot(part, "Speed against").alt.endswith("faster in 2, slower in 0, and 1 cannot be told.")


def test_a_row_without_a_time_says_why_and_has_no_number() -> None:
    throttled = row([SideResult("ours", void_rounds=4), side("eager", 1e-3)], case("relu"))
    part = part_of([good_row(), failed_row(), throttled])
    assert part.answer == (
        "2 of 3 rows without a time: 1 wrong, 1 void, and the others move their bytes at 98 % of the copy's rate."
    )
    rows = table(part, "Rows")
    wrong = line(rows, "gelu_tanh/1048576/bfloat16")
    assert (wrong["latency"].text, wrong["bandwidth"].text, wrong["latency"].order) == (
        "none, wrong",
        "-",
        None,
    )
    assert line(rows, "relu/1048576/float32")["latency"].text == "none, void"
    assert any(
        each.startswith("gelu_tanh/1048576/bfloat16: wrong: at 1,048,576 elements")
        for each in sentences(part)
    )
    assert (
        "relu/1048576/float32: void: 4 rounds void, because the device was throttled, and no other is left."
        in sentences(part)
    )
    assert "liger: liger-kernel is not installed (gelu/1048576/float32)." in sentences(part)


def test_what_a_reader_must_know_of_a_row_is_said() -> None:
    said = sentences(part_of([noisy_row()]))
    for what in (
        "contended: 20 % of the processor missing",
        "3 rounds void",
        "differ in their bits",
        "one shape",
    ):
        assert any(what in each for each in said), what
    part = part_of([noisy_row()])
    counted = line(table(part, "What else was counted"), "adam/resnet50/float32")
    assert (counted["void rounds"].text, counted["launch config"].text) == ("3", "BLOCK=1024 num_warps=4")
    forecast = line(table(part, "Forecasts"), "adam/resnet50/float32")
    assert (forecast["target"].text, forecast["GPU"].text, forecast["registers"].order) == (
        "sm_90",
        "H100 SXM",
        40.0,
    )


def test_contention_is_said_openly() -> None:
    said = "Others had more than 10 % of the processor in 1 of 2 rows, the most in adam/resnet50/float32: 20 % of it"
    assert any(each.startswith(said) for each in sentences(part_of([good_row(), noisy_row()])))
    assert not any("Others had" in each for each in sentences(part_of([good_row()])))


def test_errors_stand_beside_their_limits() -> None:
    checks = table(part_of([good_row(), failed_row()]), "Results against float64")
    right, wrong = line(checks, "gelu/1048576/float32"), line(checks, "gelu_tanh/1048576/bfloat16")
    assert (right["error"].text, right["limit"].text, right["error / limit"].order) == (
        "3.1e-7",
        "2.0e-6",
        0.155,
    )
    assert (wrong["error"].text, wrong["error"].tone) == ("3.2e-2", "bad")


def test_all_clocks_of_a_row_stand_side_by_side() -> None:
    drawn = plot(part_of([short_row(), good_row()]), "other clocks")
    found = drawn.data["policies"]
    assert found["policy"] == ["wall, cold", "wall, warm", "kernel, cold"]
    assert found["time"] == pytest.approx([21.3, 14.1, 3.02])  # us
    assert "3.02 us to 21.3 us" in drawn.alt


def test_a_sweep_is_drawn_below_its_copies() -> None:
    drawn = plot(part_of(sweep_rows()), "silu/float32 over its sizes")
    sides = drawn.data["sides"]
    largest = max(at for at, name in enumerate(sides["side"]) if name == "ours")
    assert sides["rate"][largest] == pytest.approx(8 * 2**22 / (10e-6 + 8 * 2**22 / 10e9) / 1e9)
    assert drawn.data["roof"]["rate"] == pytest.approx([11.0] * 6)


def test_what_tritons_own_autotuner_tried_is_a_table() -> None:
    search = TritonSearch(
        "add", ("8",), ({"BLOCK": 8}, {"BLOCK": 16}), ((2e-6,) * 3, (1e-6,) * 3), {"BLOCK": 16}, 0.5
    )
    part = part_of([good_row(searches=(search.as_row(),))])
    fold = next(each for each in blocks(part) if isinstance(each, Fold) and "Triton chose" in each.title)
    (tried,) = fold.blocks
    assert isinstance(tried, DataTable)
    assert [[cell.text for cell in cells] for cells in tried.rows] == [
        ["16", "1.00 us", "1.00 us", "1.00 us", "chosen"],
        ["8", "2.00 us", "2.00 us", "2.00 us", ""],
    ]


def test_many_rows_are_drawn_in_part_and_listed_in_full() -> None:
    rows = [replace(good_row(), case=case(f"kernel{number}")) for number in range(60)]
    part = part_of(rows)
    drawn = plot(part, "Bandwidth of each row")
    assert len(drawn.data["rows"]["row"]) == 40
    assert "The first 40 of 60 rows" in drawn.caption
    assert len(table(part, "Rows").rows) == 60


@pytest.mark.parametrize("rows", [[], [failed_row()], [good_row()], [*all_rows(), *sweep_rows()]])
def test_each_plot_compiles_and_the_page_renders(rows: list[Row]) -> None:
    assert "<h1" in check_page(part_of(rows))


def test_names_of_others_are_never_markup() -> None:
    hostile = replace(
        good_row(),
        case=case(HOSTILE),
        notes=(HOSTILE,),
        copy=CopySpeed(1e9, HOSTILE, 8),
        sides=(*good_row().sides, SideResult(HOSTILE, "skipped", HOSTILE)),
    )
    part = part_of([hostile])
    assert "<script>alert" not in check_page(part)
    assert HOSTILE not in json.dumps([each.spec for each in plots(part)], default=dict)
