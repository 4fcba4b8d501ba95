"""Which launch config a launch takes, how often entries are read, and that it is over before the steady state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fusetune.bench.run.trial import tuned_configs
from fusetune.errors import InvalidValueError
from fusetune.kernels import KERNELS, FusedAdam, FusedAdamW, FusedSGD, activation, trust
from fusetune.kernels.autotune import (
    Entry,
    Lookup,
    best_config,
    elementwise_space,
    entries,
    export_entries,
    forced_config,
    forcing,
    forget,
    lookups_of,
    ship_entries,
    used_configs,
    write_entry,
)
from fusetune.kernels.autotune import lookup as lookup_module
from fusetune.kernels.kernel import Config, Inputs, Kernel
from fusetune.kernels.launch import LaunchConfig, as_if_on_gpu
from tests.kernels.profiled import profile

pytestmark = pytest.mark.usefixtures("cpu_driver")
CPU = torch.device("cpu")
TUNED: Config = {"BLOCK_SIZE": 4096, "num_warps": 4, "num_stages": 1}


def lookup(name: str, elements: int = 5000, dtype: torch.dtype = torch.float32) -> Lookup:
    """The only lookup of a call."""
    kernel = KERNELS[name]
    (found,) = lookups_of(kernel, kernel.make_inputs(elements, dtype, CPU, 0))
    return found


def tune(name: str, config: Config = TUNED, elements: int = 5000, dtype: torch.dtype = torch.float32) -> None:
    """Write an entry for the call of a kernel of this package."""
    write_entry(Entry(lookup(name, elements, dtype).key, config))
    forget()


def call(name: str, elements: int = 5000, dtype: torch.dtype = torch.float32) -> Inputs:
    """Call a kernel of this package. Returns its inputs afterwards."""
    inputs = KERNELS[name].make_inputs(elements, dtype, CPU, 0)
    KERNELS[name].fused(**inputs)
    return inputs


def origins() -> list[tuple[str, int, str]]:
    """What was used: kernel, block size, origin."""
    return [(used.kernel, used.config["BLOCK_SIZE"], used.origin) for used in used_configs()]


@pytest.mark.parametrize("name", ["relu", "gelu_backward", "momentum"])
def test_a_launch_takes_the_entry_of_its_key(name: str, cache: Path) -> None:
    launched = lookup(name).key.kernel
    call(name)
    assert origins() == [(launched, 1024, "default")]
    tune(name)
    call(name)
    assert origins() == [(launched, 4096, "tuned")]
    assert used_configs()[0].entry == lookup(name).key.digest
    call(name, 50_000)
    assert origins()[1:] == [(launched, 1024, "default")]
    call(name, dtype=torch.bfloat16)
    assert origins()[2:] == [(launched, 1024, "default")]


def test_a_record_names_what_was_tuned(cache: Path) -> None:
    call("gelu")
    assert tuned_configs() == []
    tune("relu")
    call("relu")
    assert tuned_configs() == ["relu, float32, 2^13: BLOCK_SIZE=4096 num_stages=1 num_warps=4"]


def test_what_is_launched_is_the_entry(cache: Path) -> None:
    """By the number of programs, which the launch itself says."""
    programs: list[int] = []
    tune("relu", elements=8192)
    from fusetune.kernels.activations.kernels import forward_kernel

    with watched_grid(forward_kernel, programs):
        call("relu", 8192)
        with forced_config({"BLOCK_SIZE": 256}):
            call("relu", 8192)
    assert programs == [8192 // 4096, 8192 // 256]


@contextmanager
def watched_grid(kernel: Any, programs: list[int]) -> Iterator[None]:
    """Note the grid of each launch by the binder."""
    original = type(kernel).run

    def run(self: Any, *args: Any, grid: Any, **options: Any) -> Any:
        programs.append(grid[0])
        return original(self, *args, grid=grid, **options)

    type(kernel).run = run
    try:
        yield
    finally:
        type(kernel).run = original


def files_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read from now on."""
    read: list[Path] = []

    def noted(path: Path) -> bytes | None:
        read.append(path)
        return trust.read_trusted(path)

    monkeypatch.setattr(entries, "read_trusted", noted)
    return read


