"""Files of pytest-benchmark, as real releases wrote them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fusetune.bench.compare.comparison import compare_stored
from fusetune.bench.compare.pytest_json import stored_pytest
from fusetune.bench.compare.sources import read_side
from fusetune.bench.errors import InputError

FILES = Path(__file__).parent / "pytest_benchmark"
WITH_DATA = sorted(path for path in FILES.glob("*.json") if "without" not in path.name)
WITHOUT_DATA = sorted(FILES.glob("*-without-data.json"))


def content_of(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_there_is_a_file_of_each_form() -> None:
    assert {path.stem for path in WITH_DATA} >= {
        "3.0.0",
        "3.1.1",
        "3.2.3",
        "3.4.1",
        "4.0.0",
        "5.0.0",
        "5.3.1",
    }
    assert {content_of(path)["version"] for path in WITH_DATA} >= {"3.0.0", "__version__ = '3.2.0'", "5.3.1"}
    assert all("data" in each["stats"] for path in WITH_DATA for each in content_of(path)["benchmarks"])
    assert all(
        "data" not in each["stats"] for path in WITHOUT_DATA for each in content_of(path)["benchmarks"]
    )


@pytest.mark.parametrize("path", WITH_DATA, ids=lambda path: path.stem)
def test_each_release_is_read_whole(path: Path) -> None:
    content = content_of(path)
    (stored,), notes = read_side(str(path))
    assert not notes
    assert list(stored.benchmarks) == [
        "test_small.py::test_sum",
        "test_small.py::test_sort[200]",
        "test_small.py::test_sort[400]",
    ]
    for benchmark in content["benchmarks"]:
        found = stored.benchmarks[benchmark["fullname"]][0].metrics["time_s"]
        assert list(found.values) == benchmark["stats"]["data"]
        assert median(found.values) == pytest.approx(benchmark["stats"]["median"], rel=1e-12)
        assert (found.unit, found.better, found.comparison) == ("s", "lower", "timing")
    assert stored.versions == {"CPython": "3.11.7", "pytest-benchmark": path.stem}
    # 3.0 does not write the processor's name, and on Linux nobody knows it as `processor`.
    assert stored.device == (None if path.stem == "3.0.0" else "Example CPU")
    assert stored.machine["os"] == "Linux 6.1.0 x86_64"
    assert stored.commit is None
    assert stored.dirty is None  # not in a repository: nobody knows
    assert stored.clock == ("perf_counter",)
    assert stored.started == content["datetime"]


@pytest.mark.parametrize("path", WITHOUT_DATA, ids=lambda path: path.stem)
def test_without_samples_the_medians_are_shown_and_nothing_is_told(path: Path) -> None:
    with_data = FILES / path.name.replace("-without-data", "")
    result = compare_stored(str(with_data), str(path))
    medians = [
        [each["stats"]["median"] for each in content_of(each)["benchmarks"]] for each in (with_data, path)
    ]
    assert [row.base for row in result.rows] == pytest.approx(medians[0], rel=1e-12)
    assert [row.head for row in result.rows] == medians[1]
    for row, base, head in zip(result.rows, *medians, strict=True):
        assert row.outcome == "can't tell"
        assert row.effect == pytest.approx(head / base - 1)
        assert row.sentence == (
            "Only a summary without raw samples is stored in head, so no difference can be tested."
        )
        assert "--benchmark-save-data" in row.advice
    both = compare_stored(str(path), str(path))
    assert "is stored in base and head" in both.rows[0].sentence
    assert both.outcome == "can't tell"


def test_any_two_releases_compare_and_the_other_version_is_said() -> None:
    for base, head in pairwise(WITH_DATA):
        result = compare_stored(str(base), str(head))
        assert [row.outcome for row in result.rows] == ["can't tell"] * 3
        assert any(
            f"versions of pytest-benchmark: {base.stem} in base, {head.stem} in head" in n
            for n in result.notes
        )


def test_a_benchmark_that_is_gone_is_missing_even_without_samples(tmp_path: Path) -> None:
    for path in (FILES / "4.0.0.json", FILES / "5.3.1-without-data.json"):
        content = content_of(path)
        content["benchmarks"] = content["benchmarks"][1:]
        result = compare_stored(str(path), str(write(tmp_path / path.name, content)))
        assert result.outcome == "missing"
        (gone,) = [row for row in result.rows if row.outcome == "missing"]
        assert gone.benchmark == "test_small.py::test_sum"


def many(folder: Path, processes: int, factor: float, seed: int) -> str:
    """Files of several processes, whose times are a real release's with a spread of 1 % between processes."""
    content = content_of(FILES / "5.3.1.json")
    for number in range(processes):
        shift = factor * (1 + 0.01 * ((seed * (number + 1)) % 11) / 11)
        changed = json.loads(json.dumps(content))
        for benchmark in changed["benchmarks"]:
            data = [1e-5 * shift * (1 + 0.001 * (i % 5)) for i in range(30)]
            benchmark["stats"] |= {"data": data, "median": median(data)}
        write(folder / f"run{number}.json", changed)
    return str(folder)


