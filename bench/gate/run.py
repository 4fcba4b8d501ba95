"""`bench gate` from its request to its result: check both sides out, measure pairs, keep each, and judge them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusetune.bench.errors import BenchError, InputError, SetupError
from fusetune.bench.gate.commands import Command
from fusetune.bench.gate.decision import THRESHOLD, decide
from fusetune.bench.gate.environments import Environment, Environments, make_environments
from fusetune.bench.gate.estimators import Run
from fusetune.bench.gate.gate_directory import GateDirectory, broken_gate, read_gate, sha256
from fusetune.bench.gate.json_text import as_json
from fusetune.bench.gate.judging import FAILURE, judge, notes_on
from fusetune.bench.gate.kernel_runs import KernelRuns
from fusetune.bench.gate.measured import Measured, Pair
from fusetune.bench.gate.processes import News, Place
from fusetune.bench.gate.result import GateResult, Side
from fusetune.bench.gate.revisions import (
    WORKING_TREE,
    Checkout,
    Checkouts,
    Repository,
    Revision,
    checkouts,
    default_base,
    find_repository,
    find_revisions,
    on_both_sides,
)
from fusetune.bench.gate.rules import Rules
from fusetune.bench.gate.self_test import SelfTest, study_self_test
from fusetune.bench.gate.session import Measuring, Plan, SideName
from fusetune.bench.gate.trainings import Trainings
from fusetune.bench.gate.verdict import Verdict
from fusetune.bench.interrupts import ignore_interrupts
from fusetune.bench.kernels import LoadedKernels, is_kernel_spec, load_kernels
from fusetune.bench.machine import describe_machine, versions
from fusetune.bench.spec import Gate, LoadedSpec, load_gate, load_spec
from fusetune.bench.units import format_seconds

DEFAULT_BUDGET_S = 600.0
# A process may take so many times as long as the longest before it. The first one may take so many budgets.
_PATIENCE = 10.0
_LEAST_PATIENCE_S = 60.0
_PATIENCE_IN_BUDGETS = 3.0
_LEAST_FIRST_PATIENCE_S = 3600.0
_MOST_SELF_TEST_PAIRS = 1000
# Folders with data that git does not hold.
_LINKS = ("data",)

Subject = Trainings | KernelRuns | Command


@dataclass(frozen=True)
class Request:
    """What a gate is asked for.

    Args:
        spec: of trainings, relative to the top of the repository; None: a command is gated.
        command: the command line. Empty: a spec is gated.
        folder: where the command runs, relative to the top of the repository.
        base, head: names of the revisions. No base: where head's branch left the default branch.
        configurations: each `factor=value,factor=value`. None: those of the spec.
        overrides: `key.path=value` texts over the spec.
        budget_s: None: the spec's, or else 10 min.
        self_test_s: time for pairs of head with itself; None: head is compared with base.
    """

    spec: str | None = None
    command: str = ""
    folder: str = "."
    base: str | None = None
    head: str = WORKING_TREE
    configurations: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    budget_s: float | None = None
    self_test_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            **self.__dict__,
            "configurations": list(self.configurations),
            "overrides": list(self.overrides),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Request:
        """Read the JSON object. Raises TypeError when it is none."""
        lists = {key: tuple(content.get(key, ())) for key in ("configurations", "overrides")}
        return cls(**{**content, **lists})


def resumed_request(path: Path, budget_s: float | None) -> Request:
    """Return what an earlier gate was asked for.

    Args:
        path: its directory.
        budget_s: another budget; None: the same.

    Raises:
        RunDirectoryError: no gate is there, or it is broken.
        InputError: a self-test is there.
    """
    try:
        request = Request.from_dict(read_gate(path)["request"])
    except (TypeError, AttributeError) as error:
        raise broken_gate(path, f"its request cannot be read, {error}") from None
    if request.self_test_s is not None:
        raise InputError(f"--resume {path}", "a self-test is not continued", to_do="Start a new one.")
    return request if budget_s is None else Request(**{**request.__dict__, "budget_s": budget_s})


def _ignore(_: Path) -> None:
    """Do nothing."""


def run_gate(
    request: Request,
    results: Path,
    *,
    device: str,
    news: News,
    resume: Path | None = None,
    unfinished: Callable[[Path], None] = _ignore,
) -> GateResult:
    """Gate head against base.

    Args:
        request: what to compare.
        results: the directory of all results.
        device: `cpu` or `cuda`, for the profile of the spec.
        news: takes a line for each thing that happens.
        resume: the directory of the gate to go on with.
        unfinished: takes the directory of a gate that ends with finished pairs and without verdicts.

    Raises:
        InputError: bad input, such as an unknown revision, or a spec on one side only.
        SetupError: a revision that cannot be made to run.
        RunDirectoryError: the results cannot be written, or the gate to go on with compares something else by now.
        KeyboardInterrupt: interrupted. What to do next has been told.
    """
    gate = _Gate(request, news, device, is_resumed=resume is not None)
    with ExitStack() as stack:
        directory = stack.enter_context(gate.open(results, resume))
        try:
            return gate.run(directory)
        except KeyboardInterrupt:
            ignore_interrupts()
            finished = len(directory.pairs())
            told = (
                f"interrupted; {finished} finished pairs are kept. Continue with: {directory.resume_command}"
            )
            news(told if finished else "interrupted; no pair was finished.")
            if finished:
                unfinished(directory.path)
            raise
        except BenchError:
            if finished := len(directory.pairs()):
                news(f"{finished} finished pairs are kept. Continue with: {directory.resume_command}")
                unfinished(directory.path)
            raise
        finally:
            directory.remove_if_empty()


def run_self_test(
    request: Request,
    results: Path,
    *,
    device: str,
    news: News,
    unfinished: Callable[[Path], None] = _ignore,
) -> SelfTest:
    """Measure head against itself, as a gate would measure it against base.

    Args:
        request: with `self_test_s`, and without a base.
        results: the directory of all results.
        device: `cpu` or `cuda`, for the profile of the spec.
        news: takes a line for each thing that happens.
        unfinished: takes the directory of a self-test that is interrupted after a pair.

    Raises:
        InputError, SetupError, RunDirectoryError, KeyboardInterrupt: as for `run_gate`, or there was time for one pair
            alone.
    """
    gate = _Gate(request, news, device, is_resumed=False)
    with gate.open(results, None) as directory:
        try:
            return gate.run_self_test(directory)
        except KeyboardInterrupt:
            ignore_interrupts()
            finished = len(directory.pairs())
            news(
                f"interrupted; {finished} pairs are in {directory.path}."
                if finished
                else "interrupted; no pair was finished."
            )
            if finished:
                unfinished(directory.path)
            raise
        finally:
            directory.remove_if_empty()


@dataclass(frozen=True)
class _Prepared:
    """What a gate needs between its checkouts and its verdicts."""

    subject: Subject
    sides: Checkouts
    measuring: Measuring
    budget_s: float


@dataclass
class _Gate:
    """One gate on its way."""

    request: Request
    news: News
    device: str
    is_resumed: bool
    notes: list[str] = field(default_factory=list)
    repository: Repository = field(init=False)
    base: Revision = field(init=False)
    head: Revision = field(init=False)
    _longest_s: dict[str, float] = field(default_factory=dict)
    _environments: dict[str, str] = field(default_factory=dict)
    _checked: bool = False

    def __post_init__(self) -> None:
        self.repository = find_repository(Path.cwd())
        base = self.request.base
        named = ""
        if self.request.self_test_s is not None:
            head = self.request.head
            self.base, self.head = find_revisions(self.repository, head, head, may_be_same=True)
            return
        if base is None:
            base, named = default_base(self.repository, self.request.head)
            self.news(f"base: {named}, {base[:12]}")
        # Of a gate that is resumed, what has become of the sides is said by a comparison with its beginning.
        self.base, self.head = find_revisions(
            self.repository, base, self.request.head, may_be_same=self.is_resumed
        )
        if named:
            self.base = Revision(named, self.base.commit, subject=self.base.subject)

    def open(self, results: Path, resume: Path | None) -> GateDirectory:
        """Make the gate's directory, or open the one to go on with."""
        fixed = self._compared()
        if resume is not None:
            directory = GateDirectory.resume(resume)
            try:
                directory.check_unchanged(fixed)
            except BaseException:
                directory.close()
                raise
            for note in directory.notes:
                self.news(f"note: {note}")
            return directory
        request = {**self.request.as_dict(), "base": self.request.base or self.base.commit}
        return GateDirectory.create(
            results,
            {
                "title": self.request.command or self.request.spec,
                **fixed,
                "request": request,
                "seed": random.SystemRandom().randrange(2**31),
                "started": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            },
        )

    def _compared(self) -> dict[str, Any]:
        """Return what a gate that is resumed must share with its beginning."""
        spec = None
        if self.request.spec is not None:
            path = on_both_sides(
                self.repository, self.repository.root / self.request.spec, self.base, self.head
            )
            spec = (
                sha256((self.repository.root / path).read_bytes()) if self.head.name == WORKING_TREE else None
            )
        return {
            "base": {"commit": self.base.commit},
            "head": {"commit": self.head.commit, "changes": self.head.changes},
            "spec_sha256": spec,
        }

    def run(self, directory: GateDirectory) -> GateResult:
        """Check out, measure and judge."""
        with self._prepared(directory) as ready:
            pairs = ready.measuring.run(self._finished(directory, ready.measuring.plan))
            result = self._result(directory, ready.subject, ready.sides, ready.measuring, pairs)
        directory.write_result(as_json(result))
        return result

    def run_self_test(self, directory: GateDirectory) -> SelfTest:
        """Check out, measure as many pairs as there is time for, and study them."""
        with self._prepared(directory) as ready:
            pairs = ready.measuring.run()
        for benchmark in dict.fromkeys(pair.benchmark for pair in pairs):
            for side in (pair.base for pair in pairs if pair.benchmark == benchmark):
                if side.failure:
                    raise InputError(
                        benchmark, "failed in a self-test", side.failure, "Mend the benchmark first."
                    )
        self.news("studying the pairs")
        # Each benchmark of a gate gets its share of the budget, for they take turns.
        share_s = ready.budget_s / len(ready.measuring.plan.jobs)
        rows = study_self_test(pairs, ready.subject.rules, share_s)
        notes = (*self.notes, *notes_on(pairs, ()))
        found = SelfTest(rows, ready.budget_s, ready.measuring.spent_s, str(directory.path), notes)
        directory.write_result(found.as_dict())
        return found

    @contextmanager
    def _prepared(self, directory: GateDirectory) -> Iterator[_Prepared]:
        """Check both sides out, and make ready what measures them."""
        with checkouts(self.repository, self.base, self.head, links=self._links()) as sides:
            environments = make_environments(sides, announce=self.news)
            places = self._places(sides, environments)
            subject, section = self._subject(places)
            budget_s = self.request.budget_s or (section.budget if section else None) or DEFAULT_BUDGET_S
            if isinstance(subject, Trainings | KernelRuns):
                subject.facts.update(directory.content.get("sides", {}))
                subject.threads.update(directory.content.get("threads", {}))
            seed = directory.content["seed"]
            plan = Plan(subject.jobs, budget_s, seed)
            if self.request.self_test_s is not None:
                plan = Plan(subject.jobs, self.request.self_test_s, seed, (_MOST_SELF_TEST_PAIRS,))

            def measure(job: str, side: SideName, index: int) -> dict[str, Measured]:
                return self._measure(subject, job, index, places[side], budget_s)

            def keep(pairs: Sequence[Pair]) -> None:
                directory.append(pairs)
                self._tell(measuring, pairs)
                self._check_first_pairs(measuring, subject.rules)
                if isinstance(subject, Trainings | KernelRuns):
                    directory.describe({"sides": dict(subject.facts), "threads": dict(subject.threads)})

            def settled(pairs: Sequence[Pair]) -> set[str]:
                return set() if self.request.self_test_s is not None else self._settled(pairs, subject.rules)

            measuring = Measuring(plan, measure, settled, keep)
            yield _Prepared(subject, sides, measuring, budget_s)

    def _finished(self, directory: GateDirectory, plan: Plan) -> list[Pair]:
        """Return the pairs of an earlier part of the gate, and learn from them how long a process takes."""
        done = directory.pairs()
        for pair in done:
            job, taken_s = plan.job_of(pair.benchmark), max(pair.base.seconds, pair.head.seconds)
            self._longest_s[job] = max(self._longest_s.get(job, 0.0), taken_s)
        return done

    def _places(self, sides: Checkouts, environments: Environments) -> dict[SideName, Place]:
        """Return where each side's processes run."""
        self.notes += sides.notes
        if environments.differs:
            self.notes.append(
                f"Each side has an environment of its own: {', '.join(environments.differs)} differ."
            )
        found: dict[SideName, Place] = {}
        both: tuple[tuple[SideName, Checkout, Environment], ...] = (
            ("base", sides.base, environments.base),
            ("head", sides.head, environments.head),
        )
        for name, side, environment in both:
            folder = side.path if self.request.spec is not None else side.path / self.request.folder
            if not folder.is_dir():
                raise InputError(f"{name} {side.revision.name}", f"has no folder '{self.request.folder}'")
            label = f"{name} {side.revision.name}"
            found[name] = Place(name, label, folder, str(environment.python), environment.variables)
        self._environments = {"base": environments.base.kind, "head": environments.head.kind}
        return found

    def _subject(self, places: Mapping[SideName, Place]) -> tuple[Subject, Gate | None]:
        """Return what is measured, and the section with its rules."""
        request = self.request
        if request.spec is None:
            given = load_gate(request.overrides)
            return Command(request.command, Rules.of_section(given, "--set gate"), self.news), given
        path = Path(request.spec)
        is_here = self.head.name == WORKING_TREE
        folder = self.repository.root if is_here else places["head"].folder
        subject: Trainings | KernelRuns
        if is_kernel_spec(folder / path):
            kernels = self._load_kernels(folder, request.spec)
            section = kernels.spec.gate
            rules = Rules.of_section(section, f"{path}: gate")
            subject = KernelRuns(kernels, path, request.overrides, rules, self.news)
        else:
            loaded = self._load(folder, request.spec)
            section = loaded.spec.gate
            rules = Rules.of_section(section, f"{path}: gate")
            if loaded.spec.executor.name != "local":
                name = loaded.spec.executor.name
                self.notes.append(f"The spec's executor {name} is not used: a gate measures on this machine.")
            subject = Trainings(loaded, path, request.overrides, rules, self.news)
        for place in places.values():
            subject.prepare(place.folder)
        return subject, section

    def _load_kernels(self, folder: Path, spec: str) -> LoadedKernels:
        """Read a spec of kernels in the repository or in a checkout.

        Raises:
            InputError: it is wrong, or configurations are asked for, which it does not have.
        """
        if self.request.configurations:
            what = "a spec of kernels has no configurations"
            raise InputError("--configuration", what, to_do="Name a spec of the kernels alone")
        path = Path(os.path.relpath(folder / spec))
        return load_kernels(path, overrides=self.request.overrides, device=self.device)

    def _load(self, folder: Path, spec: str) -> LoadedSpec:
        """Read the spec in the repository or in a checkout."""
        overrides = (*self.request.overrides, *_configurations(self.request.configurations))
        return load_spec(Path(os.path.relpath(folder / spec)), overrides=overrides, device=self.device)

    def _links(self) -> list[str]:
        """Return what both checkouts get a link to: data that git does not hold. The spec's errors come first."""
        found = list(_LINKS)
        if self.request.spec is not None and self.head.name == WORKING_TREE:
            root = self.repository.root
            if is_kernel_spec(root / self.request.spec):
                self._load_kernels(root, self.request.spec)
                return found
            data = self._load(root, self.request.spec).spec.data
            for file in filter(None, (data.path, data.labels)):
                place = Path(os.path.abspath((root / self.request.spec).parent / file))
                if place.is_relative_to(root):
                    found.append(str(place.relative_to(root)))
        return found

    def _measure(
        self, subject: Subject, job: str, index: int, place: Place, budget_s: float
    ) -> dict[str, Measured]:
        """Run one process, with a limit that grows with what its job has taken."""
        longest_s = self._longest_s.get(job)
        if longest_s is None:
            limit_s = max(_LEAST_FIRST_PATIENCE_S, _PATIENCE_IN_BUDGETS * budget_s)
        else:
            limit_s = max(_LEAST_PATIENCE_S, _PATIENCE * longest_s)
        measured = subject.measure(job, index, place, limit_s)
        self._longest_s[job] = max(longest_s or 0.0, *(each.seconds for each in measured.values()))
        return measured

    def _settled(self, pairs: Sequence[Pair], rules: Rules) -> set[str]:
        """Return the benchmarks whose verdicts more pairs would not change."""
        rows = judge(pairs, rules, decide=_decide_so_far, staged=True)
        unclear = {row.benchmark for row in rows if row.outcome == "can't tell"}
        failed = {row.benchmark for row in rows if row.metric == FAILURE and row.outcome == "regressed"}
        works = {pair.benchmark for pair in pairs if not _failed_on_both_sides(pair)}
        return {pair.benchmark for pair in pairs} - ((unclear & works) - failed)

    def _check_first_pairs(self, measuring: Measuring, rules: Rules) -> None:
        """Check once that each job has a pair: the names in the rules, and whether anything can be compared."""
        if self._checked or not all(map(measuring.count, measuring.plan.jobs)):
            return
        self._checked = True
        rules.check(measuring.pairs)
        if all(map(_failed_on_both_sides, measuring.pairs)):
            pair = measuring.pairs[0]
            raise SetupError(
                pair.benchmark,
                "fails on both sides, so nothing is compared",
                f"of head: {pair.head.failure}",
                "Mend it, or name a base on which it works.",
            )

    def _tell(self, measuring: Measuring, pairs: Sequence[Pair]) -> None:
        """Tell that a pair is finished."""
        pair = pairs[0]
        job = measuring.plan.job_of(pair.benchmark)
        budget = measuring.plan.budget_s
        of = f" of {format_seconds(budget)}" if budget else ""
        self.news(
            f"{job}: pair {measuring.count(job)}, base {format_seconds(pair.base.seconds)}, "
            f"head {format_seconds(pair.head.seconds)}  ({format_seconds(measuring.spent_s)}{of})"
        )

    def _result(
        self,
        directory: GateDirectory,
        subject: Subject,
        sides: Checkouts,
        measuring: Measuring,
        pairs: Sequence[Pair],
    ) -> GateResult:
        """Judge the pairs."""
        rows = judge(pairs, subject.rules, staged=True)
        over = [job for job, why in measuring.stopped.items() if why == "budget"]
        budget_s = measuring.plan.budget_s or 0.0
        if over:
            self.notes.append(
                f"The budget of {format_seconds(budget_s)} ended before {', '.join(over)} had all pairs."
            )
        facts = subject.facts if isinstance(subject, Trainings | KernelRuns) else {}
        stand_ins = dict.fromkeys(each["stand_in"] for each in facts.values() if each.get("stand_in"))
        self.notes += [f"STAND-IN DATA: {text}" for text in stand_ins]
        here = {"machine": describe_machine(self.device), "versions": versions()}
        of_base, of_head = (
            Side(
                side.revision.name,
                side.revision.commit,
                side.revision.dirty,
                facts.get(name, here)["machine"],
                facts.get(name, here)["versions"],
                self._environments[name],
            )
            for name, side in (("base", sides.base), ("head", sides.head))
        )
        return GateResult(
            subject.title,
            of_base,
            of_head,
            rows,
            (*self.notes, *notes_on(pairs, rows)),
            {
                name: sum(p.benchmark == name for p in pairs)
                for name in dict.fromkeys(p.benchmark for p in pairs)
            },
            measuring.spent_s,
            measuring.plan.budget_s,
            str(directory.path),
        )


