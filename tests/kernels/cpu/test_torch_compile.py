"""torch.compile goes its own way on a CPU, with this backend registered as an installed package would register it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMPILED = """
import torch, triton
from torch._inductor.utils import run_and_get_code
from torch.utils._triton import has_triton

assert triton.backends.backends["cpu"].driver.__module__ == "fusetune.kernels.cpu.driver"
assert triton.runtime.driver.active.get_current_target().backend == "cpu"

def gelu(x, bias):
    return torch.nn.functional.gelu(x + bias, approximate="tanh").sum(1)

x, bias = torch.randn(16, 64, requires_grad=True), torch.randn(64)
got, code = run_and_get_code(torch.compile(gelu), x, bias)
torch.testing.assert_close(got, gelu(x, bias))
text = "".join(code)
assert "async_compile.cpp" in text, text
assert "async_compile.triton" not in text
got.sum().backward()
assert torch.isfinite(x.grad).all()
print("compiled by C++")
"""


@pytest.mark.slow
def test_torch_compile_keeps_its_cpp_path(tmp_path: Path) -> None:
    registered = tmp_path / "backend-1.0.dist-info"
    registered.mkdir()
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: backend\nVersion: 1.0\n")
    (registered / "entry_points.txt").write_text("[triton.backends]\ncpu = fusetune.kernels.cpu\n")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "compiled by C++"
