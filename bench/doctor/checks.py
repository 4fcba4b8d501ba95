"""`bench doctor`: what this machine can run, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusetune.bench.doctor.installation import imported_from, remains_of_older
from fusetune.bench.doctor.load import BusyProcess, busy_processes, describe
from fusetune.bench.machine import (
    container_memory,
    cpu_name,
    cpu_quota,
    memory_bytes,
    nvidia_driver,
    source_state,
    usable_cores,
    versions,
)
from fusetune.bench.units import format_bytes
from fusetune.bench.user_cache import NO_HOME, user_cache
from fusetune.bench.workers import why_not_enforced
from fusetune.kernels import TESTED
from fusetune.tuner.measure import CONTENDED, load_average

State = Literal["ok", "note", "missing"]

_OLDEST_PYTHON = (3, 10)
_OLDEST_TORCH = (2, 9)
# CIFAR-10 as an archive and unpacked takes about 350 MB.
_ENOUGH_DISK_BYTES = 2**30
_COMPILERS = ("cc", "gcc", "clang")
_STYLES = {"ok": "green", "note": "yellow", "missing": "bold red"}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: what was checked.
        state: `ok`; `note`: works, with a restriction; `missing`: something will not work.
        detail: what was found.
        what_to_do: empty when there is nothing to do.
    """

    name: str
    state: State
    detail: str
    what_to_do: str = ""


def diagnose(results: Path = Path("results")) -> list[Check]:
    """Check everything that a run depends on, and change nothing on this machine. Imports torch.

    Args:
        results: the directory that runs would be written to.
    """
    checks: list[Callable[[], Check]] = [
        lambda: check_installation(versions()["fusetune"], imported_from(), remains_of_older()),
        _check_python,
        _check_torch,
        _check_triton,
        _check_device,
        _check_cores,
        _check_load,
        _check_memory,
        _check_memory_limit,
        _check_compiler,
        _check_fused_kernels,
        _check_kernel_cache,
        _check_cifar10,
        lambda: check_writable("results", results),
        _check_cache,
        lambda: check_disk(results),
        _check_source,
    ]
    return [check() for check in checks]


