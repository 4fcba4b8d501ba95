"""The file of a history: what is added is read back, whatever merges, crashes and editors did to it meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fusetune.bench.errors import BenchError
from fusetune.bench.history.entries import as_line
from fusetune.bench.history.log import append_entry, history_name, known_histories, read_history
from tests.bench.gate.scratch_repository import clean_environment, commit, git, make_repository
from tests.bench.history.made_runs import DAY, FIRST, MACHINE, entry, iso, write


def ids(results: Path) -> list[str]:
    return [each.run_id for each in read_history(results, "smoke").entries]


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [entry(number) for number in range(3)]
    path = write(tmp_path, runs)
    assert path == tmp_path / "history" / MACHINE / "smoke.jsonl"
    found = read_history(tmp_path, "smoke")
    assert list(found.entries) == runs
    assert (found.machine, found.spec, found.notes, found.others) == (MACHINE, "smoke", (), ())


def test_a_line_is_one_json_object_with_sorted_keys(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0), entry(1)])
    for line in path.read_text().splitlines():
        content = json.loads(line)
        assert json.dumps(content, sort_keys=True, separators=(",", ":")) == line


def test_git_is_told_to_merge_by_union_and_what_a_person_wrote_there_stays(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)])
    attributes = tmp_path / "history" / ".gitattributes"
    assert attributes.read_text() == "*.jsonl merge=union\n"
    attributes.write_text("*.jsonl merge=union -diff\n")
    write(tmp_path, [entry(1)])
    assert attributes.read_text() == "*.jsonl merge=union -diff\n"


def test_a_merge_of_two_branches_that_recorded_has_the_runs_of_both_in_order(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository")
    results = root / "results"
    write(results, [entry(0)])
    commit(root, {}, "a run")
    git(root, "switch", "--quiet", "-c", "other")
    write(results, [entry(1), entry(4)])
    commit(root, {}, "two runs there")
    git(root, "switch", "--quiet", "main")
    write(results, [entry(2), entry(3)])
    commit(root, {}, "two runs here")
    git(root, "merge", "--quiet", "other", "-m", "merged")
    assert ids(results) == ["run0", "run1", "run2", "run3", "run4"]


def test_runs_are_ordered_by_commit_and_then_by_recording(tmp_path: Path) -> None:
    late, old = iso(FIRST + 90 * DAY), iso(FIRST - DAY)
    runs = [
        entry(0, run_id="third", commit_time=late, recorded=iso(FIRST + 91 * DAY)),
        entry(1, run_id="second", commit_time=late, recorded=late),
        entry(2, run_id="first", commit_time=old, recorded=iso(FIRST + 95 * DAY)),
        entry(3, run_id="no commit", commit=None, commit_time=None, recorded=iso(FIRST + 99 * DAY)),
    ]
    write(tmp_path, runs)
    assert ids(tmp_path) == ["first", "second", "third", "no commit"]


def test_times_in_other_zones_are_compared_as_times(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            entry(0, run_id="late", commit_time="2026-03-01T09:00:00-05:00"),
            entry(1, run_id="early", commit_time="2026-03-01T13:59:00+00:00"),
        ],
    )
    assert ids(tmp_path) == ["early", "late"]


def test_a_run_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0), entry(1)])
    path.write_text(path.read_text() * 2)
    found = read_history(tmp_path, "smoke")
    assert [each.run_id for each in found.entries] == ["run0", "run1"]
    assert found.notes == ()


def test_a_copy_that_says_something_else_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0)])
    with path.open("a") as file:
        file.write(json.dumps(as_line(entry(0, subject="another"))) + "\n")
    found = read_history(tmp_path, "smoke")
    assert [each.subject for each in found.entries] == ["change 0"]
    assert found.notes == (f"{path}:2: another line of run run0; the first one counts",)


def test_a_run_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0), entry(1), entry(0)])
    assert len(path.read_text().splitlines()) == 2


def test_a_line_that_a_crash_cut_short_is_skipped_with_a_note_and_removed_by_the_next_run(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, [entry(0), entry(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    found = read_history(tmp_path, "smoke")
    assert [each.run_id for each in found.entries] == ["run0"]
    assert found.notes == (f"{path}: the last line was cut short by a crash and is left out",)
    write(tmp_path, [entry(1)])
    assert path.read_bytes() == whole


def test_a_last_line_that_only_lacks_its_end_counts_and_stays(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert ids(tmp_path) == ["run0"]
    write(tmp_path, [entry(1)])
    assert ids(tmp_path) == ["run0", "run1"]


def test_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0)])
    path.write_text("\n" + path.read_text() + "  \n\n")
    assert ids(tmp_path) == ["run0"]


def test_processes_that_record_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.bench.history.made_runs import entry, write\n"
        "first = int(sys.argv[2])\n"
        "write(Path(sys.argv[1]), [entry(number) for number in range(first, first + 15)])\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(first)], cwd=Path(__file__).parents[3]
        )
        for first in (0, 15, 30)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    found = read_history(tmp_path, "smoke")
    assert sorted(each.run_id for each in found.entries) == sorted(f"run{number}" for number in range(45))
    assert found.notes == ()


def with_line(results: Path, line: str) -> str:
    path = write(results, [entry(0)])
    with path.open("a") as file:
        file.write(line + "\n")
    return f"{path}:2: "


def changed(*keys: str, value: object) -> str:
    """A line with one field changed, or removed."""
    content = as_line(entry(1))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return json.dumps(content)


METRIC = ("benchmarks", "smoke", "metrics", "step_time_s")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "not a run of a history; Expecting value"),
        ("[1]", "not a run of a history; it has no schema_version"),
        ('{"trial": "seed=0", "schema_version": true}', "not a run of a history; it has no schema_version"),
        ('{"schema_version": 1, "trial": "seed=0"}', "not a run of a history; run_id is missing"),
        (
            changed("schema_version", value=2),
            "schema_version 2 is newer than this program; known: up to 1. Update",
        ),
        (
            changed(*METRIC, "median", value=[float("nan")]),
            "metrics.step_time_s.median.0: Input should be a finite",
        ),
        (
            changed(*METRIC, "median", value=[float("inf")]),
            "metrics.step_time_s.median.0: Input should be a finite",
        ),
        (changed(*METRIC, "median", value=[0.0]), "metrics.step_time_s: a timing of 0 or less"),
        (
            changed(*METRIC, "median", value=[]),
            "metrics.step_time_s.median: List should have at least 1 item",
        ),
        (
            changed(*METRIC, "q1", value=[0.1, 0.2]),
            "metrics.step_time_s: q1 and median have different lengths",
        ),
        (
            changed(*METRIC, "better", value="more"),
            "metrics.step_time_s.better: Input should be 'lower', 'higher'",
        ),
        (changed("recorded", value="yesterday"), "recorded: Invalid isoformat string: 'yesterday'"),
        (changed("commit_time", value="2026-01-01T00:00:00"), "commit_time: has no time zone"),
        (changed("recorded", value="0001-01-01T00:00:00+23:59"), "recorded: is before 1970 or after 9998"),
        (changed("benchmarks", value=None), "benchmarks is missing"),
        ("<<<<<<< HEAD", "git left a conflict here; both sides' runs are wanted. Remove its marks"),
        (">>>>>>> other", "git left a conflict here"),
        ("[" * 100_000, "not a run of a history; "),
    ],
    ids=lambda text: text[:30] if isinstance(text, str) else "",
)
def test_a_foreign_line_is_one_sentence_that_names_it(tmp_path: Path, line: str, said: str) -> None:
    where = with_line(tmp_path, line)
    with pytest.raises(BenchError) as stop:
        read_history(tmp_path, "smoke")
    assert stop.value.exit_code == 2
    assert str(stop.value).startswith(where)
    assert said in str(stop.value)
    assert "\n" not in str(stop.value)


def test_fields_of_a_later_program_of_the_same_version_are_no_fault(tmp_path: Path) -> None:
    with_line(tmp_path, changed("weather", value="rainy"))
    assert ids(tmp_path) == ["run0", "run1"]


def test_a_history_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"history: no run was recorded here. Record one with `.* run SPEC --record`"
    ):
        read_history(tmp_path, "smoke")
    write(tmp_path, [entry(0)])
    with pytest.raises(BenchError, match=r"SPEC: unknown 'smok'; known: smoke. Did you mean 'smoke'\?"):
        read_history(tmp_path, "smok")
    with pytest.raises(BenchError, match=f"--machine: unknown 'other'; known: {MACHINE}"):
        read_history(tmp_path, "smoke", "other")


def test_a_history_without_runs_is_bad_input(tmp_path: Path) -> None:
    write(tmp_path, [entry(0)]).write_text("")
    with pytest.raises(BenchError, match=r"smoke.jsonl: holds no run"):
        read_history(tmp_path, "smoke")


def test_the_kind_of_machine_that_recorded_last_is_shown_and_the_others_are_told(tmp_path: Path) -> None:
    write(tmp_path, [entry(0), entry(9)], "old")
    write(tmp_path, [entry(1, recorded=iso(FIRST + 50 * DAY))], "new")
    found = read_history(tmp_path, "smoke")
    assert found.machine == "new"
    assert found.others == (("old", (FIRST, FIRST + 9 * DAY)),)
    assert read_history(tmp_path, "smoke", "old").others == (("new", (FIRST + DAY,)),)


def test_the_histories_are_listed(tmp_path: Path) -> None:
    assert known_histories(tmp_path) == {}
    paths = {
        (spec, machine): write(tmp_path, [entry(0)], machine, spec)
        for spec, machine in (("smoke", "a"), ("smoke", "b"), ("digits", "a"))
    }
    assert known_histories(tmp_path) == {
        "digits": {"a": paths["digits", "a"]},
        "smoke": {"a": paths["smoke", "a"], "b": paths["smoke", "b"]},
    }


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("a file")
    with pytest.raises(BenchError) as stop:
        append_entry(tmp_path, MACHINE, "smoke", entry(0))
    assert stop.value.exit_code == 2


@pytest.mark.parametrize("title", ["../../etc/passwd", "a b\tc", "python bench.py --n 3", "..", ""])
def test_a_name_is_that_of_a_file_in_its_folder(title: str) -> None:
    name = history_name(title)
    assert Path(f"{name}.jsonl").name == f"{name}.jsonl"
    assert not name.startswith(".")


def test_git_itself_takes_the_attributes_as_they_are_meant(tmp_path: Path) -> None:
    root = make_repository(tmp_path)
    path = write(root / "results", [entry(0)])
    said: Sequence[str] = subprocess.run(
        ["git", "-C", str(root), "check-attr", "merge", str(path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[-1] == "union"
