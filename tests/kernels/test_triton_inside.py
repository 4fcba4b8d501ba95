"""Releases of Triton that are not there yet: what they may change is accepted, or said once and gone round."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from fusetune.kernels import trial_launch, triton_inside
from fusetune.kernels.cpu.compiler import CPUBackend
from fusetune.kernels.cpu.driver import CPUDriver
from fusetune.kernels.launch import path_on, why_not_here

ROOT = Path(__file__).parents[2]
# A Python that changes Triton's modules as they are imported.
CHANGING = """
import abc, importlib.abc, importlib.machinery, json, sys, warnings

class Changing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        change = globals().get(name.replace(".", "_"))
        if change is None or not name.startswith("triton"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            change(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Changing())

def triton(module):
    module.__version__ = "3.99.0"
"""
FITTING = """
def triton_backends_compiler(module):
    module.BaseBackend.another_duty = abc.abstractmethod(lambda self: None)
    abc.update_abstractmethods(module.BaseBackend)

def fulfil(module, backend):
    cls = getattr(module, backend)
    cls.another_duty = lambda self: None
    abc.update_abstractmethods(cls)
    parse = cls.parse_options
    def parse_options(self, options):
        parsed = parse(self, options)
        parsed.__dict__.update(brand_new=options.get("brand_new", False))
        return parsed
    cls.parse_options = parse_options

def triton_backends_nvidia_compiler(module):
    fulfil(module, "CUDABackend")

def triton_backends_amd_compiler(module):
    fulfil(module, "HIPBackend")

def triton_runtime_jit(module):
    run = module.JITFunction.run
    def with_a_new_option(self, *arguments, grid, warmup, **options):
        return run(self, *arguments, grid=grid, warmup=warmup, brand_new=True, **options)
    module.JITFunction.run = with_a_new_option

def triton_compiler_compiler(module):
    load = module.CompiledKernel._init_handles
    def with_a_new_field(self):
        assert self.metadata.brand_new is True
        load(self)
    module.CompiledKernel._init_handles = with_a_new_field
"""
LACKING = """
def triton_runtime_interpreter(module):
    del module.InterpretedFunction

def triton_runtime_jit(module):
    sys.modules["triton._C.libtriton"].passes.ttir.__delattr__("add_combine")
"""
WORK = """
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    from fusetune.kernels import FusedSGD, activation
    from fusetune.kernels.activations.api import activation_path
    p = torch.nn.Parameter(torch.ones(5))
    p.grad = torch.ones(5)
    optimizer = FusedSGD([p], lr=0.25)
    optimizer.step()
    optimizer.step()
    x = torch.linspace(-2, 2, 9)
    values = [p.tolist(), activation(x, "silu").tolist()]
    paths = [optimizer.path, activation_path(x)]
    from fusetune.bench.doctor.checks import diagnose
    checks = {check.name: [check.state, check.detail, check.what_to_do] for check in diagnose()}
said = [str(each.message) for each in seen if "does not fit" in str(each.message)]
print(json.dumps({"paths": paths, "values": values, "said": said, "checks": checks}))
"""


def with_another_triton(changes: str, tmp_path: Path) -> Any:
    """What two steps of an optimizer, an activation and `bench doctor` come to in a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", CHANGING + changes + WORK],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    assert found["values"][0] == [0.5] * 5
    assert found["values"][1] == pytest.approx((x * torch.sigmoid(x)).tolist(), rel=1e-5)
    return found


def test_new_options_duties_and_fields_are_accepted(tmp_path: Path) -> None:
    found = with_another_triton(FITTING, tmp_path)
    assert found["paths"] == ["triton-cpu"] * 2
    assert found["said"] == []
    assert found["checks"]["fused kernels"][0] == "ok"


def test_a_triton_that_does_not_fit_is_said_once_and_gone_round(tmp_path: Path) -> None:
    found = with_another_triton(LACKING, tmp_path)
    assert found["paths"] == ["torch"] * 2
    (warning,) = found["said"]
    assert warning.startswith("triton 3.99.0: does not fit")
    why = "passes.ttir.add_combine, triton.runtime.interpreter.InterpretedFunction"
    assert why in warning
    assert "tested: triton 3.5 with torch 2.9, triton 3.7 with torch 2.13" in warning
    state, how, advice = found["checks"]["fused kernels"]
    assert (state, "path: torch" in how, why in advice) == ("note", True, True)
    assert found["checks"]["triton"][0] == "note"


@pytest.fixture
def untried(cpu_driver: CPUDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A release that the tests do not run on."""
    monkeypatch.setattr(triton_inside, "TESTED", {"3.1": "2.3"})
    trial_launch.why_it_fails.cache_clear()
    yield
    trial_launch.why_it_fails.cache_clear()


def asks_for_an_unknown_field(kernel: Any) -> None:
    """A release that reads something else of what the backend leaves."""
    _ = kernel.metadata.unheard_of


def runs_nothing(kernel: Any) -> Any:
    """A release whose launches come to nothing."""
    return lambda *_: None


def test_an_untried_release_is_tried_once(untried: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trial_launch.why_it_fails("cpu") is None
        assert path_on(torch.device("cpu")) == "triton-cpu"


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("_init_handles", asks_for_an_unknown_field, "unheard_of"),
        ("run", property(runs_nothing), "computes wrong numbers"),
    ],
    ids=["fails", "is wrong"],
)
def test_where_the_first_launch_goes_wrong_kernels_go_by_torch(
    name: str, change: Any, why: str, untried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_inside.CompiledKernel, name, change)
    trial_launch._total.device_caches.clear()
    with pytest.warns(UserWarning, match=rf"does not fit the kernels.*{why}.*tested: triton 3\.1"):
        assert path_on(torch.device("cpu")) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert path_on(torch.device("cpu")) == "torch"
    assert why in str(why_not_here(torch.device("cpu")))
    trial_launch._total.device_caches.clear()


def test_nothing_is_missing_here() -> None:
    assert triton_inside.missing("compile") == []
    assert triton_inside.is_tested()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    home = SimpleNamespace(__name__="fake", here=SimpleNamespace(inner=1))
    monkeypatch.setitem(sys.modules, "fake", home)
    parts = {
        "here": triton_inside._Part("fake", ("inner", "inner.deeper", "other")),
        "gone": triton_inside._Part("fake", purpose="compile"),
    }
    monkeypatch.setattr(triton_inside, "_PARTS", parts)
    monkeypatch.setattr(triton_inside, "misfit", lambda purpose: f"no good for {purpose}.")
    assert triton_inside.missing("launch", parts) == ["fake.here.inner.deeper", "fake.here.other"]
    assert triton_inside.missing("compile", parts)[2:] == ["fake.gone"]
    with pytest.raises(AttributeError, match=r"no good for compile\. .*gone\.anything"):
        triton_inside.gone.anything()  # a stand-in can be imported, and says what it stands for
    assert not isinstance(1, triton_inside.gone)


@triton.jit
def nothing(x_ptr):  # type: ignore[no-untyped-def]
    pass


@pytest.mark.usefixtures("cpu_driver")
def test_options_of_other_backends_are_accepted_and_those_of_none_refused() -> None:
    x = torch.zeros(1)
    nothing[(1,)](x, waves_per_eu=2, ptx_version=None)  # AMD's and NVIDIA's
    with pytest.raises(KeyError, match="num_warp "):
        nothing[(1,)](x, num_warp=4)


def test_without_other_backends_every_option_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CPUBackend(triton_inside.GPUTarget("cpu", "any", 1))
    monkeypatch.setattr("fusetune.kernels.cpu.compiler.options_elsewhere", dict)
    parsed = backend.parse_options({"num_warps": 2, "brand_new": True})
    assert (parsed.num_warps, parsed.brand_new) == (2, True)  # type: ignore[attr-defined]
    assert parsed.hash() == backend.parse_options({"num_warps": 2}).hash()  # it compiles nothing anew


def test_the_inside_of_triton_is_named_in_one_file() -> None:
    """Elsewhere, its language and its version are used alone."""
    language = {"triton", "triton.language"}
    known = {"jit", "compile", "cdiv", "language", "next_power_of_2", "__version__"}
    for path in [*(ROOT / "kernels").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        if path.name == "triton_inside.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert {name for name in names if name.split(".")[0] == "triton"} <= language, path
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "triton":
                assert node.attr in known, path


@pytest.mark.usefixtures("cpu_driver")
def test_fusing_is_forbidden_where_triton_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CPUBackend(triton_inside.GPUTarget("cpu", "any", 1))
    assert backend.parse_options({}).enable_fp_fusion
    assert not backend.parse_options({"enable_fp_fusion": False}).enable_fp_fusion
    monkeypatch.setattr("fusetune.kernels.cpu.compiler.forbids_fusing", lambda: True)
    assert not backend.parse_options({"enable_fp_fusion": True}).enable_fp_fusion


def test_makefile_and_page_name_the_tested_pairs() -> None:
    pairs = re.search(r"^VERSIONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pairs is not None
    rows = re.findall(r"^\| (\d\S+) \| (\d\S+) \|", (ROOT / "docs/triton-cpu.md").read_text(), re.MULTILINE)
    assert [f"{ours}-{torch}" for ours, torch in rows] == pairs[1].split()
    releases = {ours.rpartition(".")[0]: torch.rpartition(".")[0] for ours, torch in rows}
    assert releases == triton_inside.TESTED
