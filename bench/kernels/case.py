"""What is verified and timed: one kernel, one shape, one dtype, one direction, on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class KernelSource:
    """Where a kernel is found, so that another process finds the same one.

    Args:
        reference: a name of `fusetune.kernels.KERNELS`, `package.module:NAME`, `FILE.py` or `FILE.py:NAME`. A file's
            path is absolute.
        import_paths: folders that are searched for modules after all others.
        needs: what a plain function lacks to be a kernel, found elsewhere, e.g. its `make_inputs` as `FILE.py:NAME`.
    """

    reference: str
    import_paths: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def is_shipped(self) -> bool:
        """Whether it is one of fusetune's own kernels, which are trusted and share a process."""
        return ":" not in self.reference and not self.reference.endswith(".py")


@dataclass(frozen=True)
class Case:
    """One thing to verify and time. It is picklable, and says all that a process needs to do so.

    Args:
        source: of the kernel.
        kernel: its name, for reports.
        shape: what `make_inputs` gets: a number of elements, or the name of a model whose parameters are meant.
        dtype: torch's name, e.g. `float32`.
        direction: `backward` times the gradient of the kernel's results. Kernels that are themselves a backward, such
            as `gelu_backward`, are a `forward` of their own.
        device: `cpu` or `cuda`.
        threads: torch's threads on a CPU.

    Example:
        >>> Case(KernelSource("gelu"), "gelu", 1000, "float32").name
        'gelu/1000/float32'
    """

    source: KernelSource
    kernel: str
    shape: int | str
    dtype: str
    direction: Direction = "forward"
    device: str = "cpu"
    threads: int = 1

    @property
    def name(self) -> str:
        """The row's name in every output and record. It is unique within a run."""
        parts = [self.kernel, str(self.shape), self.dtype]
        return "/".join([*parts, "backward"] if self.direction == "backward" else parts)
