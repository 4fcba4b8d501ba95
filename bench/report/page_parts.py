"""What every run's part of a page has: banners, provenance, what failed, and how to make the run again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from fusetune.bench.page import Block, Cell, Column, Command, DataTable, Facts, Fold, Prose, Section
from fusetune.bench.report.provenance import data_text, device_text, executor_text
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.stats import STATUS_WORDS, Caveat, Places


def banners_of(caveats: Iterable[Caveat]) -> tuple[str, ...]:
    """Return the warnings that stand above everything else."""
    return tuple(caveat.sentence for caveat in caveats if caveat.is_banner)


def run_facts(
    run: RunInfo, directory: str | None, *more: tuple[str, str], places: Places | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the provenance of a run, name and text, without what is not known.

    Args:
        run: of run.json.
        directory: path of the run. None: it has none.
        more: what the kind of run adds, after the data.
        places: nodes and devices of a cluster, from `bench.stats.places_of`.
    """
    pairs = [
        ("run", PurePath(directory).name if directory else run.run_id),
        ("started", run.started),
        ("data", data_text(run)),
        *more,
        ("executor", executor_text(run, places)),
        ("device", device_text(run.machine)),
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
    """Return the section that says how to make the run again: command, commit, resolved spec, versions and data."""
    blocks: list[Block] = []
    if run.command:
        blocks.append(Command(command_text(run), "The command"))
    if run.commit:
        blocks.append(
            Prose(f"It was run at commit {run.commit}{', with uncommitted changes' if run.dirty else ''}.")
        )
    if run.spec.content.keys() - {"name"}:
        spec = Command(spec_yaml(run), "As a file, it needs neither profile nor --set.")
        blocks.append(Fold("The resolved spec", (spec,)))
    if pairs := (*_versions(run), *_files(run)):
        blocks.append(Fold("Versions and data", (Facts(pairs),)))
    return Section("reproduce", tuple(blocks))


def command_text(run: RunInfo) -> str:
    """Return the command that started a run, as it is pasted into a shell. Empty: it is not known."""
    return shlex.join(("python", "-m", *run.command)) if run.command else ""


def spec_yaml(run: RunInfo) -> str:
    """Return the resolved spec of a run as YAML, which loads to the same content."""
    import yaml

    plain = json.loads(json.dumps(run.spec.content))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text.rstrip()


def _versions(run: RunInfo) -> tuple[tuple[str, str], ...]:
    return tuple((name, version) for name, version in run.versions.items() if version)


def _files(run: RunInfo) -> tuple[tuple[str, str], ...]:
    """Return the SHA-256 of each file of data."""
    return tuple(
        (f"{data} {file}", f"SHA-256 {known['sha256']}")
        for data, files in (run.fingerprint or {}).items()
        for file, known in files.items()
        if isinstance(known, Mapping) and known.get("sha256")
    )
