"""A run's directory keeps what was appended, whatever happens to the process, the disk or the other run."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.results.directory import RunDirectory, find_run
from fusetune.bench.results.keeper import RecordKeeper
from fusetune.bench.results.records import SCHEMA_VERSION, Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from tests.bench.faulty_disk import file_size_limit


def make_record(trial: str, **values: float) -> Record:
    """Make a record with content in every field."""
    curve: list[dict[str, float | None]] = [{"epoch": 1, "val_loss": None}]
    samples = {"step_time_s": [0.1, 0.2]}
    return Record(
        trial, {"lr": 0.1}, 3, "diverged", "loss is NaN", dict(values), samples, curve, {"device": "cpu"}
    )


def create(results: Path) -> RunDirectory:
    """Make a run of the spec `demo`."""
    run = RunInfo(spec=WrittenSpec({"seeds": 3}), command=("bench", "run"))
    return RunDirectory.create(results, "demo", run)


def test_what_is_appended_is_read_back_equal(tmp_path: Path) -> None:
    written = [make_record("a", steps=1), make_record("b")]
    with create(tmp_path) as directory:
        for record in written:
            directory.append(record)
    assert RunDirectory.open(directory.path).records() == (written, [])


def test_a_record_is_one_line_of_compact_json(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("line\nbreak"))
    text = (directory.path / "records.jsonl").read_text()
    assert text.count("\n") == 1
    assert ": " not in text
    assert json.loads(text)["trial"] == "line\nbreak"


def test_run_json_has_the_version_the_id_and_what_was_given(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        pass
    run = json.loads((directory.path / "run.json").read_text())
    assert RunInfo.from_dict(run) == directory.run == RunDirectory.open(directory.path).run
    assert json.loads(json.dumps(directory.run.as_dict())) == run
    assert list(directory.run.as_dict()) == list(run)
    assert run["schema_version"] == SCHEMA_VERSION
    assert run["spec"] == {"seeds": 3}
    assert directory.path == tmp_path / "demo" / run["run_id"]
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run["run_id"])


def test_a_run_that_was_just_begun_and_one_that_was_opened_can_be_reported(tmp_path: Path) -> None:
    spec = WrittenSpec({"name": "demo", "factors": {"a": [1, 2]}, "seeds": (0,)})
    run = RunInfo(spec=spec, overrides=("a=1",), classes=(("cat", "dog"),), trials=2)
    records = [Record("a=1", {"a": 1}, 0, "ok")]
    with RunDirectory.create(tmp_path, "demo", run) as directory:
        for each in (directory, RunDirectory.open(directory.path)):
            each.check_reportable(records)
            with pytest.raises(RunDirectoryError, match="trial b lacks the factor a"):
                each.check_reportable([Record("b", {}, 0, "ok")])


def test_a_run_without_records_has_none(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        assert directory.records() == ([], [])


def test_runs_started_in_the_same_second_get_directories_of_their_own(tmp_path: Path) -> None:
    paths = []
    for _ in range(10):
        with create(tmp_path) as directory:
            paths.append(directory.path)
    assert len(set(paths)) == 10


def test_a_run_id_that_is_taken_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter(["aaaa", "aaaa", "aaaa", "bbbb", "cccc", "dddd"])
    monkeypatch.setattr("fusetune.bench.results.fresh_directory.secrets.token_hex", lambda _: next(ends))
    with create(tmp_path) as first, create(tmp_path) as second:
        assert first.path != second.path


def test_a_nan_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("a"))
        with pytest.raises(ValueError, match="Out of range float"):
            directory.append(make_record("b", steps=float("nan")))
        directory.append(make_record("c"))
        assert [record.trial for record in directory.records()[0]] == ["a", "c"]


@pytest.mark.parametrize("torn", ['{"trial":"b","fact', "{", '{"trial":"b"}', "\0\0\0\0", "\udcff"])
def test_a_torn_last_line_is_dropped_with_a_note_and_cut_off_on_resume(tmp_path: Path, torn: str) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("a"))
    with (directory.path / "records.jsonl").open("ab") as file:
        file.write(torn.encode("utf-8", "surrogateescape"))
    records, notes = RunDirectory.open(directory.path).records()
    assert [record.trial for record in records] == ["a"]
    assert len(notes) == 1
    assert "cut short" in notes[0]
    with RunDirectory.resume(directory.path) as resumed:
        resumed.append(make_record("c"))
    records, notes = RunDirectory.open(directory.path).records()
    assert [record.trial for record in records] == ["a", "c"]
    assert notes == []


@pytest.mark.parametrize("broken", ["{not json", '{"trial":"x"}', "[1]", '{"trial":"x","unknown":1}', ""])
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, broken: str) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("a"))
    path = directory.path / "records.jsonl"
    path.write_text(path.read_text() + broken + "\n" + path.read_text())
    with pytest.raises(RunDirectoryError, match=r"records\.jsonl:2: not a record"):
        RunDirectory.open(directory.path).records()


def test_of_two_records_of_one_trial_the_first_counts(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("a", steps=1))
        directory.append(make_record("a", steps=2))
        records, notes = directory.records()
    assert [record.values["steps"] for record in records] == [1]
    assert "records.jsonl:2" in notes[0]


def test_two_runs_never_write_one_directory(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()} is writing"):
            RunDirectory.resume(directory.path)
        assert RunDirectory.open(directory.path).records() == ([], [])
    with RunDirectory.resume(directory.path) as resumed, pytest.raises(RunDirectoryError, match="in use"):
        RunDirectory.resume(resumed.path)


def test_a_run_of_a_changed_spec_is_refused_with_the_difference_and_stays_free(tmp_path: Path) -> None:
    begun = RunInfo(
        spec=WrittenSpec({"train": {"base_lr": 0.05, "epochs": 4}, "seeds": (0, 1)}), device="cpu"
    )
    with RunDirectory.create(tmp_path, "demo", begun) as directory:
        pass
    changed = {"train": {"base_lr": 0.1, "epochs": 4}, "seeds": (0, 1)}
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.resume(directory.path, RunInfo(spec=WrittenSpec(changed), device="cuda"))
    assert "spec.train.base_lr: 0.05 -> 0.1" in str(caught.value)
    assert "device: cpu -> cuda" in str(caught.value)
    assert "epochs" not in str(caught.value)
    with RunDirectory.resume(directory.path, begun) as resumed:
        resumed.append(make_record("a"))


def test_a_directory_opened_for_reading_cannot_be_appended_to(tmp_path: Path) -> None:
    with create(tmp_path) as directory:
        pass
    for closed in (directory, RunDirectory.open(directory.path)):
        with pytest.raises(ValueError, match="not open for appending"):
            closed.append(make_record("a"))


WRITER = """
import sys
from pathlib import Path
from fusetune.bench.results.records import Record
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.run_info import RunInfo
directory = RunDirectory.create(Path(sys.argv[1]), "demo", RunInfo())
print(directory.path, flush=True)
for number in range(10**9):
    directory.append(Record(str(number), {}, 0, "ok", "x" * 2000))
    print(number, flush=True)