def render_checks(checks: list[Check], console: Console) -> None:
    """Print the checks as a table, and a sentence that lists what is missing."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = check.detail if not check.what_to_do else f"{check.detail}. {check.what_to_do}"
        style = _STYLES[check.state]
        table.add_row(Text(check.name), Text(check.state, style=style), Text(text))
    console.print(table)
    missing = [check.name for check in checks if check.state == "missing"]
    console.print(f"Missing: {', '.join(missing)}." if missing else "Nothing that a run needs is missing.")


def check_installation(version: str | None, directory: Path, remains: list[Path]) -> Check:
    """Check where fusetune is imported from, and whether an older one still hides other packages.

    Args:
        version: of the installed package. None: a checkout that is not installed.
        directory: of the package that is imported.
        remains: directories of an older fusetune, see `remains_of_older`.

    Example:
        >>> check_installation("0.1.0", Path("/env/fusetune"), []).detail
        '0.1.0, imported from /env/fusetune'
    """
    detail = f"{version or 'not installed'}, imported from {directory}"
    if not remains:
        return Check("fusetune", "ok", detail)
    advice = "Run pip uninstall fusetune, delete them, and install fusetune and any other package of these names again."
    found = ", ".join(map(str, remains))
    return Check("fusetune", "note", f"{detail}; an older fusetune's packages are still in {found}", advice)


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check("Python", "missing", version, "Install Python 3.10 or newer.")
    return Check("Python", "ok", version)


def _check_torch() -> Check:
    version = versions()["torch"]
    if version is None:
        return Check("torch", "missing", "not installed", "pip install 'torch>=2.9'")
    if _release(version) < _OLDEST_TORCH:
        return Check("torch", "missing", f"{version} is too old", "pip install 'torch>=2.9'")
    if _triton_of(version) is None:
        return Check("torch", "note", f"{version}; the tests run on {', '.join(TESTED.values())}")
    return Check("torch", "ok", version)


def _check_triton() -> Check:
    """Triton is installed, was published with this torch, and fits the kernels."""
    found = versions()
    check = check_pair(found["torch"], found["triton"], _triton_that_torch_requires())
    if found["torch"] is None or found["triton"] is None:
        return check
    from fusetune.kernels import misfit

    if why := misfit("compile"):
        return Check("triton", "note", f"{found['triton']} does not fit the kernels", _sentence(why))
    return check


def check_pair(torch: str | None, triton: str | None, required: str | None) -> Check:
    """Check whether this triton was published with this torch, and whether the tests run on it.

    Args:
        torch: torch's version, or None.
        triton: triton's version, or None.
        required: the version of triton that torch's own package metadata asks for, or None.

    Example:
        >>> check_pair("2.13.0+cpu", "3.7.1", None).state, check_pair("2.13.0", "3.5.0", "3.7.1").state
        ('ok', 'note')
    """
    if required is None and torch is not None:
        required = _triton_of(torch)
    install = "pip install triton"
    if required is not None:
        major, minor = _release(required)
        install = f"pip install 'triton=={major}.{minor}.*'"
    if triton is None and platform.system() != "Linux":
        return Check("triton", "note", f"not published for {platform.system()}; the suite runs without it")
    if triton is None:
        return Check("triton", "missing", "not installed", install)
    if required is None:
        return Check("triton", "note", f"{triton}; the metadata of torch {torch} name no version of triton")
    if _release(triton) != _release(required):
        detail = f"{triton} does not belong to torch {torch}, which is published with {required}"
        return Check("triton", "note", detail, install)
    if not any(_is_release(triton, tested) for tested in TESTED):
        return Check("triton", "note", f"{triton}; the tests run on {', '.join(TESTED)}")
    return Check("triton", "ok", f"{triton}, the one that torch {torch} is published with")


def _triton_of(torch: str) -> str | None:
    """Return the release of Triton that is tested with a version of torch, or None where none is."""
    return next((triton for triton, release in TESTED.items() if _is_release(torch, release)), None)


def _check_device() -> Check:
    if versions()["torch"] is None:
        return Check("device", "missing", "unknown without torch")
    import torch

    if not torch.cuda.is_available():
        return describe_missing_gpu(nvidia_driver(), torch.version.cuda)
    properties = torch.cuda.get_device_properties(0)
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    detail = (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{format_bytes(properties.total_memory)}, {bf16}, {torch.cuda.device_count()} of them"
    )
    return Check("device", "ok", detail)


def describe_missing_gpu(driver: str | None, cuda: str | None) -> Check:
    """Describe why a run uses the CPU.

    Args:
        driver: the NVIDIA driver's version; None: there is none.
        cuda: the CUDA version that torch was built for; None: a build for the CPU.
    """
    if driver is None:
        return Check("device", "ok", "no GPU; runs on the CPU, with each spec's cpu profile")
    if cuda is None:
        detail = f"an NVIDIA driver ({driver}) is here, but this torch is built for the CPU"
        return Check("device", "note", detail, "Install a CUDA build of torch to use the GPU.")
    detail = f"an NVIDIA driver ({driver}) is here, but torch (CUDA {cuda}) finds no GPU"
    return Check(
        "device", "note", detail, "Check that the driver supports this CUDA version and the GPU is visible."
    )


def _check_cores() -> Check:
    cores, quota = usable_cores(), cpu_quota()
    detail = f"{cores} usable ({cpu_name()})"
    if quota is not None and quota < cores:
        advice = f"Set OMP_NUM_THREADS={max(1, int(quota))}, because more threads than the quota wait for each other."
        return Check("cores", "note", f"{detail}; the container allows {quota:g}", advice)
    return Check("cores", "ok", detail)


def _check_load() -> Check:
    return check_load(load_average(), busy_processes(), usable_cores())


def check_load(load: float | None, processes: list[BusyProcess] | None, cores: int) -> Check:
    """Check whether timings taken now would be contended.

    Args:
        load: processes that run or wait to, averaged over a minute. None: not known.
        processes: the busy ones other than this. None: not known.
        cores: that this process may use.

    Example:
        >>> check_load(0.1, [], 2).state, check_load(2.0, [BusyProcess(7, "python", 1.9)], 2).state
        ('ok', 'note')
    """
    averages = "" if load is None else f"load {load:.1f} on {cores} core{'' if cores == 1 else 's'}"
    if processes is None:
        detail = averages or "not known"
        busy = load is not None and load > cores / 2
    else:
        detail = "; ".join(filter(None, [averages, describe(processes)]))
        busy = sum(process.cores for process in processes) > CONTENDED * cores
    if not busy:
        return Check("load", "ok", detail)
    return Check("load", "note", detail, "Timings taken now are contended. End that work, or measure later.")


def _check_memory() -> Check:
    container = container_memory()
    detail = format_bytes(memory_bytes())
    if container is not None and container.limit_bytes <= memory_bytes():
        detail += f", the container's limit, of which {format_bytes(container.available_bytes)} are free"
    return Check("memory", "ok", detail)


def _check_memory_limit() -> Check:
    why = why_not_enforced("cpu")
    if why:
        return Check(
            "memory limit",
            "note",
            f"on the CPU, {why}",
            "Trials run without it, and their records note that.",
        )
    return Check("memory limit", "ok", "can be enforced")


def _check_compiler() -> Check:
    """torch.compile needs a C compiler on a CPU."""
    named = os.environ.get("CC")
    for name in (named, *_COMPILERS):
        if name and (path := shutil.which(name)):
            return Check("C compiler", "ok", path)
    advice = "Install gcc or clang to use `compile: true` on a CPU."
    return Check("C compiler", "note", "none found", advice)


def _check_fused_kernels() -> Check:
    found = versions()
    if found["torch"] is None or found["triton"] is None:
        detail = "not available: they need Triton; plain PyTorch trains (implementation: torch)"
        return Check("fused kernels", "note", detail)
    import torch

    from fusetune.kernels import knobs, path_on, why_not_here

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = "interpreter" if knobs.runtime.interpret else path_on(device)
    return describe_fused_kernels(path, why_not_here(device) if path == "torch" else None)


def describe_fused_kernels(path: str, why_not: str | None) -> Check:
    """Describe how the fused kernels run here.

    Args:
        path: as in `kernels.launch`.
        why_not: the reason that they are not compiled, a sentence; or None.

    Example:
        >>> describe_fused_kernels("torch", "no C compiler on this machine. Install gcc or clang.").state
        'note'
    """
    how = {
        "triton": "compiled for the GPU (path: triton)",
        "triton-cpu": "compiled for this CPU (path: triton-cpu)",
        "interpreter": "interpreted, slowly (path: interpreter)",
        "torch": "not compiled; they fall back to plain PyTorch (path: torch)",
    }[path]
    if path in ("triton", "triton-cpu"):
        return Check("fused kernels", "ok", how)
    advice = "Unset TRITON_INTERPRET." if path == "interpreter" else why_not or ""
    return Check("fused kernels", "note", how, _sentence(advice))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _check_kernel_cache() -> Check:
    found = versions()
    if found["torch"] is None or found["triton"] is None:
        return Check("kernel cache", "note", "unknown without triton")
    from fusetune.kernels import knobs
    from fusetune.kernels.cpu import settled, why_not_in

    directory = Path(knobs.cache.dir)
    return describe_kernel_cache(directory, why_not_in(directory), settled())


def describe_kernel_cache(directory: Path, why_not: str | None, settled: Path | None) -> Check:
    """Describe where kernels compiled for the CPU are kept, and why not in Triton's cache.

    Args:
        directory: Triton's cache.
        why_not: the reason that kernels cannot be kept there, a clause; or None.
        settled: where they are kept; None: in a temporary directory.

    Example:
        >>> describe_kernel_cache(Path("/a"), "/a cannot be written", None).state
        'note'
    """
    if why_not is None:
        return Check("kernel cache", "ok", str(directory))
    where = f"in {settled}" if settled else "in a temporary directory, so every process compiles them anew"
    detail = f"{why_not}; kernels for the CPU are kept {where}"
    return Check("kernel cache", "note", detail, "Set TRITON_CACHE_DIR to a directory of your own.")


def _check_cifar10() -> Check:
    from fusetune.bench.workloads import find_cifar10

    path = find_cifar10()
    if path is not None:
        return Check("CIFAR-10", "ok", str(path))
    detail = "not found under $BENCH_DATA, data/ or the user's cache; the first run downloads it (170 MB)"
    advice = "Without a network, a run uses the stand-in that the spec names, or fails if there is none."
    return Check("CIFAR-10", "note", detail, advice)


def _check_cache() -> Check:
    cache = user_cache()
    if cache is None:
        return Check("user cache", "note", NO_HOME, "Name a directory for downloads in BENCH_DATA.")
    return check_writable("user cache", cache)


def check_writable(name: str, path: Path) -> Check:
    """Check whether a directory can be written, or made if it does not exist."""
    existing = _nearest_existing(path)
    if not existing.is_dir():
        return Check(name, "missing", f"{path} cannot be made: {existing} is a file", "Move it away.")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "missing", f"{path} cannot be written", f"Make {existing} writable.")
    return Check(name, "ok", f"{path} can be written" if existing == path else f"{path} will be made")


def check_disk(path: Path) -> Check:
    """Check the free space of the disk that holds `path`."""
    free = shutil.disk_usage(_nearest_existing(path)).free
    if free < _ENOUGH_DISK_BYTES:
        return Check("disk", "note", f"{format_bytes(free)} free", "Free some space before a long run.")
    return Check("disk", "ok", f"{format_bytes(free)} free")


def _check_source() -> Check:
    state = source_state()
    if state["commit"] is None:
        return Check(
            "source", "note", f"fusetune {versions()['fusetune']}, not a git checkout; records name no commit"
        )
    if state["dirty"]:
        return Check(
            "source", "note", f"commit {state['commit'][:12]} with uncommitted changes; records note that"
        )
    return Check("source", "ok", f"commit {state['commit'][:12]}")


def _nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest of its parents that exists."""
    absolute = path.absolute()
    found = next(candidate for candidate in (absolute, *absolute.parents) if candidate.exists())
    return path if found == absolute else found


def _triton_that_torch_requires() -> str | None:
    """Return the version of triton that torch's package metadata pin. Builds for the CPU pin none."""
    try:
        requirements = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        return None
    matches = [re.match(r"triton\s*\(?==\s*([\d.]+)", requirement) for requirement in requirements]
    return next((match.group(1) for match in matches if match), None)


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _is_release(version: str, release: str) -> bool:
    """Tell whether `version` is one of the release `major.minor`."""
    return _release(version) == _release(release)
