"""Triton's compiler for the CPU: TTIR by Triton's own passes, then C, then a shared object.

`kernel.asm` keeps each stage: "ttir", "c" and "so".
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from fusetune.errors import InvalidValueError, StateError
from fusetune.kernels.cpu import cache
from fusetune.kernels.cpu.rounding import nearest
from fusetune.kernels.cpu.toolchain import compile_shared_object, compiler_version, cpu_features, flags
from fusetune.kernels.triton_inside import (
    BaseBackend,
    GPUTarget,
    forbids_fusing,
    fuses_by_default,
    ir,
    libdevice,
    misfit,
    options_elsewhere,
    passes,
    registered,
    round_constants_once,
)

CHECK_BOUNDS = "FUSETUNE_CHECK_BOUNDS"


@dataclass(frozen=True)
class CPUOptions:
    """The options that a launch or an autotuner's config may set.

    Args:
        num_warps, num_ctas, num_stages, maxnreg, cluster_dims: accepted without effect, because a program runs on one
            thread. num_warps is a power of 2, as on every other backend.
        warp_size: the threads of a warp. Triton 3.9 asks for it.
        launch_cooperative_grid: all programs run at once, so the grid must not exceed the threads that can be made.
        enable_fp_fusion: a * b + c may round once, as an FMA does.
        debug: keep the kernel's device assertions.
        arguments_overlap: pointer arguments may alias in any way. Launches find out and set it.
        check_bounds: check each access against the tensors passed. FUSETUNE_CHECK_BOUNDS=1 makes it the default.
        check_tiles: for tests, the code checks that the tiles kept in arrays are complete. The environment
            variable FUSETUNE_CHECK_TILES=1 sets it.
        extern_libs: no library is linked. One with the name libdevice is accepted, because its functions are built in.
        The other fields are those that Triton's front end requires of every backend.

    Raises:
        AssertionError: num_warps is no power of 2.
        ValueError: extern_libs names another library than libdevice.
    """

    num_warps: int = 4
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, int, int] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    enable_fp_fusion: bool = True
    debug: bool = False
    arguments_overlap: bool = False
    check_bounds: bool = False
    check_tiles: bool = False
    sanitize_overflow: bool = True
    arch: str = ""
    backend_name: str = "cpu"
    instrumentation_mode: str = ""
    ir_override: str | None = None
    extern_libs: tuple[tuple[str, str], ...] = ()
    supported_fp8_dtypes: tuple[str, ...] = ()
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    max_num_imprecise_acc_default: int = 0

    def __post_init__(self) -> None:
        if self.num_warps < 1 or self.num_warps & (self.num_warps - 1):
            # Triton's other backends raise an AssertionError too.
            raise AssertionError(f"num_warps: {self.num_warps} is given; it must be a power of 2, such as 4.")
        if others := [name for name, _ in self.extern_libs if name != "libdevice"]:
            raise InvalidValueError(
                "extern_libs",
                f"{', '.join(others)} cannot be linked",
                "the CPU backend has libdevice's functions alone",
                "Call these, or write the function in Triton.",
            )

    def hash(self) -> str:
        """Return the key that tells options apart in Triton's cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@registered
