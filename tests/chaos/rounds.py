"""One round: a run of some kind, disasters at random times, --resume until it ends, and a look at all that it left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusetune.bench.cli.page_file import PAGE
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.search.plan import plan_of
from fusetune.bench.search.state import read_search
from tests.bench.faulty_disk import snapshot
from tests.chaos.gates import gate_round
from tests.chaos.program import Ended, group_of, run_program
from tests.end_to_end.conftest import environment

TINY = """\
name: tiny
data: {name: spirals, limit: 120, validation: 40}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 32, epochs: 3}
factors: {batch_size: [16, 32]}
seeds: 2
threads: 1
"""
SEARCH = """\
name: searched
data: {name: spirals, limit: 120, validation: 40}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 32, epochs: 3}
factors: {base_lr: {low: 0.001, high: 1.0, log: true}, batch_size: [16, 32]}
design: {search: {budget_epochs: 10, fresh_seeds: 1, prior: false}}
threads: 1
"""
# What a training's clock says differs from run to run; all else is the same to the last bit.
CLOCKS = {"time_s", "processor_missing", "samples_per_s"}
FINDINGS = ("ok", "missed_target", "diverged", "stopped_early")
# What is printed where the program did not expect what happened.
SHOCKS = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error")
MOST_DISASTERS = 3


@dataclass(frozen=True)
class RunKind:
    """A kind of run: its command, and whether --resume continues it."""

    arguments: tuple[str, ...]
    resumable: bool = True
    fresh: bool = False


KINDS = {
    "grid": RunKind(("run", "tiny.yaml")),
    "search": RunKind(("run", "searched.yaml")),
    "lr-range": RunKind(("lr-range", "tiny.yaml", "--steps", "12", "--repeats", "2", "--no-confirm")),
    "batch-size": RunKind(
        ("batch-size", "tiny.yaml", "--memory", "64MiB", "--max", "4", "--noise-epochs", "0"),
        resumable=False,
    ),
    # Two threads start workers; a fork of them is not what an interpreter would be.
    "grid of two jobs": RunKind(("run", "tiny.yaml", "--jobs", "2"), fresh=True),
    "search of two jobs": RunKind(("run", "searched.yaml", "--jobs", "2"), fresh=True),
}


@dataclass
class Story:
    """What happened in a round, and what is wrong with what came of it."""

    kind: str
    faults: list[str] = field(default_factory=list)
    wrong: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.faults) or 'nothing'}"


class WrongError(Exception):
    """A run did what no run may do."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its records by trial, the bytes in its directory, and its largest file's."""

    records: dict[str, Record]
    total_bytes: int
    largest_bytes: int


