"""Fused kernels: maths on tensors, nothing of training, files or YAML (a leaf: imports neither `tuner` nor `bench`)."""

if __name__ == "kernels":
    raise ImportError(
        "'kernels' is named 'fusetune.kernels': write `from fusetune.kernels import FusedAdamW`."
    )

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.activations import Activation, activation
    from fusetune.kernels.catalog import KERNELS
    from fusetune.kernels.cpu import timed_launches
    from fusetune.kernels.kernel import Config, Kernel, config_grid
    from fusetune.kernels.launch import path_on, why_not_here
    from fusetune.kernels.optimizers import FusedAdam, FusedAdamW, FusedSGD
    from fusetune.kernels.private_directory import have_private, temporary_directory
    from fusetune.kernels.replace import replace_activations, verify_activation
    from fusetune.kernels.triton_inside import (
        TESTED,
        CompiledKernel,
        autotune_configs,
        chosen_by_decorators,
        is_autotuned,
        is_triton_function,
        jit_function,
        knobs,
        misfit,
        not_tuned,
    )
    from fusetune.kernels.triton_searches import TritonSearch, searches_of_triton
    from fusetune.kernels.trust import read_trusted
else:
    # Triton imports fusetune.kernels.cpu, its backend for CPUs, in the middle of `import triton`, when nothing here can
    # import Triton yet.
    __getattr__ = load_on_use(__name__)

__all__ = [
    "KERNELS",
    "TESTED",
    "Activation",
    "CompiledKernel",
    "Config",
    "FusedAdam",
    "FusedAdamW",
    "FusedSGD",
    "Kernel",
    "TritonSearch",
    "activation",
    "autotune_configs",
    "chosen_by_decorators",
    "config_grid",
    "have_private",
    "is_autotuned",
    "is_triton_function",
    "jit_function",
    "knobs",
    "misfit",
    "not_tuned",
    "path_on",
    "read_trusted",
    "replace_activations",
    "searches_of_triton",
    "temporary_directory",
    "timed_launches",
    "verify_activation",
    "why_not_here",
]