def test_an_entry_is_read_once_for_all_sizes_of_a_bucket(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune("relu")
    read = files_read(monkeypatch)
    for elements in (4992, 5001, 6000, 6001, 4992, 5001):
        call("relu", elements)
    assert len(read) == len(set(read)) == 2  # with and without a tail
    assert {used.size for used in used_configs()} == {"2^13"}


def test_without_any_entry_nothing_is_opened(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "read_trusted", lambda path: pytest.fail(f"opened {path}"))
    call("relu")
    call("adam")
    assert not cache.exists()


@pytest.mark.parametrize("name", ["activation", "adam", "sgd"])
def test_a_launch_in_the_steady_state_costs_no_call_more(name: str, cache: Path) -> None:
    """No function of the tuning room runs, and those that do are as many with an entry as without."""

    def step() -> None:
        if name == "activation":
            activation(x, "gelu", bias).sum().backward()
        else:
            for p in parameters:
                p.grad = torch.ones_like(p)
            optimizer.step()

    counts: list[int] = []
    seen: list[Any] = []
    for tuned in (False, True):
        x, bias = torch.randn(64, 128, requires_grad=True), torch.randn(128, requires_grad=True)
        parameters = [torch.nn.Parameter(torch.randn(300)) for _ in range(3)]
        optimizer = (FusedAdam if name == "adam" else FusedSGD)(parameters, lr=0.1)
        if tuned:
            for used in used_configs():
                assert used.origin == "default"
            for key in seen:
                write_entry(Entry(key, TUNED))
            forget()
        step()
        step()
        step()
        called = calls_of(step)
        assert not [file for file in called if "fusetune/kernels/autotune/" in file]
        counts.append(len(called))
        seen = keys_of(step)
    assert {used.origin for used in used_configs()} == {"tuned"}
    assert counts[0] == counts[1]


def calls_of(step: Callable[[], Any]) -> list[str]:
    """The file of each Python function that a call runs, in order."""
    files: list[str] = []
    profile(step, lambda frame, event, _: files.append(frame.f_code.co_filename) if event == "call" else None)
    return files


def keys_of(step: Callable[[], None]) -> list[Any]:
    """The keys that a call looks up."""
    kernel = Kernel("step", lambda: step(), lambda: None, lambda *_: {}, configs=({"BLOCK_SIZE": 1},))
    return [found.key for found in lookups_of(kernel, {})]


def test_a_forced_config_goes_before_an_entry_and_comes_back_without_preparation(cache: Path) -> None:
    tune("relu")
    x = torch.randn(5000)
    with forced_config({"BLOCK_SIZE": 512}):
        activation(x, "relu")
    activation(x, "relu")
    assert [row for row in origins() if row[0] == "relu"] == [
        ("relu", 512, "forced"),
        ("relu", 4096, "tuned"),
    ]
    with forced_config({"BLOCK_SIZE": 512}):
        called = calls_of(lambda: activation(x, "relu"))
    assert not [file for file in called if "fusetune/kernels/autotune/" in file]


def test_what_a_forced_config_leaves_out_is_as_in_the_default(cache: Path) -> None:
    with forced_config({"num_warps": 8}):
        call("relu", dtype=torch.bfloat16)
    assert used_configs()[0].config == {"BLOCK_SIZE": 1024, "num_warps": 8, "num_stages": 1}


def test_forced_configs_nest_and_end_with_an_error(cache: Path) -> None:
    with forced_config({"BLOCK_SIZE": 512}):
        first = forcing.number
        with pytest.raises(ZeroDivisionError), forced_config({"BLOCK_SIZE": 256}):
            1 // (forcing.number == first)
        assert forcing.number == first
        assert forcing.config == {"BLOCK_SIZE": 512}
    assert forcing.config is None


def test_a_config_is_forced_on_one_kernel_alone(cache: Path) -> None:
    with forced_config({"BLOCK_SIZE": 512}, "gelu_backward"):
        activation(torch.randn(100), "gelu")
    assert origins() == [("gelu", 1024, "default"), ("gelu_backward", 512, "forced")]
    with forced_config({"BLOCK": 512}, "hers"):
        activation(torch.randn(200), "gelu")
    assert {row[1:] for row in origins()[2:]} == {(1024, "default")}


def test_forgetting_within_a_forced_config_reaches_what_comes_after(cache: Path) -> None:
    call("relu")
    with forced_config({"BLOCK_SIZE": 512}):
        write_entry(Entry(lookup("relu").key, TUNED))
        forget()
        call("relu")
    call("relu")
    assert origins() == [("relu", 512, "forced"), ("relu", 4096, "tuned")]


def test_a_forced_config_holds_for_other_threads(cache: Path) -> None:
    """Autograd runs a GPU's backward passes from threads of its own."""
    with forced_config({"BLOCK_SIZE": 512}):
        thread = threading.Thread(target=call, args=("relu",))
        thread.start()
        thread.join()
    assert origins() == [("relu", 512, "forced")]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"BLOCK_SIZE": 1000}, "BLOCK_SIZE is 1000; it must be a power of two"),
        ({"BLOCK_SIZE": 2**17}, "BLOCK_SIZE is 131072; it can be from 16 to 65536"),
        ({"BLOK_SIZE": 512}, "unknown 'BLOK_SIZE'; known: BLOCK_SIZE, num_stages, num_warps. Did you mean"),
        ({"num_warps": 0}, "num_warps is 0; it can be from 1 to 32"),
    ],
)
@pytest.mark.parametrize("name", ["relu", "adam"])
def test_a_forced_config_that_no_launch_can_take(name: str, config: Config, said: str, cache: Path) -> None:
    with forced_config(config), pytest.raises(InvalidValueError, match=said):
        call(name)
    call(name)  # unharmed


