"""Hand-made results of the gate that cover each outcome, for the tests of all outputs."""

from __future__ import annotations

import math
from dataclasses import replace

from fusetune.bench.gate import GateResult, Row, Side
from fusetune.bench.gate.wording import sentence

BASE = Side("main", "0123456789abcdef0123456789abcdef01234567", False, {"device": "cpu"}, {"torch": "2.13.0"})
HEAD = Side(
    "working tree", "fedcba9876543210fedcba9876543210fedcba98", True, {"device": "cpu"}, {"torch": "2.13.0"}
)
ADAM = "smoke: optimizer=adam"


def said(row: Row, reason: str = "") -> Row:
    return replace(row, sentence=sentence(row, reason=reason))


SLOWER = said(
    Row("smoke", "step_time_s", "timing", "regressed", "", base=0.0123, head=0.0138, effect=0.123, low=0.101,
        high=0.146, p=0.00004, n=10, detectable=0.031)
)  # fmt: skip
HUNGRIER = Row(
    "smoke", "peak_bytes", "exact", "regressed",
    "Head has 1.10 GiB and base 1.00 GiB (+10.0 %), the same in every process (n = 10).",
    "bytes", base=2.0**30, head=1.1 * 2**30, effect=0.1, n=10, threshold=0.0,
)  # fmt: skip
MISSED = said(
    Row("smoke", "steps_to_target", "learning", "regressed", "", "count", base=310.0, head=math.inf, p=0.004, n=5,
        threshold=0.05),
    "the target was missed on 0 seeds of base and 5 of head",
)  # fmt: skip
FAILED = Row(
    "smoke", "failure", "exact", "regressed",
    "Head failed and base did not in 2 of 10 pairs: the loss was NaN at step 3.",
    "count", base=0.0, head=2.0, n=10, threshold=0.0,
)  # fmt: skip
UNCLEAR = replace(
    said(
        Row("smoke", "samples_per_s", "timing", "can't tell", "", "samples/s", "higher", base=5200.0, head=5100.0,
            effect=-0.02, low=-0.08, high=0.03, p=0.21, n=20, detectable=0.09)
    ),
    advice="About 14 more pairs (6 min) should make it clear, "
    "or a quieter machine, because these timings are contended.",
)  # fmt: skip
EQUAL = said(
    Row(ADAM, "step_time_s", "timing", "pass", "", base=0.0123, head=0.0124, effect=0.003, low=-0.006, high=0.011,
        p=0.31, n=5, detectable=0.028)
)  # fmt: skip
SAME_SIZE = Row(
    ADAM, "peak_bytes", "exact", "pass", "Both sides have 1.00 GiB in every process (n = 5).",
    "bytes", base=2.0**30, head=2.0**30, effect=0.0, n=5, threshold=0.0,
)  # fmt: skip
FASTER = said(
    Row(ADAM, "time_to_target_s", "timing", "improved", "", base=12.1, head=9.8, effect=-0.19, low=-0.22, high=-0.16,
        p=0.0001, n=10, detectable=0.05)
)  # fmt: skip
GONE = Row(
    ADAM, "final_val_accuracy", "learning", "missing", "Base has it and head does not.", "fraction", "higher",
    base=0.93, n=5, threshold=0.01,
)  # fmt: skip
NOTES = (
    "STAND-IN DATA: cifar10 is not on this machine.",
    "3 of 30 pairs ran while others had more than 10 % of the processor.",
)


def result(*rows: Row, title: str = "specs/smoke.yaml", notes: tuple[str, ...] = ()) -> GateResult:
    pairs = {row.benchmark: row.n for row in rows}
    directory = "results/gate/20260102-030405-ab12"
    return GateResult(title, BASE, HEAD, rows, notes, pairs, 412.0, 600.0, directory)


def everything() -> GateResult:
    return result(FAILED, SLOWER, HUNGRIER, UNCLEAR, MISSED, EQUAL, SAME_SIZE, FASTER, GONE, notes=NOTES)


def slower() -> GateResult:
    return result(SLOWER, EQUAL)


def failed() -> GateResult:
    return result(FAILED, EQUAL)


def gone() -> GateResult:
    return result(EQUAL, GONE)


def unclear() -> GateResult:
    return result(UNCLEAR, EQUAL, SAME_SIZE)


def faster() -> GateResult:
    return result(EQUAL, FASTER)


def passed() -> GateResult:
    return result(EQUAL, SAME_SIZE)


def one_row() -> GateResult:
    return result(EQUAL)


def nothing() -> GateResult:
    return result(notes=("Head alone has the benchmark smoke.",))


def stored() -> GateResult:
    """Two stored results: no pairs, no budget, no directory."""
    sides = Side("results/smoke/a", None), Side("results/smoke/b", None, environment="own")
    return GateResult("smoke", *sides, (EQUAL, SLOWER), ("A stored baseline lies more.",), kind="compare")


HOSTILE = "a|b`c` <script>alert(1)</script> @everyone #12 [x](http://evil.example) \x1b[31m\nnext \u202e **bold** $x$"


def hostile() -> GateResult:
    row = replace(
        SLOWER, benchmark=HOSTILE, metric="m|`<!--`", sentence=f"Head failed: {HOSTILE}.", advice=HOSTILE
    )
    sides = Side(f"refs/{HOSTILE}"), Side(HOSTILE)
    return GateResult(HOSTILE, *sides, (row,), (HOSTILE,), {HOSTILE: 5}, directory=HOSTILE)


CASES = [everything, slower, failed, gone, unclear, faster, passed, one_row, nothing, stored, hostile]