"""


def test_a_killed_run_keeps_every_record_it_reported_and_frees_its_lock(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    reported = [int(process.stdout.readline()) for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    reported += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    with RunDirectory.resume(path) as resumed:
        trials = [int(record.trial) for record in resumed.records()[0]]
    assert trials == list(range(len(trials)))
    assert len(reported) <= len(trials) <= len(reported) + 1


def test_a_record_that_does_not_fit_on_the_disk_is_an_error_and_leaves_no_part_of_itself(
    tmp_path: Path,
) -> None:
    with create(tmp_path) as directory:
        directory.append(make_record("a"))
        size = (directory.path / "records.jsonl").stat().st_size
        with file_size_limit(size + 20), pytest.raises(RunDirectoryError) as caught:
            directory.append(make_record("b"))
        assert (directory.path / "records.jsonl").stat().st_size == size
        directory.append(make_record("c"))
        assert [record.trial for record in directory.records()[0]] == ["a", "c"]
    assert "records.jsonl: the file may not grow any more here" in str(caught.value)
    assert f"python -m bench run --resume {directory.path}" in str(caught.value)


def test_a_failing_fsync_takes_the_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with create(tmp_path) as directory:
        directory.append(make_record("a"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(RunDirectoryError, match="Input/output error"):
                directory.append(make_record("b"))
        assert [record.trial for record in directory.records()[0]] == ["a"]


def test_several_records_wait_for_the_disk_once_and_are_kept_or_taken_back_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, []

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with create(tmp_path) as directory:
        directory.append(make_record("first"))
        keeper = RecordKeeper(directory.run, directory, None)
        monkeypatch.setattr(os, "fsync", counted)
        kept = keeper.keep_all([(make_record("a"), None), (make_record("b"), None)])
        assert len(calls) == 1
        assert [record.trial for record in kept] == ["a", "b"]
        assert keeper.records == []
        with pytest.raises(RunDirectoryError, match="Input/output error"):
            keeper.keep_all([(make_record("c"), None), (make_record("d"), None)])
        assert [record.trial for record in directory.records()[0]] == ["first", "a", "b"]


def test_run_json_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    big = RunInfo(spec=WrittenSpec({"note": "x" * 100_000}))
    with file_size_limit(50_000), pytest.raises(RunDirectoryError, match="may not grow"):
        RunDirectory.create(tmp_path, "demo", big)
    assert list(tmp_path.glob("demo/*")) == []
    with pytest.raises(RunDirectoryError, match="no run is there"):
        find_run(tmp_path / "demo")


@pytest.mark.parametrize("blocked", ["results", "results/demo"])
def test_results_that_are_a_file_are_a_clear_error(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        create(tmp_path / "results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_results_without_write_permission_are_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirectoryError, match="Make it writable"):
        create(tmp_path / "results")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "may not grow any more"),
        (errno.EACCES, "Make it writable"),
        (errno.EROFS, "Make it writable"),
        (errno.ENOTDIR, "is a file"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_each_error_of_the_system_becomes_a_sentence_with_a_remedy(number: int, expected: str) -> None:
    text = str(unusable(Path("results/demo"), OSError(number, os.strerror(number), "results")))
    assert text.startswith("results/demo: ")
    assert expected in text
    assert "Errno" not in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no run is there"),
        ("{", "is broken"),
        ("[]", "no schema_version"),
        ('{"schema_version": "1"}', "no schema_version"),
        (f'{{"schema_version": {SCHEMA_VERSION + 1}}}', "Update fusetune"),
        ("\udcff", "is broken"),
    ],
)
@pytest.mark.parametrize("method", [RunDirectory.open, RunDirectory.resume])
def test_a_directory_that_is_no_readable_run_is_refused(
    tmp_path: Path, content: str | None, expected: str, method: object
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunDirectoryError, match=expected):
        method(tmp_path)  # type: ignore[operator]


def test_a_run_is_found_by_itself_or_as_the_newest_of_its_spec(tmp_path: Path) -> None:
    for name in ("20251231-235959-ffff", "20260101-000000-0000"):
        (tmp_path / "demo" / name).mkdir(parents=True)
        (tmp_path / "demo" / name / "run.json").write_text("{}")
    (tmp_path / "demo" / "20270101-000000-0000").mkdir()
    newest = tmp_path / "demo" / "20260101-000000-0000"
    assert find_run(tmp_path / "demo") == newest
    assert find_run(newest) == newest
    with pytest.raises(RunDirectoryError, match="a folder for each spec; known: demo"):
        find_run(tmp_path)
    with pytest.raises(RunDirectoryError, match="is not a directory"):
        find_run(tmp_path / "nowhere")


def test_a_run_without_records_can_be_removed_and_one_with_records_cannot(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "demo", RunInfo()) as directory:
        directory.remove()
    assert not (tmp_path / "demo").exists()
    with RunDirectory.create(tmp_path, "demo", RunInfo()) as directory:
        directory.append(Record("seed=0", {}, 0, "ok"))
        with pytest.raises(ValueError, match="has records"):
            directory.remove()
    assert len(RunDirectory.open(directory.path).records()[0]) == 1
