"""A plug-in for pytest: the fixture `kernel_benchmark` verifies and times a kernel as `bench kernels` does."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.pytest_plugin.fixture import KernelBenchmark
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["KernelBenchmark"]
