"""A person's kernel, in every form that is accepted: found, called, and right. What is missing is asked for."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import KernelSource
from fusetune.bench.kernels.detection import InputFacts, bytes_moved, input_facts
from fusetune.bench.kernels.loading import kernels_in, load_kernel
from fusetune.bench.kernels.signatures import takes_config, tensors_in
from fusetune.bench.kernels.sources import kernel_source
from fusetune.kernels import KERNELS, Kernel

OWN = Path(__file__).with_name("own_kernels")
FORMS = sorted(path.stem for path in OWN.glob("*.py") if path.stem != "conftest")
F32 = torch.float32
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_files() -> Iterator[None]:
    """Forget what was imported: the next test has a file of the same name."""
    before, path = set(sys.modules), [*sys.path]
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def load(text: str) -> Kernel:
    return load_kernel(kernel_source(text))


def own(name: str) -> Kernel:
    (source, *_) = kernels_in(kernel_source(str(OWN / f"{name}.py")))
    return load_kernel(source)


def call(kernel: Kernel, inputs: dict[str, Any]) -> Any:
    default = kernel.default if kernel.default is not None else next(iter(kernel.configs), None)
    return kernel.fused(**inputs, **({"config": default} if takes_config(kernel.fused) else {}))


def everything(kernel: Kernel, function: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """What a call returns, and its inputs afterwards."""
    inputs = copy.deepcopy(inputs)
    results = call(kernel, inputs) if function is kernel.fused else function(**inputs)
    return [tensor.double() for _, tensor in tensors_in([results, inputs])]


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_a_kernel_that_is_right(name: str) -> None:
    kernel = own(name)
    elements = kernel.elements[0] if kernel.elements else 1003
    for seed in (0, 2**63 - 1):
        inputs = kernel.make_inputs(elements, F32, CPU, seed)
        exact = {
            key: [each.double() for each in value] if isinstance(value, list) else value
            for key, value in inputs.items()
        }
        exact = {
            key: value.double() if isinstance(value, torch.Tensor) else value for key, value in exact.items()
        }
        found = everything(kernel, kernel.fused, inputs)
        truth = everything(kernel, kernel.reference, exact)
        assert len(found) == len(truth)
        for one, other in zip(found, truth, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_forms_differ() -> None:
    assert len(FORMS) >= 8


@pytest.mark.parametrize("name", FORMS)
def test_the_same_seed_gives_the_same_values_and_another_one_others(name: str) -> None:
    kernel = own(name)
    elements = kernel.elements[0] if kernel.elements else 100

    def values(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(7)  # whatever was drawn before
        torch.rand(seed)
        return [
            t.clone() for n, t in tensors_in(kernel.make_inputs(elements, F32, CPU, seed)) if "out" not in n
        ]

    first, again, other = values(1), values(1), values(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.numel() > 1)


def test_making_inputs_leaves_the_generators_alone() -> None:
    kernel = own("lists_of_tensors")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    kernel.make_inputs(1, F32, CPU, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_names_come_from_the_parameters() -> None:
    assert [*own("three_functions").make_inputs(1, F32, CPU, 0)] == ["x", "y"]
    assert [*own("star_inputs").make_inputs(1, F32, CPU, 0)] == ["inputs_0", "inputs_1", "inputs_2"]
    assert [*own("plain_jit").make_inputs(1, F32, CPU, 0)] == ["x_ptr", "y_ptr", "out_ptr", "n"]
    names = {name: own(name).name for name in ("three_functions", "plain_jit", "autotuned", "ten_lines")}
    assert names == {
        "three_functions": "three_functions",
        "plain_jit": "squared_difference",
        "autotuned": "negate",
        "ten_lines": "scale",
    }


def test_a_size_a_dtype_and_a_device_are_given_where_they_are_taken() -> None:
    sized = own("star_inputs")
    assert sized.sized
    assert sized.make_inputs(7, torch.bfloat16, CPU, 0)["inputs_1"].shape == (7,)
    fixed = own("three_functions")
    assert not fixed.sized
    inputs = fixed.make_inputs(7, torch.float16, torch.device("meta"), 0)
    assert {(each.shape, each.dtype, each.device.type) for each in inputs.values()} == {
        ((5000,), torch.float16, "meta")
    }


@pytest.mark.parametrize(
    ("name", "mutates", "overwritten", "size"),
    [
        ("ten_lines", (), (), 2 * 4),
        ("star_inputs", (), (), 4 * 4),
        ("plain_jit", ("out_ptr",), ("out_ptr",), 3 * 4),
        ("autotuned", ("out_ptr",), ("out_ptr",), 2 * 4),
        ("with_heuristics", ("out",), ("out",), 2 * 4),
        ("in_place", ("parameter", "velocity"), (), 5 * 4),
        ("several", (), (), 2 * 4),
    ],
)
def test_what_is_left_out_is_found(
    name: str, mutates: tuple[str, ...], overwritten: tuple[str, ...], size: int
) -> None:
    kernel = own(name)
    facts = input_facts(kernel)
    assert facts == InputFacts(mutates, overwritten)
    inputs = kernel.make_inputs(1000, F32, CPU, 0)
    assert bytes_moved(inputs, kernel.reference(**inputs), facts) == 1000 * size


def test_lists_are_mutated_as_a_whole() -> None:
    kernel = own("lists_of_tensors")
    facts = input_facts(kernel)
    assert facts.mutates == ("tensors",)
    inputs = kernel.make_inputs(1, F32, CPU, 0)
    assert bytes_moved(inputs, None, facts) == 2 * 1011 * 4


def test_launch_configs_are_found() -> None:
    assert own("plain_jit").configs == ({"BLOCK": 256}, {"BLOCK": 1024})
    assert takes_config(own("plain_jit").fused)
    assert own("takes_config").default == {"ROWS": 4, "num_warps": 4}
    assert not takes_config(own("three_functions").fused)
    tuned = own("autotuned")
    assert tuned.default == {}
    triton_own = {"num_warps": 4, "num_stages": 3}
    assert tuned.configs == (
        {},
        {"BLOCK": 256, **triton_own},
        {"BLOCK": 2048, **triton_own, "num_warps": 8},
    )


@pytest.mark.parametrize("name", ["plain_jit", "autotuned", "takes_config", "ten_lines"])
def test_each_config_gives_the_same(name: str) -> None:
    kernel = own(name)
    found = []
    for config in kernel.configs:
        inputs = kernel.make_inputs(1003, F32, CPU, 0)
        results = kernel.fused(**inputs, config=config)
        found.append(inputs["out_ptr"] if results is None else results)
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_config_goes_round_tritons_search(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = own("autotuned")
    tuner = sys.modules["own_file_autotuned"].negate
    searched: list[Any] = []
    bench = type(tuner)._bench

    def counted(self: Any, *arguments: Any, **more: Any) -> Any:
        searched.append(more["config"])
        return bench(self, *arguments, **more)

    monkeypatch.setattr(type(tuner), "_bench", counted)
    kernel.fused(**kernel.make_inputs(1000, F32, CPU, 0), config=kernel.configs[1])
    assert not searched
    kernel.fused(**kernel.make_inputs(1000, F32, CPU, 0), config={})
    assert len(searched) == 2


def test_all_kernels_of_a_file_are_listed() -> None:
    file = OWN / "several.py"
    sources = kernels_in(kernel_source(str(file)))
    assert [source.reference for source in sources] == [f"{file}:TWICE", f"{file}:HALF"]
    assert [load_kernel(source).name for source in sources] == ["twice", "half"]
    with pytest.raises(InputError, match=r"^several\.py: has 2 kernels; known: TWICE, HALF\. Name one"):
        load_kernel(kernel_source(str(file)))


def test_a_module_is_imported_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "of_mine.py").write_text((OWN / "several.py").read_text())
    source = kernel_source("own_package.of_mine:HALF")
    monkeypatch.chdir("/")
    assert load_kernel(source).name == "half"


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "own_inputs_of_mine.py").write_text(
        "import torch\ndef make_inputs(seed): return torch.rand(3)\n"
    )
    (tmp_path / "mine.py").write_text(
        "from own_inputs_of_mine import make_inputs\nfused = reference = lambda x: x + 1\n"
    )
    assert load(str(tmp_path / "mine.py")).make_inputs(1, F32, CPU, 0)["x"].shape == (3,)


def test_a_file_with_the_name_of_a_library_hides_none(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import torch\nfused = reference = torch.neg\ndef make_inputs(seed): return torch.rand(3)\n"
    )
    assert load(str(tmp_path / "torch.py")).name == "torch"
    assert sys.modules["torch"] is torch


def test_what_one_file_lacks_another_one_has(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("def fused(x): return x * 2\n")
    (tmp_path / "rest.py").write_text(
        "import torch\ndef double(x): return x + x\ndef make_inputs(seed): return torch.rand(3)\n"
    )
    rest = tmp_path / "rest.py"
    needs = {"reference": f"{rest}:double", "make_inputs": str(rest)}
    kernel = load_kernel(kernel_source(f"{tmp_path / 'kernel.py'}:fused", needs=needs))
    assert kernel.reference(x=torch.ones(1)).item() == 2
    assert kernel.make_inputs(1, F32, CPU, 0)["x"].shape == (3,)


def test_shipped_kernels_are_themselves() -> None:
    assert load("gelu") is KERNELS["gelu"]
    assert kernels_in(KernelSource("gelu")) == (KernelSource("gelu"),)


THREE = {
    "fused": "def fused(x): return x * 2\n",
    "reference": "def reference(x): return x + x\n",
    "make_inputs": "def make_inputs(seed): return torch.rand(3)\n",
}
JIT = (
    "import triton, triton.language as tl\n"
    "@triton.jit\ndef copy(x_ptr, out_ptr, n, BLOCK: tl.constexpr):\n"
    "    i = tl.arange(0, BLOCK)\n    tl.store(out_ptr + i, tl.load(x_ptr + i, i < n), i < n)\n"
)
JIT_INPUTS = "def make_inputs(seed):\n    return torch.rand(3), torch.empty(3), 3\n"


def without(name: str) -> str:
    return "".join(text for key, text in THREE.items() if key != name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.py: has no kernel; known: a Kernel, functions fused, reference and make_inputs"),
        (
            without("fused"),
            "mine.py: has no function fused; it has reference and make_inputs. Write def fused(...)",
        ),
        (
            without("reference"),
            "mine.py:fused: has no reference, which says in plain PyTorch what is right. "
            "Write def reference(x): ... beside it",
        ),
        (
            without("make_inputs"),
            "mine.py:fused: has no make_inputs, which makes what it is called with. "
            "Write def make_inputs(elements, dtype, device, seed): ... beside it",
        ),
        (
            without("reference") + "reference = 3\n",
            "mine.py:fused: reference: is a int; known: a Python function",
        ),
        (
            without("make_inputs") + "def make_inputs(n, seed): return torch.rand(n)\n",
            "mine.py:fused: make_inputs needs 'n'; known: elements, dtype, device, seed. Name its parameters so",
        ),
        (
            without("make_inputs") + "def make_inputs(element, seed): return torch.rand(element)\n",
            "make_inputs needs 'element'; known: elements, dtype, device, seed. Did you mean 'elements'?",
        ),
        (
            "".join(THREE.values()) + "configs = [{'A': 1}]\n",
            "mine.py:fused: takes none of its configs. Give it a",
        ),
        (
            "".join(THREE.values()) + "tolerance = -1.0\n",
            "mine.py:fused: mine: tolerance: -1.0 is not allowed",
        ),
        (
            "\n1 / 0\n",
            "mine.py: importing 'mine.py' failed; ZeroDivisionError: division by zero (mine.py, line 3)",
        ),
        ("torch.ones(2) @ torch.ones(3)\n", "(mine.py, line 2). Mend the module, then try again"),
        ("def f(:\n", "mine.py: importing 'mine.py' failed; SyntaxError: invalid syntax (mine.py, line 2)"),
        ("import own_nowhere\n", "ModuleNotFoundError: No module named 'own_nowhere' (mine.py, line 2)"),
        ("raise SystemExit(3)\n", "mine.py: importing 'mine.py' failed; SystemExit: 3 (mine.py, line 2)"),
        (
            "from fusetune import Kernel\nKernel('a/b', len, len, len)\n",
            "importing 'mine.py' failed; InvalidValueError: name: 'a/b' is not allowed",
        ),
        (JIT, "mine.py:copy: has no make_inputs, which makes what it is called with"),
        (JIT + JIT_INPUTS, "has no reference, which says in plain PyTorch what is right"),
        (
            JIT + JIT_INPUTS + "def reference(x): return x\n",
            "mine.py:copy: has no grid, its number of programs. "
            "Write def grid(meta): return (triton.cdiv(meta['n'], meta['BLOCK']),)",
        ),
        (
            JIT + JIT_INPUTS + "grid = 1\ndef reference(x, y): return x\n",
            "mine.py:copy: reference: unknown 'y'; known: x_ptr, out_ptr, n, BLOCK. Name it as the kernel does.",
        ),
    ],
)
def test_what_is_missing_is_asked_for_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n" + text)
    with pytest.raises(InputError) as raised:
        load(str(tmp_path / "mine.py"))
    assert message in str(raised.value)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("geluu", "kernel: unknown 'geluu'; known: adam, .*Did you mean 'gelu'"),
        ("nothing_like_it", "Use one of these, or name a kernel of your own as FILE.py or package"),
        ("nowhere.py", r"nowhere\.py: no such file; looked for /.*nowhere\.py\. Check the path"),
        ("nowhere.py:KERNEL", r"nowhere\.py:KERNEL: no such file"),
        (".", r"\.: does not name a kernel; known: a kernel's name, package\.module:KERNEL"),
        ("a b:KERNEL", "does not name a kernel"),
        ("package.module:", "does not name a kernel"),
        ("package.module:a.b", "does not name a kernel"),
        ("some/kernels", "does not name a kernel"),
        ("", "unknown ''"),
    ],
)
def test_what_names_no_kernel_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel_source(text)


def test_a_name_that_is_not_there_has_the_closest() -> None:
    file = OWN / "several.py"
    with pytest.raises(
        InputError, match=r"^several\.py: unknown 'TWICE_'; known: make_inputs, TWICE, HALF, AGAIN"
    ):
        load(f"{file}:TWICE_")
    with pytest.raises(
        InputError, match=r"^own_nowhere: no module 'own_nowhere'; looked in .* beside the current"
    ):
        load("own_nowhere:KERNEL")
    with pytest.raises(InputError, match=r"^math:pi: is a float; known: a Kernel"):
        load("math:pi")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("None", "make_inputs returns a NoneType; known: a tensor, a tuple, or a dict"),
        ("3", "make_inputs returns a int"),
        ("()", "make_inputs returns no tensor. Return the tensors that fused is called with"),
        ("{'x': [1.0]}", "make_inputs returns no tensor"),
        (
            "(torch.ones(1), 2)",
            "make_inputs returns 2 values, and fused takes 1; known: x. Return one for each",
        ),
        ("{1: torch.ones(1)}", "make_inputs names an input 1; known: texts other than 'config'. Rename it"),
        ("{'config': torch.ones(1)}", "make_inputs names an input 'config'"),
    ],
)
def test_inputs_of_the_wrong_kind_are_one_sentence(made: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import torch\n{without('make_inputs')}def make_inputs(seed): return {made}\n"
    )
    with pytest.raises(InputError, match=re.escape(f"mine.py:fused: {message}")):
        load(str(tmp_path / "mine.py")).make_inputs(1, F32, CPU, 0)


def test_a_reference_whose_results_have_no_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import torch\n{JIT}{JIT_INPUTS}grid = 1\ndef reference(x, out): return x\n"
    )
    kernel = load(str(tmp_path / "mine.py"))
    with pytest.raises(
        InputError, match=r"reference returns 1 tensor \(3,\); the kernel has 0 tensors that the"
    ):
        kernel.reference(**kernel.make_inputs(1, F32, CPU, 0))


def test_importing_the_driver_side_imports_no_torch() -> None:
    code = (
        "import sys\nfrom fusetune.bench.kernels.sources import kernel_source\n"
        f"kernel_source({str(OWN / 'several.py')!r})\nassert 'torch' not in sys.modules\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
