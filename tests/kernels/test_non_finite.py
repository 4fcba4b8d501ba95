"""Infinities and NaN come out of a step as they come out of torch's: here by torch's step and by plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.non_finite import NON_FINITE_CASES, assert_non_finite_as_torch

pytestmark = [pytest.mark.processor, pytest.mark.usefixtures("cpu_path")]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("which", ["parameter", "gradient", "state"])
@pytest.mark.parametrize(("fused_class", "torch_class", "options"), NON_FINITE_CASES)
def test_infinities_and_nan_come_out_as_torchs(
    fused_class: Any,
    torch_class: Any,
    options: dict[str, Any],
    which: str,
    plain: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if plain:
        monkeypatch.setattr(fused_class, "_torch_step_dtypes", ())
    assert_non_finite_as_torch(fused_class, torch_class, options, which)