class CPUBackend(BaseBackend):
    """The interface that Triton requires of a backend."""

    binary_ext = "so"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return bool(target.backend == "cpu")

    @functools.cache  # noqa: B019 - Triton makes few backends, and asks often
    def hash(self) -> str:
        """Identify the shared objects that run and compute alike, by compiler, flags, CPU and this package's code."""
        parts = [compiler_version(), *flags(), cpu_features(), str(self.target), _code_version()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def parse_options(self, options: dict[str, Any]) -> CPUOptions:
        """Parse a launch's options. The cache is checked here, because Triton calls this before it opens the cache.

        Options of this Triton's other backends are accepted without effect, because Triton passes some to all backends.
        Triton itself refuses a name that no backend knows.
        """
        if why := misfit("compile"):  # TRITON_DEFAULT_BACKEND=cpu asks for this backend all the same
            raise StateError("", why)
        # Imported here: this module is imported in the middle of `import triton`.
        from fusetune.kernels.cpu.cache_manager import install

        cache.settle()
        install()
        known = {field.name for field in fields(CPUOptions)}
        given = {name: value for name, value in options.items() if name in known and value is not None}
        given.setdefault("enable_fp_fusion", fuses_by_default())
        given["enable_fp_fusion"] &= not forbids_fusing()
        given.setdefault("check_bounds", os.environ.get(CHECK_BOUNDS, "") not in ("", "0"))
        given.setdefault("check_tiles", os.environ.get("FUSETUNE_CHECK_TILES") == "1")
        given["arch"] = str(self.target.arch)
        if isinstance(given.get("extern_libs"), dict):
            given["extern_libs"] = tuple(sorted(given["extern_libs"].items()))
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = tuple(value)
        parsed = CPUOptions(**given)
        elsewhere = options_elsewhere()
        accepted = {name: value for name, value in options.items() if name in elsewhere or not elsewhere}
        for name, value in {**elsewhere, **accepted}.items():
            if name not in known:
                # Triton reads options, and the metadata of a compiled kernel, from this dictionary.
                parsed.__dict__[name] = value
        return parsed

    def add_stages(self, stages: dict[str, Any], options: CPUOptions, language: Any = None) -> None:
        stages["ttir"] = _make_ttir
        stages["c"] = functools.partial(_make_c, options=options)
        stages["so"] = functools.partial(_make_so, options=options)

    def load_dialects(self, context: Any) -> None:
        """Load no dialects, because Triton's own suffice. Its front end is about to make this kernel's constants."""
        round_constants_once("cpu", nearest)

    def get_module_map(self) -> dict[str, ModuleType]:
        functions = libdevice()
        return {} if functions is None else {"triton.language.extra.libdevice": functions}

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Callable[..., Any]]:
        return {"min_dot_size": lambda first, second: (1, 1, 1)}

    def pack_metadata(self, metadata: Any) -> Any:
        return metadata


def _make_ttir(module: Any, metadata: dict[str, Any]) -> Any:
    """Inline and simplify. Block pointers and descriptors become plain pointers."""
    manager = ir.pass_manager(module.context)
    manager.enable_debug()
    passes.common.add_inliner(manager)
    if hasattr(passes.ttir, "add_rewrite_tensor_pointer"):  # Triton 3.8 has no block pointers
        passes.ttir.add_rewrite_tensor_pointer(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.ttir.add_triton_licm(manager)
    passes.common.add_symbol_dce(manager)
    passes.ttir.add_loop_unroll(manager)
    passes.common.add_canonicalizer(manager)
    passes.common.add_cse(manager)
    if "str" in (manager.run.__doc__ or ""):  # since Triton 3.6, the passes that are printed have a name
        manager.run(module, "make_ttir")
    else:
        manager.run(module)
    return module


def _make_c(module: Any, metadata: dict[str, Any], options: CPUOptions) -> str:
    """Lower to C. Raises CompilationError where an operation is not supported."""
    # Imported here: this module is imported in the middle of `import triton`.
    from fusetune.kernels.cpu.diagnostics import faults_of
    from fusetune.kernels.cpu.ir_tree import read_module
    from fusetune.kernels.cpu.lowering import lower_module

    with faults_of(None):
        functions = read_module(module)
    with faults_of(next(iter(functions), None)):
        code = lower_module(functions, options.arguments_overlap, options.check_bounds, options.check_tiles)
    metadata["name"] = code.name
    metadata["shared"] = max(1, code.scratch_bytes)  # host code divides by it
    metadata["scratch_bytes"] = code.scratch_bytes
    metadata["has_runs"] = code.has_runs
    metadata["apart"] = code.apart
    return code.text


def _make_so(source: str, metadata: dict[str, Any], options: CPUOptions) -> bytes:
    fused, has_runs = options.enable_fp_fusion, metadata["has_runs"]
    return compile_shared_object(source, fused, has_runs, in_vectors=not options.check_bounds)


@functools.lru_cache
def _code_version() -> str:
    """A hash of this package's code, so that kernels are compiled again when their lowering changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