def test_pinned_takes_what_is_shipped(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune("relu")
    monkeypatch.setenv("FUSETUNE_TUNING", "pinned")
    monkeypatch.setattr(entries, "read_trusted", lambda path: pytest.fail(f"opened {path}"))
    call("relu")
    assert origins() == [("relu", 1024, "pinned")]
    with forced_config(TUNED):
        call("relu")
    assert origins()[1:] == [("relu", 4096, "forced")]


def test_shipped_entries_come_after_this_users_and_stay_when_pinned(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_module, "_shipped", {})
    found = lookup("relu")
    export_entries(tmp_path / "tuned.json", [Entry(found.key, {**TUNED, "BLOCK_SIZE": 2048})])
    assert ship_entries(tmp_path / "tuned.json") == 1
    call("relu")
    assert origins() == [("relu", 2048, "shipped")]
    assert not cache.exists()
    tune("relu")
    call("relu")
    assert origins() == [("relu", 4096, "tuned")]
    monkeypatch.setenv("FUSETUNE_TUNING", "pinned")
    forget()
    call("relu")
    call("gelu")
    assert origins() == [("relu", 2048, "shipped"), ("gelu", 1024, "pinned")]
    (tmp_path / "tuned.json").write_text("{}")
    with pytest.raises(InvalidValueError, match="holds no tuned launch configs"):
        ship_entries(tmp_path / "tuned.json")


def test_an_unknown_value_of_the_variable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSETUNE_TUNING", "pined")
    with pytest.raises(
        InvalidValueError, match=r"FUSETUNE_TUNING: unknown 'pined'; known: pinned. Did you mean 'pinned'"
    ):
        call("relu")


def test_an_entry_outside_of_the_space_is_a_miss_and_a_notice(cache: Path) -> None:
    tune("relu", {"BLOCK_SIZE": 48, "num_warps": 4})
    with pytest.warns(UserWarning, match="no longer in the kernel's launch-config space"):
        call("relu")
    assert origins() == [("relu", 1024, "default")]


def test_a_recorded_launch_for_a_gpu_takes_no_entry_of_the_cpu(cache: Path) -> None:
    from fusetune.kernels.activations.kernels import forward_kernel
    from fusetune.kernels.activations.launch import Sizes, _prepare

    tune("relu", elements=8192)
    with as_if_on_gpu():
        _prepare(
            forward_kernel, "relu", False, CPU, torch.float32, Sizes(8192, 8192, 1, 1, 1), forcing.number
        )
    assert origins() == [("relu", 1024, "default")]


def test_stochastic_rounding_takes_the_default(cache: Path) -> None:
    """Its random numbers belong to places in blocks, so an entry would change results."""

    def step(config: Config) -> torch.Tensor:
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.linspace(-1, 1, 9000).bfloat16())
        optimizer = FusedAdamW([p], lr=1e-3, stochastic_rounding=True)
        with forced_config(config):
            for _ in range(3):
                p.grad = torch.ones_like(p)
                optimizer.step()
        return p.detach()

    assert torch.equal(step({"BLOCK_SIZE": 256}), step({"BLOCK_SIZE": 4096}))
    assert used_configs() == ()


