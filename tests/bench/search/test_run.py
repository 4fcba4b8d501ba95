"""A search whose workers die, end early or share: budget, records and winner, with trainings in closed form."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fusetune.bench.kinds import SEARCH
from fusetune.bench.results.directory import RunDirectory, find_run
from fusetune.bench.results.outcomes import AutoRate, PausedTraining, TrainingOutcome
from fusetune.bench.results.pictures import Pictures
from fusetune.bench.results.records import Record, Status
from fusetune.bench.run.plan import make_plan
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.search.event_log import LOG
from fusetune.bench.search.plan import BUDGET_SPENT, plan_of
from fusetune.bench.search.report import render_search
from fusetune.bench.search.run import run_search
from fusetune.bench.search.state import open_search
from fusetune.bench.search.step import Advance
from fusetune.bench.search.study import study_search
from fusetune.bench.search.trial import run_step
from fusetune.bench.search.workers import SearchExecutor
from fusetune.bench.spec.design import Trial, make_trial
from fusetune.bench.spec.load import LoadedSpec, load_spec
from fusetune.bench.stats.wording import counted
from fusetune.bench.status import RunStatus, StatusKeeper, read_status
from fusetune.bench.workers.worker import OnProgress, WorkerContext, attempt, record_without_result

BUDGET, EPOCHS = 30, 4
SPEC = """\
name: small-search
data: {name: spirals, limit: 400, validation: 150}
model: {name: mlp, width: 16, depth: 1}
train: {base_lr: 0.1, batch_size: 32, epochs: 4}
factors:
  base_lr: {low: 0.001, high: 1.0, log: true}
  optimizer: [sgd, adam]
design: {search: {budget_epochs: 30, fresh_seeds: 3, prior: false}}
"""
# Six configurations are trained before the budget is spent.
SOON_OVER = SPEC.replace("{low: 0.001, high: 1.0, log: true}", "[0.1, 0.3, 1.0]").replace(
    "budget_epochs: 30", "budget_epochs: 80"
)
KILLED = "the kernel killed the worker; its count of kills for memory rose from 0 to 1"

Entry = dict[str, float | None]
Dies = Callable[[int, Advance, int], str | None]


@dataclass
class Trainings:
    """What all workers of a test have trained: one entry for each epoch that was really made."""

    made: list[tuple[str, int]] = field(default_factory=list)
    ends_after: int = EPOCHS
    slope: float = 0.1
    lift: float = 0.0

    def accuracy(self, trial: Trial, epoch: int) -> float:
        """Best at a learning rate of 0.03; every seed has its luck."""
        off = abs(math.log10(trial.factors["base_lr"]) + 1.5)
        return 0.8 - self.slope * off - 0.02 * (EPOCHS - epoch) + 0.001 * trial.seed + self.lift

    def train(
        self, trial: Trial, context: WorkerContext, on_progress: OnProgress
    ) -> Generator[Entry, str | None, Record]:
        """Train in closed form; those of a high rate end by themselves after `ends_after` epochs."""
        curve: list[Entry] = []
        last = EPOCHS if trial.factors["base_lr"] < 0.03 else self.ends_after
        reason: str | None = ""
        while len(curve) < last and not reason:
            self.made.append((trial.id, len(curve) + 1))
            curve.append({"epoch": len(curve) + 1, "val_accuracy": self.accuracy(trial, len(curve) + 1)})
            reason = yield curve[-1]
        status: Status = "stopped_early" if reason else "ok"
        return Record(trial.id, trial.factors, trial.seed, status, reason or "", curve=curve)

    def run_whole(self, trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
        """Train a trial that is not the search's."""
        if trial.rehearsal:
            return Record(trial.id, trial.factors, trial.seed, "ok")
        epochs = self.train(trial, context, on_progress)
        while True:
            try:
                next(epochs)
            except StopIteration as end:
                return end.value


