"""`--static`: each case compiled for GPUs that are not here, in a process of its own, which imports code of others."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.datasheets import DATASHEETS, TYPICAL
from fusetune.bench.kernels.forecast import forecast
from fusetune.bench.kernels.loading import load_kernel
from fusetune.bench.kernels.plan import Planned
from fusetune.errors import FusetuneError

# Target -> compiled facts and forecast.
Facts = Mapping[str, Mapping[str, float | str]]
# Compiling for a target takes seconds, and importing torch from a cold disk about a minute.
_PATIENCE_S = 900.0
# Of a model, whose parameters are compiled for as one tensor.
_ELEMENTS = 2**20


def static_facts(
    planned: Sequence[Planned], targets: Sequence[str], news: Callable[[str], None]
) -> Mapping[str, Facts]:
    """Compile each case for GPUs that are not here, and forecast its speed there.

    Args:
        planned: the rows.
        targets: as `forecast` takes them. Empty: nothing is compiled.
        news: takes a line.

    Returns:
        The row's name -> target -> compiled facts and forecast. What could not be compiled has a `verdict` that says
        why.

    Raises:
        InputError: an unknown target.
    """
    if not targets:
        return {}
    for named in targets:
        target, _, gpu = named.partition("=")
        if target not in TYPICAL:
            raise InputError.unknown("static", target, TYPICAL, in_order=True)
        if gpu and gpu not in DATASHEETS:
            raise InputError.unknown(f"static: {target}", gpu, DATASHEETS, in_order=True)
    news(f"compiling for {', '.join(targets)}")
    sources: dict[str, list[Case]] = {}
    for each in planned:
        source = each.case.source
        sources.setdefault("" if source.is_shipped else source.reference, []).append(each.case)
    found: dict[str, Facts] = {}
    for cases in sources.values():
        found |= _in_own_process(cases, targets)
    return found


def _in_own_process(cases: Sequence[Case], targets: Sequence[str]) -> dict[str, Facts]:
    """Return the facts of cases, from a process that may die or hang."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_tell, args=(theirs, tuple(cases), tuple(targets)), daemon=True)
    process.start()
    theirs.close()
    said = "compiling takes too long"
    try:
        if ours.poll(_PATIENCE_S):
            found: dict[str, Facts] = ours.recv()
            return found
    except (EOFError, OSError):
        said = "the process that compiled it ended"
    finally:
        process.kill()
        process.join()
        ours.close()
    return {case.name: {target: {"verdict": f"no forecast: {said}"} for target in targets} for case in cases}


def _tell(connection: Connection, cases: Sequence[Case], targets: Sequence[str]) -> None:
    """Send the facts. What a person's module prints goes to standard error."""
    sys.stdout = sys.stderr
    connection.send(forecasts(cases, targets))


def forecasts(cases: Sequence[Case], targets: Sequence[str]) -> dict[str, Facts]:
    """Return the row's name -> target -> facts. It imports the kernels.

    Args:
        cases: of any kernels.
        targets: known ones.
    """
    import torch

    found: dict[str, Facts] = {}
    for case in cases:
        elements = case.shape if isinstance(case.shape, int) else _ELEMENTS
        facts: dict[str, Mapping[str, float | str]] = {}
        for target in targets:
            try:
                kernel: Any = load_kernel(case.source)
                made = forecast(kernel, elements, getattr(torch, case.dtype), [target])
                facts[target] = made[target].as_dict()
            except FusetuneError as error:
                facts[target] = {"verdict": f"no forecast: {error.what}"}
        found[case.name] = facts
    return found
