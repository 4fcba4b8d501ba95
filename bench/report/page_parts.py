"""What every run's part of a page has: banners, provenance, what failed, and how to make the run again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from fusetune.bench.page import Cell, Column, Command, DataTable, Facts, Prose, Section
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.stats import STATUS_WORDS, Caveat
from fusetune.bench.units import format_bytes


def banners_of(caveats: Iterable[Caveat]) -> tuple[str, ...]:
    """Return the warnings that stand above everything else."""
    return tuple(caveat.sentence for caveat in caveats if caveat.is_banner)


def run_facts(run: RunInfo, directory: str | None, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the provenance of a run, name and text, without what is not known.

    Args:
        run: of run.json.
        directory: path of the run. None: it has none.
        more: what the kind of run adds, after the data.
    """
    machine = run.machine
    device = (
        machine.device,
        machine.device_name,
        f"{machine.cores} cores" if machine.cores else "",
        format_bytes(machine.memory_bytes) if machine.memory_bytes else "",
    )
    used = ", ".join(run.data)
    pairs = [
        ("run", PurePath(directory).name if directory else run.run_id),
        ("started", run.started),
        ("data", f"{used}, a stand-in for {run.spec.data}" if run.stand_in else used),
        *more,
        ("device", ", ".join(filter(None, device))),
        ("software", ", ".join(f"{name} {version}" for name, version in run.versions.items() if version)),
        ("commit", f"{(run.commit or '')[:12]}{', with uncommitted changes' if run.dirty else ''}"),
    ]
    return tuple((name, text) for name, text in pairs if text)


def caveat_notes(caveats: Sequence[Caveat]) -> tuple[Prose, ...]:
    """Return the caveats that are no banners, each as a note."""
    return tuple(Prose(caveat.sentence, "note") for caveat in caveats if not caveat.is_banner)


def failed_trials(records: Sequence[Record], labels: Sequence[str]) -> Section:
    """Return the section on trials that did not end well, with their reasons. It is empty where all did.

    Args:
        records: of trials.
        labels: one for each record.
    """
    rows = tuple(
        (Cell(label), Cell(STATUS_WORDS[record.status], tone="bad"), Cell(record.reason))
        for record, label in zip(records, labels, strict=True)
        if record.status != "ok"
    )
    columns = (Column("trial"), Column("ended as"), Column("why"))
    return Section("failures", (DataTable("Trials that did not end well", columns, rows),) if rows else ())


def reproduce(run: RunInfo) -> Section:
    """Return the section that says how to make the run again: the command, and the commit that it was made at."""
    blocks: list[Command | Facts | Prose] = []
    if run.command:
        blocks.append(Command(shlex.join(("python", "-m", *run.command)), "The command"))
    if run.commit:
        blocks.append(
            Prose(f"It was run at commit {run.commit}{', with uncommitted changes' if run.dirty else ''}.")
        )
    return Section("reproduce", tuple(blocks))