@dataclass
class FakeWorker:
    """A worker that is lost, with all that waits in it, when `dies` says so; the next step starts another.

    Args:
        dies: (step's number in this worker, step, other trainings that wait in it) -> how: "killed" while it trains,
            "idle" before, or None.
    """

    dies: Dies
    process_id: int | None = None
    context: WorkerContext = field(default_factory=WorkerContext)
    steps: int = 0
    processes: int = 0

    def run(self, step: Trial | Advance, on_progress: OnProgress) -> Record:
        if self.process_id is None:
            self._start()
        if isinstance(step, Advance):
            self.steps += 1
            others = self.context.cache.get("waiting", {}).keys() - {step.id}
            how = self.dies(self.steps, step, len(others))
            if how == "killed":
                self.process_id = None
                return record_without_result(step, "out_of_memory", KILLED)
            if how == "idle":
                self._start()
        return attempt(run_step, step, self.context, on_progress)

    def cancel(self) -> None:
        """Steps are over at once."""

    def close(self) -> None:
        """Nothing to free."""

    def _start(self) -> None:
        self.processes += 1
        self.process_id, self.context = self.processes, WorkerContext()


@dataclass
class Messages:
    """Collects what a run says."""

    said: list[str] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.said.append(text)

    def start(self, total: int, done: int) -> None: ...
    def trial_started(self, trial_id: str, index: int) -> None: ...
    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None: ...
    def trial_finished(self, record: Record, index: int) -> None: ...
    def device_joined(self, node: str, device: str, kind: str) -> None: ...
    def device_left(self, node: str, device: str, reason: str) -> None: ...
    def trial_lost(self, trial_id: str, node: str, reason: str, attempt: int) -> None: ...


def live_on(number: int, step: Advance, others: int) -> str | None:
    """Never die."""
    return None


@dataclass
class Bench:
    """Runs searches in a directory, as `bench run` and `bench run --resume` do."""

    path: Path
    monkeypatch: pytest.MonkeyPatch
    trainings: Trainings = field(default_factory=Trainings)
    messages: Messages = field(default_factory=Messages)

    def run(
        self,
        spec: str = SPEC,
        *,
        jobs: int = 1,
        dies: Dies = live_on,
        resume: bool = False,
    ) -> list[Record]:
        """Search with workers that train in closed form."""
        (self.path / "small.yaml").write_text(spec)
        loaded = load_spec(self.path / "small.yaml", device="cpu")
        plan = self._plan(loaded, jobs)
        self.monkeypatch.setattr("fusetune.bench.search.trial.trial_epochs", self.trainings.train)
        self.monkeypatch.setattr("fusetune.bench.search.trial.run_trial", self.trainings.run_whole)
        self.monkeypatch.setattr(
            "fusetune.bench.run.local_workers.WorkerExecutor", lambda *setup, **options: FakeWorker(dies)
        )
        self.monkeypatch.setattr(
            "fusetune.bench.search.run.rehearse", lambda plan, *arguments, **options: plan
        )
        with self._directory(plan, resume) as directory:
            return run_search(loaded.spec, plan, directory, self.messages)

    @property
    def directory(self) -> Path:
        """The only run's."""
        return find_run(self.path / "results" / "small-search")

    def _plan(self, loaded: LoadedSpec, jobs: int) -> RunPlan:
        return make_plan(loaded, jobs=jobs, command=[], announce=self.messages.message, kind=SEARCH)

    def _directory(self, plan: RunPlan, resume: bool) -> RunDirectory:
        if resume:
            return RunDirectory.resume(self.directory)
        return RunDirectory.create(self.path / "results", "small-search", plan.run)


def no_pictures(bench: Bench) -> Pictures:
    return Pictures(bench.directory, drawing=False)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def searched(records: list[Record]) -> list[Record]:
    """The search's own records, each configuration once."""
    own = [record for record in records if record.seed == 0]
    assert len({record.trial for record in own}) == len(own)
    return own


def epochs_of(records: list[Record]) -> int:
    return sum(len(record.curve) for record in searched(records))


