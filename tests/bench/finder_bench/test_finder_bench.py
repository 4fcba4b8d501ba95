"""The comparison of finders: regrets computed by hand, failures as rows, and what is said without the peers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fusetune.bench.errors import InputError
from fusetune.bench.finder_bench import __main__ as program
from fusetune.bench.finder_bench.batch_cases import BATCH_CASES, draw, trains
from fusetune.bench.finder_bench.batches import TRIES, FoundBatch, compare_batches, largest
from fusetune.bench.finder_bench.jobs import Answer, Children, Job
from fusetune.bench.finder_bench.peers import PEERS, peer_versions
from fusetune.bench.finder_bench.rate_finders import LENGTHS, RATE_FINDERS, RULES, suggest
from fusetune.bench.finder_bench.rate_workloads import RATE_WORKLOADS, train
from fusetune.bench.finder_bench.rates import Entry, compare_rates
from fusetune.bench.finder_bench.record import FinderRecord
from fusetune.bench.finder_bench.tables import batch_tables, rate_tables

FAKES = "tests.bench.finder_bench.fake_finders"
# Workload -> rate -> accuracy, the same for both seeds but for 0.001 * seed.
ACCURACIES = {"easy": {0.01: 0.90, 0.1: 0.96, 1.0: 0.20}, "hard": {0.01: 0.50, 0.1: 0.40, 1.0: 0.10}}


def fake_run(jobs: Sequence[Job]) -> list[Answer]:
    """Finder `good` says 0.1, `bad` 1.0 on easy and nothing on hard, `broken` dies."""
    answers = []
    for job in jobs:
        given: Any = job.arguments
        if job.call.endswith(":suggest"):
            if given["finder"] == "broken":
                answers.append(Answer(failure="the process ended by signal 9", died=True))
                continue
            lr = 0.1 if given["finder"] == "good" else {"easy": 1.0, "hard": None}[given["workload"]]
            answers.append(Answer({"rates": {"rule": lr}, "steps": given["steps"] - 5}))
        else:
            accuracy = ACCURACIES[given["workload"]][given["lr"]] + 0.001 * given["seed"]
            answers.append(Answer({"accuracy": accuracy, "loss": 1.0}))
    return answers


def compared() -> FinderRecord:
    rates = compare_rates(
        {"good": ("rule",), "bad": ("rule",), "broken": ("rule",)},
        ["easy", "hard"],
        seeds=range(2),
        lengths=dict.fromkeys(("good", "bad", "broken"), (100,)),
        run=fake_run,
        grid=(0.01, 0.1, 1.0),
    )
    batches = (
        FoundBatch("ours", "small", 200, 190, trained=3),
        FoundBatch("theirs", "small", 200, None, "the process ended by signal 6: std::bad_alloc"),
    )
    return FinderRecord(rates, batches, {"fastai": "2"}, {"cpu": "x"}, (0.5, 1.0), {"rates": 2.0})


def test_regret_is_the_mean_over_seeds_and_then_workloads_of_points_below_the_grids_best() -> None:
    rates = compared().rates
    assert rates is not None
    assert rates.best_lr == {"easy": 0.1, "hard": 0.01}
    scores = {each.entry: each for each in rates.scores()}
    assert [each.entry.finder for each in rates.scores()] == ["good", "bad", "broken"]
    good = scores[Entry("good", "rule", 100)]
    assert good.by_workload == pytest.approx({"easy": 0.0, "hard": 10.0})
    assert (good.mean, good.worst, good.lost) == (pytest.approx(5.0), (pytest.approx(10.0), "hard"), 0)
    assert (good.trainings, good.unanswered, good.steps) == (4, 0, 95)


def test_a_training_with_less_than_half_of_the_best_accuracy_is_lost() -> None:
    rates = compared().rates
    assert rates is not None
    bad = next(each for each in rates.scores() if each.entry.finder == "bad")
    assert (bad.mean, bad.lost, bad.unanswered, bad.trainings) == (pytest.approx(76.0), 2, 2, 2)


def test_a_finder_that_dies_is_a_row_with_its_reason() -> None:
    rates = compared().rates
    assert rates is not None
    broken = next(each for each in rates.scores() if each.entry.finder == "broken")
    assert (broken.mean, broken.worst, broken.unanswered) == (None, None, 4)
    reasons = {each.failure for each in rates.suggested if each.entry.finder == "broken"}
    assert reasons == {"the process ended by signal 9"}


def test_a_record_is_read_as_it_was_written_and_its_tables_fit_100_columns(tmp_path: Path) -> None:
    record = compared()
    record.write(tmp_path / "new" / "record.json")
    again = FinderRecord.read(tmp_path / "new" / "record.json")
    assert again == record
    assert again.rates is not None
    console = Console(file=StringIO(), width=100)
    for each in [*rate_tables(again.rates), *batch_tables(again.batches)]:
        console.print(each)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= 100
    assert re.search(r"good, rule +100, usual +95 +5\.00 +10\.00 +0 +0", printed)
    assert "4 x broken, rule: the process ended by signal 9" in printed
    assert re.search(r"ours +190, 95\s% +95 % +3/3 +1/1", printed)
    assert re.search(r"theirs +failed +0 % +0/0? *", printed)


@pytest.mark.parametrize("true", [1, 5, 147, 999, 1000])
def test_bisection_finds_the_largest_within_half_a_percent(true: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= true

    assert true * 0.995 <= largest(fits, 1000) <= true
    assert len(tried) <= 20


def test_each_batch_found_is_trained_again_and_a_failure_has_a_share_of_zero() -> None:
    asked: list[Job] = []

    def ask(job: Job) -> Answer:
        asked.append(job)
        given: Any = job.arguments
        if job.call.endswith(":trains"):
            return Answer(given["batch_size"] <= 100)
        if given["finder"] == "lost":
            return Answer(failure="the process ended by signal 9", died=True)
        return Answer({"good": 80, "greedy": 120}[given["finder"]])

    good, greedy, lost = compare_batches({"case": 1000}, ["good", "greedy", "lost"], ask=ask)
    assert (good.true, good.size, good.share, good.trained) == (100, 80, 0.8, TRIES)
    assert (greedy.share, greedy.trained, greedy.survived) == (1.2, 0, True)
    assert (lost.share, lost.survived, lost.failure) == (0, False, "the process ended by signal 9")
    assert all(job.group for job in asked if job.call.endswith(":trains"))


@pytest.mark.slow
def test_children_that_raise_die_and_hang_are_answers_and_the_next_job_runs() -> None:
    calls = ("process_id", "process_id", "raises", "prints", "dies", "process_id", "hangs", "process_id")
    jobs = [Job(f"{FAKES}:{name}", group="g", timeout_s=3 if name == "hangs" else 60) for name in calls]
    with Children() as children:
        first, second, raised, printed, died, after, hung, last = children.run(jobs)
    assert first.value == second.value
    assert len({first.value, after.value, last.value}) == 3
    assert (raised.failure, raised.died) == ("RuntimeError: no luck", False)
    assert printed.value == "kept apart"
    assert died.failure == "the process ended with code 3: out of everything"
    assert (hung.failure, hung.died) == ("no answer within 3 s", True)


def test_without_the_peers_one_sentence_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "fastai":
            raise metadata.PackageNotFoundError(name)
        return "1"

    with pytest.raises(InputError, match=r"fastai: not installed.*make finder-bench"):
        peer_versions(version)

    def missing() -> dict[str, str]:
        raise InputError("finder-bench", "fastai: not installed")

    monkeypatch.setattr(program, "peer_versions", missing)
    assert program.main([]) == 2
    assert "fastai: not installed" in capsys.readouterr().err


def test_bad_arguments_and_files_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["speeds"], ["--seeds", "0"]):
        with pytest.raises(SystemExit) as ended:
            program.main(arguments)
        assert ended.value.code == 2
    (tmp_path / "x.json").write_text("{}")
    assert program.main(["--show", str(tmp_path / "x.json")]) == 2
    assert "is no record of finder-bench" in capsys.readouterr().err


def test_show_prints_a_record_without_running_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared().write(tmp_path / "record.json")
    assert program.main(["--show", str(tmp_path / "record.json")]) == 0
    assert "fastai 2. rates 2 s. Load of the machine" in capsys.readouterr().out


def test_ours_is_asked_as_a_person_asks_it_and_its_rate_trains() -> None:
    name = "digits, MLP, momentum"
    found = suggest("fusetune", name, seed=0, steps=100)
    assert set(found["rates"]) == set(RULES["fusetune"])
    assert 10 < found["steps"] <= 100
    assert train(name, found["rates"]["lr_range_test"], seed=0)["accuracy"] > 0.8
    assert train(name, found["rates"]["lr_range_test"], seed=0) == train(
        name, found["rates"]["lr_range_test"], seed=0
    )


def test_every_finder_and_workload_can_be_built() -> None:
    assert set(RULES) == set(RATE_FINDERS) == set(LENGTHS)
    assert len(PEERS) == 4
    for workload in RATE_WORKLOADS.values():
        x, y = next(iter(workload.loader(0)))
        logits = workload.make_model(0)(x)
        assert len(logits) == len(y) == workload.batch_size
        assert int(y.max()) < logits.shape[1]


def test_samples_of_a_batch_case_are_the_same_each_time_and_fit_its_model() -> None:
    for name, case in BATCH_CASES.items():
        x, y, x_test, y_test = draw(name)
        assert len(x) == len(y) > case.samples
        assert len(x_test) == len(y_test)
        assert case.build()(torch.from_numpy(x[:2])).shape == (2, 10)
        assert (draw(name)[0] == x).all()


@pytest.mark.slow
def test_a_small_batch_trains_under_the_limit_and_a_huge_one_does_not() -> None:
    name = next(iter(BATCH_CASES))
    with Children() as children:
        call = "fusetune.bench.finder_bench.batch_cases:trains"
        small, huge = children.run([Job(call, {"case": name, "batch_size": size}, "g") for size in (2, 4000)])
    assert (small.value, huge.value) == (True, False)
    assert callable(trains)
