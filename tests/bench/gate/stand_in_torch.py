"""A module `torch` that says where it runs, and no more, for gates of programs that do not use it.

A gate asks torch for the device and the threads. To import the real one takes most of a short gate's time.
"""

from __future__ import annotations

from pathlib import Path

_TEXT = """
from types import SimpleNamespace
class Tensor: ...
def device(name): return SimpleNamespace(type=name)
def get_num_threads(): return 1
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"))
version = SimpleNamespace(cuda=None)
"""


def make_torch(folder: Path) -> Path:
    """Write the module and return the folder, which belongs on `PYTHONPATH`."""
    (folder / "torch.py").write_text(_TEXT)
    return folder
