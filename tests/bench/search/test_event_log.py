"""A search on disk, its spec and its summary."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from rich.console import Console

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.pictures import Pictures
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.search.event_log import LOG, EventLog
from fusetune.bench.search.for_optuna import labels, optuna_study, predicted_study
from fusetune.bench.search.plan import SearchPlan, plan_of, prior_words
from fusetune.bench.search.report import show_search
from fusetune.bench.search.state import kept_words, open_search, read_search
from fusetune.bench.search.study import fresh_runs, study_search
from fusetune.bench.spec.load import load_spec
from fusetune.tuner.search.searcher import Searcher
from tests.bench.faulty_disk import file_size_limit, read_only, snapshot

SPACE: dict[str, Any] = {
    "base_lr": {"low": 0.001, "high": 1.0, "log": True},
    "width": {"low": 4, "high": 64},
    "schedule": [{"name": "cosine", "min_factor": 0.1}, "constant"],
}
PLAN = SearchPlan(SPACE, 3, 0, "val_accuracy", 30, False, (1, 2, 3))


def value(config: dict[str, Any], epoch: int) -> float:
    return 0.9 - 0.1 * abs(math.log10(config["base_lr"]) + 1.5) - 0.02 * (3 - epoch)


def run(searcher: Searcher, log: EventLog, epochs: int) -> None:
    """Search with made-up trainings; those of rate above 0.5 diverge."""
    for _ in range(epochs):
        known = len(searcher.trials)
        trial = searcher.ask()
        assert trial is not None
        if trial.number == known:
            log.begin(trial)
        diverges = trial.config["base_lr"] > 0.5
        searcher.tell(trial, None if diverges else value(trial.config, trial.epochs + 1))
        if not diverges:
            log.report(trial, {"epoch": trial.epochs, "val_accuracy": trial.values[-1]})
        for other in searcher.trials:
            if other.status != "paused" and log.trainings[other.number].status == "paused":
                log.close(other)


def test_a_search_is_taken_up_as_it_was_left(tmp_path: Path) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 14)
    again, _ = open_search(PLAN, tmp_path)
    assert again.epochs_used == 14
    for old, new in zip(searcher.trials, again.trials, strict=True):
        assert (old.config, old.values, old.status, old.reason) == (
            new.config,
            new.values,
            new.status,
            new.reason,
        )
    run(again, open_search(PLAN, tmp_path)[1], 6)
    assert open_search(PLAN, tmp_path)[0].epochs_used == 20


def test_a_training_whose_end_was_not_noted_any_more_is_finished(tmp_path: Path) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    trial = searcher.ask()
    assert trial is not None
    log.begin(trial)
    for epoch in range(1, PLAN.max_epochs + 1):
        searcher.tell(trial, 0.5 + 0.1 * epoch)
        log.report(trial, {"epoch": epoch, "val_accuracy": trial.values[-1]})
    # Killed here: the log has all epochs, and not yet how the trial ended.
    again, _ = open_search(PLAN, tmp_path)
    assert again.epochs_used == PLAN.max_epochs
    assert (again.trials[0].status, again.trials[0].reason) == ("finished", "all 3 epochs, the last at 0.8")


def test_a_search_that_was_concluded_stays_so_and_counts_repeated_epochs(tmp_path: Path) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 3)
    paused = next(trial for trial in searcher.trials if trial.status == "paused")
    log.add_repeats(paused, 2)
    log.add_repeats(paused, 3)
    assert not log.is_over
    log.conclude()
    again = open_search(PLAN, tmp_path)[1]
    assert again.is_over
    assert again.trainings[paused.number].made_again == 5
    assert sum(training.made_again for training in again.trainings) == 5


def test_an_interrupted_search_keeps_epochs_of_its_budget(tmp_path: Path) -> None:
    made = RunInfo(spec=WrittenSpec(resolved_spec()))
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 14)
    trained = len(searcher.trials)
    begun = searcher.ask()
    assert begun is not None
    if begun.number == trained:
        log.begin(begun)  # its first epoch is in flight
    assert kept_words(made, [], str(tmp_path)) == f"14 of 30 epochs, of {trained} trainings, are kept"
    log.conclude()
    assert kept_words(made, [], str(tmp_path)).endswith("and 0 of 3 fresh seeds of the winner are kept")


def test_values_that_optuna_cannot_hold_are_their_json() -> None:
    assert labels([{"name": "cosine", "min_factor": 0.1}]) == ['{"min_factor": 0.1, "name": "cosine"}']
    assert labels([2, 0.5, "adam", True, None]) == [2, 0.5, "adam", True, None]


def test_the_study_says_what_matters_and_draws_it(tmp_path: Path) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 30)
    resolved = resolved_spec()
    assert plan_of(WrittenSpec(resolved)) == PLAN
    study = study_search(RunInfo(spec=WrittenSpec(resolved)), [], str(tmp_path))
    pictures = Pictures(tmp_path, drawing=True)
    show_search(study, Console(file=io.StringIO()), pictures)
    assert study.winner is not None
    assert max(study.importances, key=lambda name: study.importances[name]) == "base_lr"
    assert sum(study.importances.values()) == pytest.approx(1)
    assert {file.name for file in pictures.files} == {
        "parallel_coordinate.png",
        "parallel_coordinate.svg",
        "contour.png",
        "contour.svg",
    }
    assert all(file.stat().st_size > 1000 for file in pictures.files)


def test_choices_that_span_decades_are_drawn_in_decades(tmp_path: Path) -> None:
    space = {
        "batch_size": [8, 32, 128],
        "width": [4, 8],
        "base_lr": [0.01, 0.3],
        "schedule": ["cosine", "constant"],
    }
    plan = SearchPlan(space, 3, 0, "val_accuracy", 30, False, (1, 2, 3))
    searcher, log = open_search(plan, tmp_path)
    trial = searcher.ask()
    assert trial is not None
    log.begin(trial)
    searcher.tell(trial, 0.5)
    kinds = predicted_study(plan, searcher).trials[0].distributions
    assert kinds["batch_size"] == IntDistribution(8, 128, log=True)
    assert kinds["base_lr"] == FloatDistribution(0.01, 0.3, log=True)
    assert kinds["width"] == CategoricalDistribution([4, 8])
    assert kinds["schedule"] == CategoricalDistribution(["cosine", "constant"])


def test_a_search_says_what_its_prior_knows_nothing_of() -> None:
    def words(space: dict[str, Any], prior: bool = True) -> str:
        return prior_words(SearchPlan(space, 3, 0, "val_accuracy", 30, prior, (1,)))

    rates = {"base_lr": [0.01, 0.1]}
    assert words(rates) == "with a prior from earlier runs"
    assert words(rates, prior=False) == "without a prior"
    assert words({**rates, "activation": ["relu", "gelu", "silu"], "depth": [1, 2]}) == (
        "with a prior from earlier runs, which have no curves for activation gelu, silu; depth"
    )
    assert words({"depth": [1, 2]}) == "without a prior, because earlier runs have no curves for depth"


def test_the_winners_interval_is_students() -> None:
    def record(seed: int, values: list[float | None]) -> Record:
        return Record(f"seed={seed}", {}, seed, "ok", curve=[{"val_accuracy": v} for v in values])

    records = [record(0, [0.99]), record(1, [0.5, 0.90]), record(2, [0.92, 0.91]), record(3, [None, 0.94])]
    fresh = fresh_runs(records, PLAN, {})
    assert fresh.values == (0.90, 0.92, 0.94)
    assert fresh.mean == pytest.approx(0.92)
    # t_{0.975, 2} = 4.3027, s = 0.02
    assert fresh.low == pytest.approx(0.92 - 4.3027 * 0.02 / 3**0.5, abs=1e-5)
    assert fresh.high == pytest.approx(0.92 + 4.3027 * 0.02 / 3**0.5, abs=1e-5)
    assert fresh_runs(records[:2], PLAN, {}).low is None
    assert fresh_runs(records[:1], PLAN, {}).mean is None


def test_re_runs_of_another_configuration_are_no_part_of_the_interval() -> None:
    def record(seed: int, schedule: str, value: float) -> Record:
        factors = {"base_lr": 0.1, "schedule": schedule}
        return Record(
            f"schedule={schedule},seed={seed}", factors, seed, "ok", curve=[{"val_accuracy": value}]
        )

    records = [record(1, "constant", 0.5), record(1, "cosine", 0.9), record(2, "cosine", 0.92)]
    winner = {"base_lr": 0.1, "schedule": {"name": "cosine"}}
    assert fresh_runs(records, PLAN, winner).values == (0.9, 0.92)
    assert fresh_runs(records, PLAN, {**winner, "base_lr": 0.2}).values == ()
    assert fresh_runs(records, PLAN, None).values == ()


def resolved_spec() -> dict[str, Any]:
    return {
        "name": "demo",
        "design": {"search": {"budget_epochs": 30, "prior": False, "fresh_seeds": 3}},
        "seeds": [0],
        "factors": SPACE,
        "train": {"epochs": 3},
    }


def told(searcher: Searcher) -> list[tuple[dict[str, Any], list[float], str]]:
    return [(trial.config, trial.values, trial.status) for trial in searcher.trials]


@pytest.mark.parametrize("cut", [1, 2, 20, 60, 150, 400, 1500])
def test_a_torn_log_is_read_up_to_its_last_entry_and_gone_on_with(tmp_path: Path, cut: int) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 14)
    path = tmp_path / LOG
    os.truncate(path, path.stat().st_size - cut)
    torn = path.read_bytes()
    read, reading = read_search(PLAN, tmp_path)
    assert path.read_bytes() == torn
    note = f"{path}: the last line was cut short by a crash and is left out"
    assert reading.note == ("" if torn.endswith(b"\n") else note)
    for (config, values, _), (known, reached, _) in zip(told(read), told(searcher), strict=False):
        assert config == known
        assert values == reached[: len(values)]
    again, going_on = open_search(PLAN, tmp_path)
    assert told(again) == told(read)
    run(again, going_on, 5)
    after, last = read_search(PLAN, tmp_path)
    assert (told(after), last.note) == (told(again), "")


def test_a_log_on_a_full_disk_is_an_error_and_can_be_gone_on_with(tmp_path: Path) -> None:
    searcher, log = open_search(PLAN, tmp_path, go_on="bench run --resume there")
    run(searcher, log, 6)
    path = tmp_path / LOG
    before = path.read_bytes()
    with file_size_limit(len(before) + 30), pytest.raises(RunDirectoryError) as caught:
        run(searcher, log, 6)
    assert str(path) in str(caught.value)
    assert "Then continue with `bench run --resume there`." in str(caught.value)
    assert path.read_bytes() == before
    again, going_on = open_search(PLAN, tmp_path)
    assert again.epochs_used == 6
    run(again, going_on, 8)
    assert read_search(PLAN, tmp_path)[0].epochs_used == 14


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        "7",
        "{}",
        '{"event": "pause"}',
        '{"event": "epoch", "training": 0}',
        '{"event": "epoch", "training": 1, "entry": {}}',
        '{"event": "epoch", "training": 0, "entry": [1]}',
        '{"event": "epoch", "training": [0], "entry": {"epoch": 1}}',
        '{"event": "made again", "training": 0, "epochs": "few"}',
    ],
)
def test_a_line_of_a_log_that_is_none_is_an_error_that_names_it(tmp_path: Path, broken: str) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    run(searcher, log, 3)
    path = tmp_path / LOG
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, broken, *rest, ""]))
    for open_it in (open_search, read_search):
        with pytest.raises(RunDirectoryError, match=r"search\.jsonl:2: not an event of this search; "):
            open_it(PLAN, tmp_path)


@pytest.mark.parametrize(
    ("line", "change", "wrong"),
    [
        (0, lambda event: event["config"].pop("width"), "the factors are base_lr, width, schedule"),
        (
            0,
            lambda event: event["config"].update(base_lr=2.0),
            "config.base_lr: 2.0 is not between 0.001 and",
        ),
        (0, lambda event: event["config"].update(base_lr=True), "config.base_lr: True is not between"),
        (0, lambda event: event["config"].update(schedule="step"), "config.schedule: 'step' is none of the"),
        (0, lambda event: event.update(training=1), "training 1 cannot begin; 0 is the next"),
        (1, lambda event: event["entry"].update(epoch=2), "epoch 2 does not follow epoch 0"),
        (1, lambda event: event["entry"].pop("val_accuracy"), "epoch: 'val_accuracy' is missing"),
        (1, lambda event: event["entry"].update(val_accuracy="high"), "val_accuracy is 'high', which is no"),
        (2, lambda event: event.update(status="lost"), "unknown status 'lost'; known: finished, dropped, "),
        (2, lambda event: event.update(training=-1), "training -1 has not begun"),
        (
            3,
            lambda event: event.update(event="end", status="failed", reason=""),
            "training 0 has ended before",
        ),
    ],
)
def test_an_event_that_is_none_of_the_search_is_an_error(
    tmp_path: Path, line: int, change: Callable[[dict[str, Any]], Any], wrong: str
) -> None:
    searcher, log = open_search(PLAN, tmp_path)
    trial = searcher.ask()
    assert trial is not None
    log.begin(trial)
    searcher.tell(trial, 0.5)
    log.report(trial, {"epoch": 1, "val_accuracy": 0.5})
    searcher.drop(trial, "enough")
    log.close(trial)
    path = tmp_path / LOG
    events = [json.loads(text) for text in path.read_text().splitlines()]
    events.append({"event": "conclude", "training": 0})
    change(events[line])
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(RunDirectoryError) as caught:
        read_search(PLAN, tmp_path)
    assert str(caught.value).startswith(f"{path}:{line + 1}: not an event of this search; ")
    assert wrong in str(caught.value)
    assert "Restore the file, or start a new run." in str(caught.value)


@pytest.mark.parametrize("there", ["log", "torn log", "no log"])
def test_a_reader_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    if there != "no log":
        run(*open_search(PLAN, tmp_path), 12)
    if there == "torn log":
        with (tmp_path / LOG).open("a") as file:
            file.write('{"op_code": 8, "tri')
    before = snapshot(tmp_path)
    with monkeypatch.context() as patch:
        read_only(patch)
        run_info = RunInfo(spec=WrittenSpec(resolved_spec()))
        study = study_search(run_info, [Record("a", {}, 0, "ok")], str(tmp_path))
        show_search(study, Console(file=io.StringIO()), Pictures(tmp_path, drawing=False))
    assert snapshot(tmp_path) == before
    assert study.epochs_used == (0 if there == "no log" else 12)
    notes = {"log": "", "torn log": "cut short", "no log": "search.jsonl is missing"}
    assert notes[there] in " ".join(study.notes)
    assert len(study.notes) == (there != "log")


def test_a_search_can_be_handed_to_optunas_own_storage(tmp_path: Path) -> None:
    run_info = RunInfo(kind="search", spec=WrittenSpec(resolved_spec()))
    with RunDirectory.create(tmp_path / "results", "demo", run_info) as directory:
        searcher, log = open_search(PLAN, directory.path)
        run(searcher, log, 25)
    study = optuna_study(directory.path)
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    optuna.create_study(study_name="demo", storage=storage, direction=study.direction).add_trials(
        study.trials
    )
    read = optuna.load_study(study_name="demo", storage=storage)
    assert [[*trial.intermediate_values.values()] for trial in read.trials] == [
        trial.values for trial in searcher.trials
    ]
    assert {trial.state.name for trial in read.trials} >= {"COMPLETE", "PRUNED"}
    for trial, shown in zip(searcher.trials, read.trials, strict=True):
        assert (shown.user_attrs["status"], shown.params["width"]) == (trial.status, trial.config["width"])
        assert shown.value == (trial.values[-1] if trial.status == "finished" else None)
    assert read.best_value == pytest.approx(
        max(t.values[-1] for t in searcher.trials if t.status == "finished")
    )


def test_a_run_that_is_no_search_is_no_optuna_study(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "demo", RunInfo()) as directory:
        pass
    with pytest.raises(RunDirectoryError, match="is a run of kind 'run'; an Optuna study shows a search"):
        optuna_study(directory.path)


SPEC = """\
name: small
data: {name: digits}
model: {name: mlp}
train: {base_lr: 0.1, batch_size: 32, epochs: 2}
factors:
  base_lr: {low: 0.01, high: 1.0, log: true}