def _failed_on_both_sides(pair: Pair) -> bool:
    return bool(pair.base.failure and pair.head.failure)


def _decide_so_far(
    base: Sequence[Run],
    head: Sequence[Run],
    *,
    staged: bool = False,
    threshold: float = THRESHOLD,
) -> Verdict:
    """Decide while pairs may still come. What they would not help counts as clear."""
    verdict = decide(base, head, staged=staged, more=True, threshold=threshold)
    return replace(verdict, outcome="pass") if verdict.reason else verdict


def _configurations(given: Sequence[str]) -> list[str]:
    """Turn the options `factor=value,factor=value` into an override of the spec's `gate:` section."""
    if not given:
        return []
    listed = ", ".join("{" + ", ".join(_entries(text)) + "}" for text in given)
    return [f"gate.configurations=[{listed}]"]


def _entries(text: str) -> list[str]:
    """Split one option at the commas that stand in no brackets.

    Example:
        >>> _entries("optimizer=adam,model.sizes=[1, 2]")
        ['"optimizer": adam', '"model.sizes": [1, 2]']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    found = []
    for part in parts:
        key, equals, value = (each.strip() for each in part.partition("="))
        if not key or not equals or '"' in key:
            raise InputError(
                f"--configuration {text}",
                "must be factor=value",
                to_do="Write it like optimizer=adam,batch_size=64",
            )
        found.append(f'"{key}": {value}')
    return found