class Rounds:
    """Runs rounds under a directory. Undisturbed runs to compare with are made once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._references: dict[str, Reference] = {}

    def run(self, seed: int) -> Story:
        """Run the round of a seed."""
        chance = random.Random(seed)
        if seed % 10 == 8:
            return self._gate(seed, chance)
        # The kinds take turns, those that start interpreters seldom.
        quick = [name for name, kind in KINDS.items() if not kind.fresh]
        slow = [name for name, kind in KINDS.items() if kind.fresh]
        name = chance.choice(slow) if seed % 10 == 9 else quick[seed % 10 % len(quick)]
        fresh = KINDS[name].fresh or chance.random() < 0.05
        story = Story(f"{name}{' (fresh interpreters)' if fresh else ''}")
        place = self._directory / f"round-{seed}"
        place.mkdir()
        try:
            reference = self._reference(name)
            with small_disk(place / "results", chance.random() < 0.4) as disk:
                _Round(name, fresh, place, chance, story, reference, disk).play()
        except (WrongError, TimeoutError) as error:
            story.wrong = str(error)
        return story

    def _gate(self, seed: int, chance: random.Random) -> Story:
        """Run the round of a gate."""
        fresh = chance.random() < 0.3
        story = Story(f"gate{' (fresh interpreters)' if fresh else ''}")
        place = self._directory / f"round-{seed}"
        place.mkdir()
        try:
            story.wrong = gate_round(place, chance, fresh, story.faults)
        except TimeoutError as error:
            story.wrong = str(error)
        return story

    def _reference(self, name: str) -> Reference:
        """Return an undisturbed run of a kind."""
        name = name.removesuffix(" of two jobs")
        if name not in self._references:
            place = self._directory / f"undisturbed-{name}"
            place.mkdir()
            write_specs(place)
            ended = run_program(KINDS[name].arguments, place, surroundings(place), fresh=False)
            if ended.code:
                raise WrongError(f"an undisturbed run ended with {ended.code}:\n{ended.text}")
            (path,) = runs_in(place)
            records, _ = RunDirectory.open(path).records()
            sizes = [file.stat().st_size for file in path.iterdir() if file.name != PAGE]
            self._references[name] = Reference(
                {record.trial: record for record in records}, sum(sizes), max(sizes)
            )
        return self._references[name]


class _Round:
    """One round as it goes."""

    def __init__(
        self,
        name: str,
        fresh: bool,
        place: Path,
        chance: random.Random,
        story: Story,
        reference: Reference,
        disk: Disk,
    ) -> None:
        self._kind = KINDS[name]
        self._searches = name.startswith("search")
        self._fresh = fresh
        self._place = place
        self._chance = chance
        self._story = story
        self._reference = reference
        self._disk = disk
        self._worker_killed = False
        self._run_json: bytes | None = None

    def play(self) -> None:
        """Disasters, then an end in peace, then a look at everything."""
        write_specs(self._place)
        for _ in range(self._chance.randint(1, MOST_DISASTERS)):
            ended = self._disaster()
            self._look_at(ended)
            if self._path is not None:
                if ended.code == 0 and not self._worker_killed:
                    self._check_result()
                if self._chance.random() < 0.4:
                    self._tear()
                self._report()
        ended = self._program(self._arguments())
        self._look_at(ended)
        if ended.code not in ((0, 1) if self._worker_killed else (0,)):
            raise WrongError(f"in peace it ended with {ended.code}:\n{ended.text}")
        self._check_result()
        self._report()

    @property
    def _path(self) -> Path | None:
        """The run's directory, once there is a run.json in it: the newest where a run cannot be continued."""
        found = sorted(runs_in(self._place), key=lambda path: path.stat().st_ctime_ns)
        if self._kind.resumable and len(found) > 1:
            raise WrongError(f"{len(found)} runs where one was begun and continued")
        return found[-1] if found else None

    def _arguments(self) -> tuple[str, ...]:
        """The command that begins the run, or continues it."""
        path = self._path
        if path is None or not self._kind.resumable:
            return self._kind.arguments
        jobs = self._kind.arguments[2:] if self._kind.arguments[0] == "run" else ()
        return (self._kind.arguments[0], "--resume", str(path), *jobs)

    def _disaster(self) -> Ended:
        """Run, and let one thing go wrong."""
        fault = self._chance.choice(
            ["kill", "kill", "kill the group", "kill a worker", "Ctrl-C", "SIGTERM", "full disk", "full disk"]
        )
        if fault == "full disk" and self._disk.is_small:
            fault = "full file system"
            self._disk.resize(self._chance.randint(16, max(20, self._reference.total_bytes // 1024)))
        self._story.faults.append(fault)
        if fault == "full disk":
            return self._program(
                self._arguments(), most_bytes=self._chance.randint(0, self._reference.largest_bytes)
            )
        if fault == "full file system":
            ended = self._program(self._arguments())
            self._disk.resize(None)
            return ended
        return self._program(self._arguments(), meanwhile=self._striker(fault))

    def _striker(self, fault: str) -> Callable[[int], None]:
        """Return what strikes a process once its run has written so many bytes and a moment has passed."""
        wanted = self._chance.randint(0, self._reference.total_bytes)
        polls_left = self._chance.randint(0, 60)
        struck = False

        def strike(process: int) -> None:
            nonlocal polls_left, struck
            if struck or bytes_in(self._place) < wanted:
                return
            if fault in ("Ctrl-C", "SIGTERM") and not (self._place / "printed.txt").stat().st_size:
                return  # until the command has begun, it ends as any interpreter does
            polls_left -= 1
            if polls_left > 0:
                return
            struck = True
            with contextlib.suppress(ProcessLookupError):
                self._strike(fault, process)

        return strike

    def _strike(self, fault: str, process: int) -> None:
        """Send a signal."""
        if fault == "kill":
            os.kill(process, signal.SIGKILL)
        elif fault == "kill the group":
            os.killpg(process, signal.SIGKILL)
        elif fault == "SIGTERM":
            os.kill(process, signal.SIGTERM)
        elif fault == "Ctrl-C":
            for _ in range(self._chance.randint(1, 3)):
                os.killpg(process, signal.SIGINT)
        else:
            workers = [other for other in group_of(process) if other != process]
            if workers:
                os.kill(self._chance.choice(workers), signal.SIGKILL)
                self._worker_killed = True

    def _tear(self) -> None:
        """Cut bytes off the end of some files of the run, or put what a power cut leaves there."""
        assert self._path is not None
        files = [file for file in sorted(self._path.iterdir()) if file.name not in ("run.json", "lock")]
        for file in self._chance.sample(files, self._chance.randint(0, len(files))):
            size = file.stat().st_size
            if file.suffix in (".jsonl", ".journal") and self._chance.random() < 0.3:
                with file.open("ab") as stream:
                    stream.write(self._chance.choice([b"\0" * 17, b'{"trial":"x"', b"\xff\xfe", b"{}"]))
            else:
                os.truncate(
                    file, max(0, size - self._chance.choice([1, 2, 20, self._chance.randint(1, size + 1)]))
                )
            self._story.faults.append(f"torn {file.suffix[1:]}")

    def _program(self, arguments: tuple[str, ...], **how: Any) -> Ended:
        """Run a command in the round's place."""
        return run_program(arguments, self._place, surroundings(self._place), fresh=self._fresh, **how)

    def _look_at(self, ended: Ended) -> None:
        """What holds however a command ended."""
        if ended.orphans:
            raise WrongError(f"{len(ended.orphans)} processes were left behind:\n{ended.text}")
        logs = {
            file: file.read_text(errors="replace") for file in self._place.glob("results/*/*/worker*.log")
        }
        for where, text in {"the terminal": ended.text, **logs}.items():  # type: ignore[misc]
            if any(shock in text for shock in SHOCKS):
                raise WrongError(f"{where} shows what nobody can read:\n{text}")
        # A SIGTERM after the command's last line ends it as any program.
        if ended.code not in (0, 1, 2, 130, -signal.SIGKILL, -signal.SIGTERM):
            raise WrongError(f"it ended with {ended.code}:\n{ended.text}")
        if ended.code == 2 and "error: " not in ended.text:
            raise WrongError(f"it ended with 2 and said nothing:\n{ended.text}")
        if self._path is None or not self._kind.resumable:
            return
        content = (self._path / "run.json").read_bytes()
        if self._run_json not in (None, content):
            raise WrongError("run.json has changed")
        self._run_json = content

    def _report(self) -> None:
        """The report can be read at any time, and reading changes nothing."""
        path = self._path
        assert path is not None
        before = snapshot(path)
        ended = self._program(("report", str(path)))
        self._look_at(ended)
        if ended.code:
            raise WrongError(f"a report ended with {ended.code}:\n{ended.text}")
        if snapshot(path) != before:
            raise WrongError("a report has written into the run's directory")

    def _check_result(self) -> None:
        """Hold a run that is over to the undisturbed one."""
        path = self._path
        assert path is not None
        left = [file.name for file in path.iterdir() if file.name.endswith((".unfinished", ".tmp"))]
        if left:
            raise WrongError(f"files were left behind: {', '.join(left)}")
        records, notes = RunDirectory.open(path).records()
        if notes:
            raise WrongError(f"the records are not clean: {notes}")
        trials = [record.trial for record in records]
        if len(set(trials)) < len(trials):
            raise WrongError(f"a trial is there twice: {sorted(trials)}")
        if self._searches:
            self._check_search(path, trials)
        elif self._kind.resumable and set(trials) != set(self._reference.records):
            raise WrongError(f"trials {sorted(trials)} instead of {sorted(self._reference.records)}")
        for record in records:
            if record.status not in FINDINGS:
                if not self._worker_killed:
                    raise WrongError(f"{record.trial} is {record.status}: {record.reason}")
                continue
            known = self._reference.records.get(record.trial)
            if known is not None and known.status in FINDINGS and self._kind.resumable:
                ours, theirs = without_clocks(record), without_clocks(known)
                both = min(len(ours), len(theirs)) if self._searches else max(len(ours), len(theirs))
                if ours[:both] != theirs[:both]:
                    raise WrongError(f"{record.trial} has another curve:\n{ours}\nundisturbed:\n{theirs}")

    def _check_search(self, path: Path, trials: list[str]) -> None:
        """Every training of the search has its record, the budget is spent, and the winner was trained again."""
        run = json.loads((path / "run.json").read_text())
        plan = plan_of(WrittenSpec(run["spec"]))
        searcher, store = read_search(plan, path)
        if store.note or not store.is_over:
            raise WrongError(f"the search is not over: {store.note}")
        if searcher.epochs_used != plan.budget_epochs:
            raise WrongError(f"{searcher.epochs_used} of {plan.budget_epochs} epochs were made")
        best = searcher.result().best
        if best is None:
            raise WrongError("the search found nothing")
        wanted = [(trial.config, plan.seed) for trial in searcher.trials]
        wanted += [(best.config, seed) for seed in plan.fresh_seeds]
        have = [(record.factors, record.seed) for record in RunDirectory.open(path).records()[0]]
        missing = [each for each in wanted if each not in have]
        if missing:
            raise WrongError(f"no record of {missing}; there are {trials}")


class Disk:
    """The file system that results lie on: a small one of their own where root may mount one."""

    def __init__(self, place: Path, is_small: bool) -> None:
        self._place = place
        self.is_small = is_small

    def resize(self, kilobytes: int | None) -> None:
        """Let it hold so much, or plenty."""
        size = "64m" if kilobytes is None else f"{kilobytes + used_kilobytes(self._place)}k"
        subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(self._place)], check=True, capture_output=True
        )


@contextlib.contextmanager
def small_disk(place: Path, wanted: bool) -> Iterator[Disk]:
    """Mount a file system of its own, where it is wanted and allowed."""
    place.mkdir()
    mounted = (
        wanted
        and os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "chaos", str(place)], capture_output=True
        ).returncode
    )
    try:
        yield Disk(place, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def used_kilobytes(place: Path) -> int:
    """Return what a file system holds."""
    state = os.statvfs(place)
    return (state.f_blocks - state.f_bfree) * state.f_frsize // 1024


def write_specs(place: Path) -> None:
    """Write the specs of all kinds."""
    (place / "tiny.yaml").write_text(TINY)
    (place / "searched.yaml").write_text(SEARCH)


def surroundings(place: Path) -> dict[str, str]:
    """Return the environment of a command: one thread, and nothing written elsewhere."""
    return {**environment(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def runs_in(place: Path) -> list[Path]:
    """Return the directories of runs."""
    return [file.parent for file in place.glob("results/*/*/run.json")]


def bytes_in(place: Path) -> int:
    """Return how many bytes the runs have written so far. The page comes last, and would outweigh all else."""
    total = 0
    for file in place.glob("results/*/*/*"):
        if file.name != PAGE:
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size
    return total


def without_clocks(record: Record) -> list[dict[str, Any]]:
    """Return a record's curve without what a clock says."""
    return [{key: value for key, value in entry.items() if key not in CLOCKS} for entry in record.curve]