design: {search: {budget_epochs: 10}}
"""


def test_a_search_with_a_range_is_read_and_written_back(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "small.yaml", device="cpu").spec
    plan = plan_of(WrittenSpec(spec.resolved()))
    assert plan.space == {"base_lr": {"low": 0.01, "high": 1.0, "log": True}}
    assert (plan.budget_epochs, plan.prior, plan.fresh_seeds, plan.max_epochs) == (10, True, (1, 2, 3), 2)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("{search: {budget_epochs: 10}}", "grid", "factors.base_lr: a range {low, high} is for design"),
        ("budget_epochs: 10", "budget: 10", "design.search.budget: unknown key; known: budget_epochs"),
        ("budget_epochs: 10", "budget_epochs: 0", "design.search.budget_epochs: must be at least 1, is 0"),
        ("low: 0.01", "low: 2.0", "factors.base_lr: low 2.0 must be below high 1.0"),
        ("low: 0.01", "low: 0.0", "factors.base_lr: low is 0.0, which has no logarithm"),
        ("low: 0.01", "lo: 0.01", "factors.base_lr: must be a list of values, or a range {low, high, log}"),
        ("log: true}", "log: true}\n  batch_size: {low: 1, high: a}", "low and high must be numbers"),
        ("log: true", 'log: "false"', "factors.base_lr: log must be true or false, is 'false'"),
        ("log: true", "log: 1", "factors.base_lr: log must be true or false, is 1"),
        ("high: 1.0", "high: .inf", "factors.base_lr.high: '.inf' is not a finite number"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    (tmp_path / "small.yaml").write_text(SPEC.replace(old, new))
    with pytest.raises(InputError) as error:
        load_spec(tmp_path / "small.yaml", device="cpu")
    assert sentence in str(error.value)
    assert "small.yaml:" in str(error.value)
