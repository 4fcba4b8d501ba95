"""A person's kernel, from its file to a row: built, verified against float64 in lanes, and given its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.measurement import Settings, measure
from fusetune.bench.kernels.sources import kernel_source

OWN = Path(__file__).with_name("own_kernels")
# Bytes an element, or in all where the size is the author's.
FORMS = {
    "in_place": (4096, 5 * 4 * 4096),
    "star_inputs": (4096, 4 * 4 * 4096),
    "three_functions": (5000, 3 * 4 * 5000),
    "lists_of_tensors": (1000, 2 * 4 * 1011),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_each_form_becomes_a_row(form: str) -> None:
    elements, size = FORMS[form]
    case = Case(kernel_source(str(OWN / f"{form}.py")), form, elements, "float32")
    (row,) = measure([case], Settings(timed=False))
    assert (row.status, row.ours.reason) == ("ok", "")
    assert row.bytes_moved == size
    found = row.ours.verification
    assert found is not None
    assert 0 <= found.error <= found.tolerance
    assert found.checked >= 3


@pytest.mark.slow
def test_a_file_that_lacks_something_is_a_row_that_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def fused(x): return x\ndef reference(x): return x\n")
    case = Case(kernel_source(str(tmp_path / "mine.py")), "mine", 8, "float32")
    (row,) = measure([case], Settings(timed=False))
    assert row.status == "does not build"
    assert "mine.py:fused: has no make_inputs, which makes what it is called with" in row.ours.reason
