"""What is trained: models, optimizers and data by the names of `bench.catalog`, or from a person's own factory."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.workloads.cifar10 import find_cifar10
    from fusetune.bench.workloads.datasets import DataRequest, Splits, load, locate, narrowed, split
    from fusetune.bench.workloads.factories import build_model_from_factory, full_arguments, load_factory
    from fusetune.bench.workloads.fingerprint import differences, fingerprint_all
    from fusetune.bench.workloads.generated import generate
    from fusetune.bench.workloads.models import build_model
    from fusetune.bench.workloads.optimizers import build_optimizer, build_optimizer_from_factory
    from fusetune.bench.workloads.verification import verify_optimizer
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "DataRequest",
    "Splits",
    "build_model",
    "build_model_from_factory",
    "build_optimizer",
    "build_optimizer_from_factory",
    "differences",
    "find_cifar10",
    "fingerprint_all",
    "full_arguments",
    "generate",
    "load",
    "load_factory",
    "locate",
    "narrowed",
    "split",
    "verify_optimizer",
]