def made_again(records: list[Record]) -> int:
    return sum(outcome_of(record).epochs_made_again for record in records)


def outcome_of(record: Record) -> TrainingOutcome:
    """What a training came to."""
    return record.outcome if isinstance(record.outcome, TrainingOutcome) else TrainingOutcome()


def trained(bench: Bench) -> int:
    """The epochs that the search's trainings really took."""
    return sum(trial.endswith("seed=0") for trial, _ in bench.trainings.made)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_spends_its_budget_and_records_everything_once(bench: Bench, jobs: int) -> None:
    records = bench.run(jobs=jobs)
    assert epochs_of(records) == trained(bench) == BUDGET
    assert len(bench.trainings.made) == len(set(bench.trainings.made)) == BUDGET + 3 * EPOCHS
    assert len({record.trial for record in records}) == len(records)
    assert sorted(record.seed for record in records if record.seed) == [1, 2, 3]
    lines = (bench.directory / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(records)


def test_two_workers_share_a_search(bench: Bench) -> None:
    """Both train at all times: neither goes on before the other has begun an epoch too."""
    together, taking = threading.Barrier(2), threading.Lock()
    begun: list[tuple[int, Advance]] = []

    def meet(number: int, step: Advance, others: int) -> str | None:
        if not step.stop:
            with taking:
                begun.append((threading.get_ident(), step))
            together.wait(timeout=120)
        return None

    records = bench.run(jobs=2, dies=meet)
    assert len(begun) == BUDGET
    # A training that is in flight is not begun or continued by the other worker.
    for (one, first), (other, second) in zip(begun[::2], begun[1::2], strict=True):
        assert one != other
        assert first.trial.factors != second.trial.factors
    # One that waits is continued where it waits, so no epoch is made again.
    holders: dict[str, set[int]] = {}
    epochs: dict[str, list[int]] = {}
    for holder, step in begun:
        holders.setdefault(step.id, set()).add(holder)
        epochs.setdefault(step.id, []).append(step.epochs)
    assert {len(each) for each in holders.values()} == {1}
    assert all(each == list(range(1, len(each) + 1)) for each in epochs.values())
    assert len(bench.trainings.made) == len(set(bench.trainings.made)) == BUDGET + 3 * EPOCHS
    # Each configuration is one training and one record, with all of its epochs.
    own = {record.trial: record for record in searched(records)}
    assert {trial: len(record.curve) for trial, record in own.items()} == {
        trial: len(each) for trial, each in epochs.items()
    }
    assert len({str(record.factors) for record in own.values()}) == len(own)
    assert any(len(each) < EPOCHS for each in epochs.values())
    # The winner is the best of what both have found.
    best = max(own.values(), key=lambda record: max(entry["val_accuracy"] or 0 for entry in record.curve))
    again = [record for record in records if record.seed]
    assert sorted(record.seed for record in again) == [1, 2, 3]
    assert all(record.factors == best.factors for record in again)
    assert made_again(records) == 0


def test_the_status_of_a_search_counts_epochs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(
        "fusetune.bench.search.run.StatusKeeper",  # each event is a second after the last, and so is written
        functools.partial(StatusKeeper, clock=lambda: float(next(ticks))),
    )
    seen: list[tuple[str, RunStatus]] = []

    def look(name: str) -> None:
        status = read_status(bench.directory)
        assert status is not None
        seen.append((name, status))

    def look_on(number: int, step: Advance, others: int) -> None:
        if not step.stop:
            look(step.id)

    whole = bench.trainings.run_whole

    def looked_at(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
        look(trial.id)
        return whole(trial, context, on_progress)

    monkeypatch.setattr(bench.trainings, "run_whole", looked_at)
    records = bench.run(dies=look_on)
    assert [status.done for _, status in seen] == [*range(BUDGET), BUDGET, BUDGET, BUDGET]
    for name, status in seen:
        (node,) = status.nodes
        assert [trial.trial for trial in node.trials] == [name]
        assert (status.unit, status.total, status.failed) == ("epoch", BUDGET, 0)
        assert status.waiting == max(0, BUDGET - status.done - 1)
    assert [name for name, _ in seen[BUDGET:]] == [record.trial for record in records if record.seed]
    assert seen[-1][1].message.startswith("[fresh seed] ")
    assert read_status(bench.directory) is None
    seen.clear()
    (bench.directory / "records.jsonl").write_text("")
    bench.run(resume=True)
    assert [status.done for _, status in seen] == [BUDGET] * 3


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("budget", [20_000_000, 2_000_000_000])
def test_a_budget_beyond_what_there_is_to_train_is_not_counted_down(
    bench: Bench, budget: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    run = SearchExecutor.run

    def counted(self: SearchExecutor, trial: int, on_progress: OnProgress) -> Record:
        asked.append(trial)
        return run(self, trial, on_progress)

    monkeypatch.setattr(SearchExecutor, "run", counted)
    records = bench.run(SOON_OVER.replace("budget_epochs: 80", f"budget_epochs: {budget}"), jobs=jobs)
    assert {record.status for record in searched(records)} <= {"ok", "stopped_early"}
    assert len(asked) <= 6 * EPOCHS + 2 * jobs  # of each configuration each epoch, and who finds nothing left
    assert any("nothing was left to train" in said for said in bench.messages.said)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("how", ["killed", "idle"])
@pytest.mark.parametrize("when", [(3,), (3, 7, 12)])
def test_what_waited_in_a_lost_worker_is_trained_again_and_counted_apart(
    bench: Bench, jobs: int, how: str, when: tuple[int, ...]
) -> None:
    deaths: list[int] = []

    def die_with_others(number: int, step: Advance, others: int) -> str | None:
        if number not in when or not others or step.stop:
            return None
        deaths.append(number)
        return how

    records = bench.run(jobs=jobs, dies=die_with_others)
    assert epochs_of(records) == BUDGET
    assert not [record for record in records if record.status in ("out_of_memory", "failed")]
    assert made_again(records) == trained(bench) - BUDGET
    losses = [text for text in bench.messages.said if text.startswith("worker ")]
    assert len(losses) == len(deaths) > 0
    assert all("was replaced" in text and "paused in its memory" in text for text in losses)
    assert all((KILLED in text) == (how == "killed") for text in losses)
    totals = [text for text in bench.messages.said if "not counted in the budget" in text]
    assert [text.split(" repeated")[0] for text in totals] == (
        [counted(made_again(records), "epoch")] if made_again(records) else []
    )
    if len(when) > 1 and jobs == 1:
        assert made_again(records)


def test_a_training_that_is_killed_alone_is_out_of_memory(bench: Bench) -> None:
    records = bench.run(dies=lambda number, step, others: "killed" if number == 1 else None)
    (lost,) = [record for record in searched(records) if record.status == "out_of_memory"]
    assert lost.reason == KILLED
    # The epoch that could not be made counts.
    assert epochs_of(records) == BUDGET - 1


def test_what_was_lost_is_not_trained_again_only_to_be_ended(bench: Bench) -> None:
    records = bench.run(dies=lambda number, step, others: "idle" if BUDGET_SPENT in step.stop else None)
    assert epochs_of(records) == trained(bench) == BUDGET
    left = [record for record in searched(records) if outcome_of(record).from_log]
    assert left
    assert all("the worker that trained it is gone" in record.reason for record in left)
    told = [text for text in bench.messages.said if "from the search's log" in text]
    assert any(text.startswith(f"{len(left)} trainings") for text in told)


def test_a_worker_that_is_behind_catches_up_and_says_by_how_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusetune.bench.search.trial.trial_epochs", bench.trainings.train)
    (bench.path / "small.yaml").write_text(SPEC)
    spec = load_spec(bench.path / "small.yaml", device="cpu").spec
    trial = make_trial(spec, {"base_lr": 0.1, "optimizer": "sgd"}, 0)
    here = WorkerContext()

    def step(epochs: int, made: int, stop: str = "") -> Record:
        return run_step(Advance(trial, epochs, stop, made), here, lambda progress: None)

    assert step(1, 0).outcome == PausedTraining()
    # Epoch 2 was made elsewhere.
    assert step(3, 2).outcome == PausedTraining(epochs_made_again=1)
    ended = step(3, 3, "dropped: enough")
    assert (ended.status, len(ended.curve), ended.outcome) == ("stopped_early", 3, None)
    assert step(3, 3, "dropped: enough").status == "failed"
    assert len(bench.trainings.made) == 3


def test_trainings_that_end_by_themselves_leave_their_epoch_to_others(bench: Bench) -> None:
    bench.trainings.ends_after = 2
    records = bench.run()
    assert any(len(record.curve) == 2 and record.status == "ok" for record in searched(records))
    assert epochs_of(records) == trained(bench) == BUDGET


def test_the_report_tells_what_only_waited_from_what_was_dropped(bench: Bench) -> None:
    records = bench.run()
    study = study_search(RunDirectory.open(bench.directory).run, records, str(bench.directory))
    waited = [trial for trial in study.trials if trial.reason == BUDGET_SPENT]
    assert len(waited) == study.left > 0
    told = [record.reason for record in searched(records) if BUDGET_SPENT in record.reason]
    assert told == [f"paused: {BUDGET_SPENT}"] * len(waited)
    console = Console(width=140, file=io.StringIO())
    with console.capture() as shown:
        render_search(study, console, no_pictures(bench))
    best = [trial for trial in study.trials if trial.values][:8]
    assert waited[0] in best
    text = shown.get()
    assert text.count("paused at the budget's end") == sum(trial in best for trial in waited)
    dropped = [line for line in text.splitlines() if line.endswith(" dropped │")]
    assert len(dropped) == sum(trial.status == "dropped" and trial not in waited for trial in best)
    assert f"{len(waited)} trainings could have continued when the budget was spent" in text


class PowerCut(BaseException):
    """The run ends here, whatever it was doing."""


@pytest.mark.parametrize(("spec", "slope", "left"), [(SPEC, 0.1, False), (SOON_OVER, 0.0, True)])
def test_a_winner_whose_fresh_seeds_have_begun_stays_the_winner(
    bench: Bench, spec: str, slope: float, left: bool
) -> None:
    bench.trainings.slope = slope
    whole = bench.trainings.run_whole

    def cut_at_seed_2(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
        if trial.seed == 2 and not trial.rehearsal:
            raise PowerCut
        return whole(trial, context, on_progress)

    bench.trainings.run_whole = cut_at_seed_2  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        bench.run(spec)
    before = trained(bench)
    assert (before < plan_of(RunDirectory.open(bench.directory).run.spec).budget_epochs) == left
    first, _ = RunDirectory.open(bench.directory).records()
    (begun,) = [record for record in first if record.seed]

    bench.trainings.run_whole = whole  # type: ignore[method-assign]
    bench.trainings.lift = 0.1  # whatever is trained from now on would win
    records = bench.run(spec, resume=True)
    assert trained(bench) == before
    assert records[: len(first)] == first
    again = [record for record in records if record.seed]
    assert [record.seed for record in again] == [1, 2, 3]
    assert all(record.factors == begun.factors for record in again)
    resolved = RunDirectory.open(bench.directory).run
    fresh = study_search(resolved, records, str(bench.directory)).fresh
    assert fresh.values == tuple(accuracy_of(record) for record in again)


def accuracy_of(record: Record) -> float:
    """The best of a curve."""
    return max(entry["val_accuracy"] or 0.0 for entry in record.curve)


def test_a_spent_budget_stays_spent(bench: Bench) -> None:
    records = bench.run()
    assert bench.run(resume=True) == records
    searcher, _ = open_search(plan_of(RunDirectory.open(bench.directory).run.spec), bench.directory)
    assert searcher.epochs_used == BUDGET
    assert not [trial for trial in searcher.trials if trial.status == "paused"]
    assert any(trial.reason == BUDGET_SPENT for trial in searcher.trials)


def test_a_search_in_which_all_trainings_diverge_says_so_loudly_and_is_no_success(bench: Bench) -> None:
    spec = SPEC.replace("{low: 0.001, high: 1.0, log: true}", "{low: 0.01, high: 100000.0}")
    bench.trainings.accuracy = lambda trial, epoch: math.nan  # type: ignore[method-assign]
    records = bench.run(spec)
    run = RunDirectory.open(bench.directory).run
    assert len(records) == BUDGET
    study = study_search(run, records, str(bench.directory))
    assert study.winner is None
    console = Console(width=140, file=io.StringIO())
    with console.capture() as shown:
        render_search(study, console, no_pictures(bench))
    said = [text for text in bench.messages.said if text.startswith("NOTHING FOUND")]
    for text in (said[-1], shown.get()):
        for part in ("NOTHING FOUND", f"{BUDGET} diverged", "base_lr", "log: true"):
            assert part in text


def test_the_report_names_the_rates_that_were_found_for_the_winner(bench: Bench) -> None:
    records = bench.run()
    rated = [
        dataclasses.replace(r, outcome=TrainingOutcome(base_lr_auto=AutoRate(0.125 + r.seed, None)))
        for r in records
    ]
    study = study_search(RunDirectory.open(bench.directory).run, rated, str(bench.directory))
    assert study.rates == ((0, 0.125), (1, 1.125), (2, 2.125), (3, 3.125))
    console = Console(width=300, file=io.StringIO())
    with console.capture() as shown:
        render_search(study, console, no_pictures(bench))
    assert "auto chose 0.125 (seed 0), 1.12 (seed 1)" in shown.get()


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SPEC.replace("optimizer: [sgd, adam]", "schedule: [{name: cosine}, {name: cosine, min_factor: 0.1}]"),
    ],
)
def test_a_search_whose_log_is_gone_is_reported_from_its_records_and_stays_over(
    bench: Bench, spec: str
) -> None:
    # The directory of a run that an earlier version made, whose search.journal nobody reads any more.
    records = bench.run(spec)
    run = RunDirectory.open(bench.directory).run
    before = study_search(run, records, str(bench.directory))
    (bench.directory / LOG).rename(bench.directory / "search.journal")
    after = study_search(run, records, str(bench.directory))
    assert not (bench.directory / LOG).exists()
    for told in ("winner", "value", "epoch", "fresh", "epochs_used", "left", "failure"):
        assert getattr(after, told) == getattr(before, told), told
    assert [(t.config, t.values, t.status) for t in after.trials] == [
        (t.config, t.values, t.status) for t in before.trials
    ]
    assert [note.partition("; ")[0] for note in after.notes] == [f"{bench.directory / LOG} is missing"]
    made = trained(bench)
    assert bench.run(spec, resume=True) == records
    assert trained(bench) == made
    assert study_search(run, records, str(bench.directory)).notes == ()


def test_a_search_that_goes_on_without_its_log_keeps_what_was_recorded(bench: Bench) -> None:
    train = bench.trainings.train

    def cut_at_epoch_20(
        trial: Trial, context: WorkerContext, on_progress: OnProgress
    ) -> Generator[Entry, str | None, Record]:
        if len(bench.trainings.made) >= 20:
            raise PowerCut
        return train(trial, context, on_progress)

    bench.trainings.train = cut_at_epoch_20  # type: ignore[method-assign]
    bench.trainings.slope = 1.0
    with pytest.raises(PowerCut):
        bench.run()
    first, _ = RunDirectory.open(bench.directory).records()
    assert first
    (bench.directory / LOG).rename(bench.directory / "search.journal")
    bench.trainings.train = train  # type: ignore[method-assign]
    records = bench.run(resume=True)
    assert records[: len(first)] == first
    assert epochs_of(records) == BUDGET
    assert any("the search is rebuilt from records.jsonl" in said for said in bench.messages.said)
