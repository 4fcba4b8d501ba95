"""What Triton's own autotuner searched for is told: by its listener where there is one, and else by its autotuners."""

# ruff: noqa: N803
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels import searches_of_triton
from fusetune.kernels.triton_inside import search_listener

TIMES_MS = {64: 3.0, 128: 1.0, 256: 2.0}


def do_bench(call: Callable[[], None], quantiles: Any) -> list[float]:
    """A clock that knows each config's time. The kernel tells its block by what it writes."""
    call()
    time = TIMES_MS[int(WRITTEN.abs().sum())]
    return [time, time / 2, time * 2]


WRITTEN = torch.zeros(1)


def tuned_kernel(**options: Any) -> Any:
    @triton.autotune(
        [triton.Config({"BLOCK": block}, num_warps=4) for block in TIMES_MS], key=["n"], **options
    )
    @triton.jit
    def tell_block(out, n, BLOCK: tl.constexpr):
        tl.store(out, BLOCK * 1.0)

    return tell_block


def test_a_search_is_told_with_its_timings() -> None:
    kernel = tuned_kernel(do_bench=do_bench)
    with searches_of_triton() as found:
        kernel[(1,)](WRITTEN, 1000)
    (search,) = found
    assert search.kernel == "tell_block"
    assert search.key == ("1000", "torch.float32")
    assert [config["BLOCK"] for config in search.configs] == [64, 128, 256]
    flat = [time for times in search.latencies_s for time in times]
    assert flat == pytest.approx([3e-3, 1.5e-3, 6e-3, 1e-3, 5e-4, 2e-3, 2e-3, 1e-3, 4e-3])
    assert search.best == {"BLOCK": 128, "num_warps": 4, "num_stages": 3}
    assert search.seconds is not None
    assert not search.from_cache
    assert search.sentence.startswith(
        "Triton chose BLOCK 128, num_warps 4, num_stages 3 for tell_block (1000, torch"
    )


def test_what_was_tuned_before_is_not_told_again() -> None:
    kernel = tuned_kernel(do_bench=do_bench)
    kernel[(1,)](WRITTEN, 1000)
    with searches_of_triton() as found:
        kernel[(1,)](WRITTEN, 1000)
        assert found == []
        kernel[(1,)](WRITTEN, 2000)
        kernel[(1,)](WRITTEN, 3000)
    assert [search.key[0] for search in found] == ["2000", "3000"]
    assert found[-1].latencies_s


def test_a_config_that_cannot_be_launched_is_infinitely_slow() -> None:
    def fails(call: Callable[[], None], quantiles: Any) -> list[float]:
        times = do_bench(call, quantiles)
        return times if times[0] < 3 else [math.inf] * 3

    kernel = tuned_kernel(do_bench=fails)
    with searches_of_triton() as found:
        kernel[(1,)](WRITTEN, 1000)
    assert found[0].failed == 1
    assert "of 3 configs, of which 1 failed" in found[0].sentence


def test_timings_of_the_disk_cache_are_said_to_be(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    found = []
    for _ in range(2):
        kernel = tuned_kernel(do_bench=do_bench, cache_results=True)
        with searches_of_triton() as searches:
            kernel[(1,)](WRITTEN, 1000)
        found += searches
    assert [search.from_cache for search in found] == [False, True]
    assert found[1].seconds is None
    assert found[1].best == found[0].best
    assert found[1].sentence.endswith("by its cache on disk")


def test_where_triton_tells_it_is_listened_to_and_others_still_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Triton 3.9 calls it, whatever release is installed."""
    others: list[Any] = []
    settings = SimpleNamespace(cache=False, listener=lambda **told: others.append(told))
    monkeypatch.setattr(triton.knobs, "autotuning", settings)
    mine = settings.listener
    kernel = tuned_kernel(do_bench=do_bench)
    config = kernel.configs[1]
    with searches_of_triton() as found:
        settings.listener(
            fn=kernel.fn,
            key=(1000, "torch.float32"),
            best_config=config,
            configs_timings={config: [1.0, 0.5, 2.0]},
            duration=0.25,
            cache_hit=False,
        )
    assert settings.listener is mine
    assert len(others) == 1
    assert (found[0].kernel, found[0].seconds, found[0].latencies_s) == (
        "tell_block",
        0.25,
        ((1e-3, 5e-4, 2e-3),),
    )


def test_a_triton_without_listeners_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs, "autotuning", SimpleNamespace())
    assert search_listener(None) == (False, None)
