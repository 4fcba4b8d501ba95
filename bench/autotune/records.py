"""Tunings as records of a run, and back, and the report of such a run."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from fusetune.bench.autotune.report import draw_tuning, show_tuning
from fusetune.bench.autotune.tuning import Tuning
from fusetune.bench.kernels import Case
from fusetune.bench.kinds import AUTOTUNE
from fusetune.bench.results import (
    Machine,
    Pictures,
    Record,
    RunInfo,
    TuningOutcome,
    WrittenSpec,
    finite_or_null,
    first_fault,
)
from fusetune.errors import InvalidValueError

if TYPE_CHECKING:
    from rich.console import Console

# Null on disk where they are not finite.
_MAY_BE_NAN = ("p", "gain", "low", "high")


@dataclass(frozen=True)
class TuningsStudy:
    """The tunings of a run.

    Args:
        run: the run.
        tunings: one a case, as far as they were finished.
        directory: the run's directory.
    """

    run: RunInfo
    tunings: tuple[Tuning, ...]
    directory: str = ""


def describe_tunings(cases: Sequence[Case], command: Sequence[str]) -> RunInfo:
    """Return what run.json says of a run of `bench autotune`.

    Args:
        cases: what is tuned, at least one.
        command: the command line, word by word.
    """
    from fusetune.bench.machine import describe_machine, source_state, versions

    state = source_state()
    device = cases[0].device
    return RunInfo(
        kind=AUTOTUNE.name,
        spec=WrittenSpec({"name": AUTOTUNE.name}),
        command=tuple(command),
        trials=len(cases),
        device=device,
        machine=Machine.from_dict(describe_machine(device)),
        versions=versions(),
        commit=state["commit"],
        dirty=state["dirty"],
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def record_of_tuning(tuning: Tuning) -> Record:
    """Return a tuning as a record. One whose default config does not run is a failed record with the reason.

    Args:
        tuning: of any status.
    """
    case, is_ok = tuning.case, tuning.status == "ok"
    return Record(
        trial=case.name,
        factors={"kernel": case.kernel, "shape": case.shape, "dtype": case.dtype},
        seed=0,
        status="ok" if is_ok else "failed",
        reason="" if is_ok else f"{tuning.status}: {tuning.reason}".rstrip(": "),
        provenance={"device": case.device, "threads": case.threads},
        outcome=TuningOutcome(finite_or_null(asdict(tuning))),
    )


def tuning_of_record(record: Record) -> Tuning:
    """Return the tuning that a record holds.

    Raises:
        InvalidValueError: it holds none. The message names the field.
    """
    if not isinstance(record.outcome, TuningOutcome):
        raise InvalidValueError(record.trial, "holds no tuning")
    content = copy.deepcopy(record.outcome.tuning)
    found = content.get("confirmation")
    if isinstance(found, dict):
        found.update({name: math.nan for name in _MAY_BE_NAN if found.get(name, 0) is None})
    try:
        return _adapter().validate_python(content)
    except ValidationError as error:
        raise InvalidValueError("outcome.tuning", first_fault(error)) from None


def study_tunings(run: RunInfo, records: Sequence[Record], directory: str = "") -> TuningsStudy:
    """Read the records of a run.

    Args:
        run: the run.
        records: one a tuning.
        directory: the run's directory.

    Raises:
        InvalidValueError: a record holds no tuning.
    """
    return TuningsStudy(run, tuple(map(tuning_of_record, records)), directory)


def show_tunings(study: TuningsStudy, console: Console, pictures: Pictures) -> None:
    """Print each case as `bench autotune` does, and name the pictures.

    Args:
        study: from `study_tunings`.
        console: of 100 columns or more.
        pictures: those of the run.
    """
    from fusetune.bench.stats import counted

    for tuning in study.tunings:
        show_tuning(tuning, console)
        draw_tuning(tuning, pictures)
    replaced = sum(tuning.is_replaced for tuning in study.tunings)
    said = f"\n{counted(len(study.tunings), 'case')}, {replaced} with a new launch config."
    console.print(said, markup=False, highlight=False)
    for path in pictures.paths:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


@cache
def _adapter() -> TypeAdapter[Tuning]:
    return TypeAdapter(Tuning)