@pytest.mark.parametrize(
    ("processes", "factor", "outcome"),
    [
        (10, 1.0, "pass"),
        (10, 1.2, "regressed"),
        (10, 0.8, "improved"),
        (5, 1.2, "regressed"),
        (4, 1.2, "can't tell"),
        (4, 1.0, "can't tell"),
        (4, 0.8, "can't tell"),
        (1, 2.0, "can't tell"),
    ],
)
def test_a_folder_of_files_is_judged_from_five_processes_on(
    processes: int, factor: float, outcome: str, tmp_path: Path
) -> None:
    result = compare_stored(
        many(tmp_path / "base", processes, 1.0, 3), many(tmp_path / "head", processes, factor, 4)
    )
    assert [row.outcome for row in result.rows] == [outcome] * 3
    assert all(row.n == processes for row in result.rows)
    assert dict(result.pairs) == {row.benchmark: processes for row in result.rows}
    few = any("Timings take 5 processes a side" in note for note in result.notes)
    assert few == (processes < 5)
    if processes < 5:
        assert all("Give 5 processes or more a side" in row.advice and row.p is None for row in result.rows)


def test_the_newest_saved_file_is_taken_by_the_time_that_it_holds(tmp_path: Path) -> None:
    content = content_of(FILES / "5.3.1.json")
    machines = tmp_path / ".benchmarks"
    for folder, number, when in (
        ("Linux-CPython-3.10-64bit", "0007", "2026-01-01T10:00:00"),
        ("Linux-CPython-3.11-64bit", "0001", "2026-03-01T10:00:00.5+00:00"),
        ("Linux-CPython-3.11-64bit", "0002", "2026-02-01T10:00:00+00:00"),
    ):
        write(machines / folder / f"{number}_a.json", {**content, "datetime": when})
    (stored,), notes = read_side(str(machines))
    assert stored.path == machines / "Linux-CPython-3.11-64bit" / "0001_a.json"
    assert notes == (f"Of the 3 files saved in {machines}, the newest is compared: 0001_a.json.",)
    (stored,), _ = read_side(str(machines / "Linux-CPython-3.10-64bit"))
    assert stored.path.name == "0007_a.json"


def test_benchmarks_of_one_name_are_numbered(tmp_path: Path) -> None:
    content = content_of(FILES / "5.3.1.json")
    content["benchmarks"] = content["benchmarks"][:1] * 3
    (stored,), _ = read_side(str(write(tmp_path / "a.json", content)))
    name = "test_small.py::test_sum"
    assert list(stored.benchmarks) == [name, f"{name} (2)", f"{name} (3)"]


def changed(path: list[Any], value: Any) -> Any:
    content = content_of(FILES / "5.3.1.json")
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(["version"], "2.5.0"), "was written by pytest-benchmark 2.5.0; known: since 3.0.0"),
        (changed(["version"], "newest"), "was written by pytest-benchmark newest"),
        (changed(["version"], 5), "is broken; version: input should be a valid string"),
        (changed(["benchmarks"], []), "holds no benchmark"),
        (changed(["benchmarks"], {}), "is broken; benchmarks: input should be a valid list"),
        (changed(["benchmarks", 0, "stats"], {}), "benchmarks[0].stats.median is missing"),
        (changed(["benchmarks", 0, "stats", "data"], ["1"]), "benchmarks[0].stats.data[0]: input should be"),
        (
            changed(["benchmarks", 0, "stats", "data"], [-1.0]),
            "a time of test_small.py::test_sum is not above 0",
        ),
        (
            changed(["benchmarks", 0, "stats", "data"], [0.0]),
            "a time of test_small.py::test_sum is not above 0",
        ),
        (changed(["machine_info"], None), "machine_info: input should be a valid dictionary"),
    ],
)
def test_a_broken_file_is_one_sentence(content: Any, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        read_side(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_other_timers_and_clocks_are_said(tmp_path: Path) -> None:
    content = content_of(FILES / "5.3.1.json")
    for benchmark in content["benchmarks"]:
        benchmark["options"] |= {"timer": "process_time", "disable_gc": True}
    content["machine_info"]["cpu"]["hz_actual"] = [1_300_000_000, 0]
    content["commit_info"] |= {"id": "b" * 40, "dirty": True}
    result = compare_stored(str(FILES / "5.3.1.json"), str(write(tmp_path / "a.json", content)))
    notes = "\n".join(result.notes)
    assert "Other clocks: perf_counter in base, process_time in head." in notes
    assert "The processor's clock differs: from 1.30 to 2.60 GHz." in notes
    assert "disable_gc: False -> True" in notes
    assert "Uncommitted changes in head" in notes
    assert "The commit of base is not known." in notes


@pytest.mark.parametrize("info", [{}, {"cpu": []}, {"cpu": {"hz_actual": "fast", "count": "2"}, "system": 3}])
def test_a_machine_of_which_little_is_known_is_read(info: dict[str, Any]) -> None:
    stored = stored_pytest(changed(["machine_info"], info), Path("a.json"))
    assert stored.device is None
    assert stored.clock_hz is None
    assert "cores" not in stored.machine