def test_a_table_follows_the_config_and_the_sizes(cache: Path) -> None:
    """One optimizer, with a launch config that changes between steps, against one that it never does."""
    results = []
    for blocks in ([None] * 6, [None, 256, 256, 4096, None, 256]):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(size)) for size in (3000, 17, 5001)]
        optimizer = FusedAdam(parameters, lr=0.1)
        for number, block in enumerate(blocks):
            for p in parameters[: 2 if number == 3 else 3]:
                p.grad = torch.sin(p.detach())
            if number == 3:
                parameters[2].grad = None
            if block is None:
                optimizer.step()
            else:
                with forced_config({"BLOCK_SIZE": block}):
                    optimizer.step()
        results.append(torch.cat([p.detach() for p in parameters]))
    assert torch.equal(*results)


def test_lookups_leave_no_trace(cache: Path) -> None:
    call("relu")
    before = used_configs()
    assert lookup("gelu").default == {"BLOCK_SIZE": 1024, "num_warps": 4, "num_stages": 1}
    assert used_configs() == before
    assert lookup("gelu").space == elementwise_space(CPU, LaunchConfig(1024, 4))
    assert lookup("gelu", dtype=torch.bfloat16).default["num_warps"] == 2


def test_a_kernel_without_configs_has_nothing_to_tune(cache: Path) -> None:
    plain = Kernel("plain", lambda x: x, lambda x: x, lambda *_: {})
    assert lookups_of(plain, {"x": torch.zeros(3)}) == ()
    with pytest.raises(InvalidValueError, match="kernel 'plain': it has no launch configs"):
        best_config(plain, {"x": torch.zeros(3)})


@pytest.fixture
def hers() -> Kernel:
    """A person's kernel, which takes a config."""
    return Kernel(
        "hers",
        lambda x, config=None: x,
        lambda x: x,
        lambda *_: {},
        configs=({"BLOCK": 256}, {"BLOCK": 1024}, {"BLOCK": 2048}),
        default={"BLOCK": 1024},
    )


def test_a_persons_kernel_has_an_entry_too(hers: Kernel, cache: Path) -> None:
    x = torch.zeros(5000)
    (found,) = lookups_of(hers, {"x": x})
    assert (found.default, found.space) == ({"BLOCK": 1024}, hers.configs)
    assert best_config(hers, {"x": x}) == {"BLOCK": 1024}
    write_entry(Entry(found.key, {"BLOCK": 2048}))
    assert best_config(hers, {"x": x}) == {"BLOCK": 1024}
    forget()
    assert best_config(hers, {"x": x}) == {"BLOCK": 2048}
    assert best_config(hers, {"x": torch.zeros(6000)}) == {"BLOCK": 2048}
    assert best_config(hers, {"x": torch.zeros(9000)}) == {"BLOCK": 1024}
    assert best_config(hers, {"x": torch.zeros(5001)[1:]}) == {"BLOCK": 1024}
    with forced_config({"BLOCK": 256}):
        assert best_config(hers, {"x": x}) == {"BLOCK": 256}
    assert best_config(hers, {"x": x}) == {"BLOCK": 2048}


def test_a_persons_kernel_reads_an_entry_once(
    hers: Kernel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.zeros(5000)
    write_entry(Entry(lookups_of(hers, {"x": x})[0].key, {"BLOCK": 2048}))
    read = files_read(monkeypatch)
    for elements in (5000, 5001, 5000, 6000):
        best_config(hers, {"x": torch.zeros(elements)})
    assert len(read) == 1


def test_two_kernels_of_one_name_are_two(hers: Kernel, cache: Path) -> None:
    other = replace(hers, configs=({"BLOCK": 64},), default=None)
    x = torch.zeros(50)
    assert best_config(hers, {"x": x}) == {"BLOCK": 1024}
    assert best_config(other, {"x": x}) == {"BLOCK": 64}
