"""Verdicts on stored runs: each outcome, and what must be said or refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.compare.baselines import save_baseline
from fusetune.bench.compare.comparison import compare_stored
from fusetune.bench.compare.runs import read_run
from fusetune.bench.compare.sources import read_side
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.gate.result import GateResult
from fusetune.bench.gate.rules import Rule, Rules
from fusetune.bench.results.outcomes import FailedMeasurement
from fusetune.bench.results.records import Record
from tests.bench.compare.made_runs import MACHINE, sized, training, write_run

FILES = Path(__file__).parent / "pytest_benchmark"


def outcomes(result: GateResult) -> dict[str, str]:
    return {row.metric: row.outcome for row in result.rows}


def runs(folder: Path, processes: int, slower: float = 1.0, spread: int = 3, **changes: Any) -> str:
    """Several runs with a spread of 1 % between them, as a pattern."""
    for number in range(processes):
        shift = slower * (1 + 0.01 * ((spread * (number + 1)) % 11) / 11)
        write_run(folder, [training(slower=shift)], **changes)
    return str(folder / "digits" / "*")


def compared(tmp_path: Path, base: list[Any], head: list[Any], **changes: Any) -> GateResult:
    """One run a side."""
    return compare_stored(
        str(write_run(tmp_path / "base", base)), str(write_run(tmp_path / "head", head, **changes))
    )


def test_a_run_against_itself_passes_where_it_can_be_told(tmp_path: Path) -> None:
    path = str(write_run(tmp_path, [training(0), training(1)]))
    result = compare_stored(path, path)
    assert outcomes(result) == {
        "time_to_target_s": "can't tell",
        "steps_to_target": "pass",
        "step_time_s": "can't tell",
        "final_val_accuracy": "pass",
        "peak_bytes": "pass",
    }
    assert result.kind == "compare"
    assert result.title == "digits"
    assert dict(result.pairs) == {"digits": 1}
    assert {row.metric: row.n for row in result.rows}["steps_to_target"] == 2


@pytest.mark.parametrize(
    ("processes", "slower", "outcome"),
    [
        (10, 1.0, "pass"),
        (10, 1.2, "regressed"),
        (10, 1 / 1.2, "improved"),
        (5, 1.2, "regressed"),
        (4, 3.0, "can't tell"),
        (4, 1.0, "can't tell"),
        (1, 3.0, "can't tell"),
        (1, 1 / 3.0, "can't tell"),
    ],
)
def test_timings_are_judged_from_five_processes_on(
    processes: int, slower: float, outcome: str, tmp_path: Path
) -> None:
    result = compare_stored(
        runs(tmp_path / "base", processes), runs(tmp_path / "head", processes, slower, spread=4)
    )
    found = outcomes(result)
    assert (found["step_time_s"], found["time_to_target_s"]) == (outcome, outcome)
    assert found["steps_to_target"] == "pass"


def test_many_seeds_of_one_process_are_no_evidence_of_its_speed(tmp_path: Path) -> None:
    result = compared(
        tmp_path, [training(s) for s in range(12)], [training(s, slower=2.0) for s in range(12)]
    )
    found = {row.metric: row for row in result.rows}
    assert (found["step_time_s"].outcome, found["step_time_s"].n) == ("can't tell", 1)
    assert (found["time_to_target_s"].outcome, found["time_to_target_s"].n) == ("can't tell", 1)
    assert found["step_time_s"].effect == pytest.approx(1.0)
    assert "1 process a side is no evidence" in found["step_time_s"].sentence
    assert "Give 5 processes or more a side" in found["step_time_s"].advice


def test_many_processes_with_one_seed_are_no_evidence_of_learning(tmp_path: Path) -> None:
    for _ in range(8):
        write_run(tmp_path / "base", [training(accuracy=0.95)])
        write_run(tmp_path / "head", [training(accuracy=0.90)])
    result = compare_stored(str(tmp_path / "base/digits/*"), str(tmp_path / "head/digits/*"))
    (row,) = [row for row in result.rows if row.metric == "final_val_accuracy"]
    assert (row.outcome, row.n) == ("can't tell", 1)


def test_seeds_of_one_run_are_paired(tmp_path: Path) -> None:
    base = [training(s, steps=100 + 3 * s) for s in range(10)]
    result = compared(tmp_path, base, [training(s, steps=140 + 2 * s) for s in reversed(range(10))])
    (row,) = [row for row in result.rows if row.metric == "steps_to_target"]
    assert (row.outcome, row.n) == ("regressed", 10)
    # All ten differences have one sign: one of 2^10 ways.
    assert row.p == pytest.approx(1 / 2**10)
    result = compared(tmp_path, base, [training(s, steps=70 + 2 * s) for s in range(10)])
    assert outcomes(result)["steps_to_target"] == "improved"


def test_a_target_that_head_misses_is_worse_than_any_number(tmp_path: Path) -> None:
    result = compared(
        tmp_path, [training(s, steps=10**6) for s in range(8)], [training(s, steps=None) for s in range(8)]
    )
    found = {row.metric: row for row in result.rows}
    assert found["steps_to_target"].outcome == "regressed"
    assert found["steps_to_target"].head == math.inf
    assert found["time_to_target_s"].outcome == "can't tell"


@pytest.mark.parametrize(
    ("head", "outcome"), [(8192, "regressed"), (2048, "improved"), (4096, "pass"), (4097, "regressed")]
)
def test_memory_of_tensors_is_exact(head: int, outcome: str, tmp_path: Path) -> None:
    result = compared(tmp_path, [training(0), training(1)], [training(s, peak_bytes=head) for s in (0, 1)])
    assert outcomes(result)["peak_bytes"] == outcome


def test_memory_of_a_process_varies_and_is_not_exact(tmp_path: Path) -> None:
    provenance = {"peak_bytes_of": "the process"}
    result = compared(
        tmp_path, [training(provenance=provenance)], [training(provenance=provenance, peak_bytes=4100)]
    )
    assert outcomes(result)["peak_bytes"] == "can't tell"


@pytest.mark.parametrize("status", ["diverged", "failed", "out_of_memory"])
def test_what_fails_in_head_alone_is_a_regression_whatever_the_speed(status: str, tmp_path: Path) -> None:
    head = [training(0, slower=0.1), training(1, slower=0.1, status=status, reason="at once")]
    result = compared(tmp_path, [training(0), training(1)], head)
    assert result.outcome == "regressed"
    (row,) = [row for row in result.rows if row.metric == "failure"]
    assert row.outcome == "regressed"
    assert "at once" in row.sentence
    assert "in 1 of 2 pairs" in row.sentence
    result = compared(tmp_path, head, [training(0), training(1)])
    assert outcomes(result)["failure"] == "improved"


def test_what_vanished_is_missing_and_what_is_new_is_said(tmp_path: Path) -> None:
    both = [training(0, {"optimizer": name}) for name in ("adam", "sgd")]
    result = compared(tmp_path, both, both[:1])
    assert result.outcome == "missing"
    missing = {row.benchmark for row in result.rows if row.outcome == "missing"}
    assert missing == {"digits: optimizer=sgd"}
    result = compared(tmp_path, both[:1], both)
    assert result.outcome == "can't tell"
    assert "Head alone has the benchmark digits: optimizer=sgd." in result.notes
    without = training(0, {"optimizer": "adam"})
    assert isinstance(without.values, dict)
    del without.values["peak_bytes"]
    result = compared(tmp_path, both[:1], [without])
    assert outcomes(result)["peak_bytes"] == "missing"


def test_seeds_without_a_partner(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no seed in common; digits has seeds 0, 1 in base and 7 in head"):
        compared(tmp_path, [training(0), training(1)], [training(7)])
    result = compared(tmp_path, [training(0, steps=10), training(1)], [training(1), training(2, steps=9)])
    rows = {row.metric: row for row in result.rows}
    assert (rows["steps_to_target"].outcome, rows["steps_to_target"].n) == ("pass", 1)


def test_sizes_of_one_side_alone_are_said_and_not_missing(tmp_path: Path) -> None:
    def sizes(*given: int) -> list[Any]:
        probes = [sized(size, probe=True, needed_bytes=1e6) for size in given]
        return [*probes, *(sized(size, probe=False, step_time_s=0.5) for size in given)]

    options = {"device": "cpu", "train_batch_size": 32}
    paths = [
        str(write_run(tmp_path, sizes(*given), kind="batch-size", options=options))
        for given in ((32, 64), (32, 128))
    ]
    result = compare_stored(*paths)
    assert {row.benchmark for row in result.rows} == {"digits: batch_size=32", "digits"}
    assert result.outcome == "can't tell"
    assert any(note.startswith("digits: batch_size=64 was measured in base alone") for note in result.notes)
    assert any(note.startswith("digits: batch_size=128 was measured in head alone") for note in result.notes)


def test_a_search_of_batch_sizes_that_fails_or_finds_none_is_red(tmp_path: Path) -> None:
    def searched(*records: Any) -> str:
        options = {"device": "cpu", "train_batch_size": 32}
        return str(write_run(tmp_path, records, kind="batch-size", options=options))

    probe, timed = sized(32, probe=True, needed_bytes=1e6), sized(32, probe=False, step_time_s=0.5)
    whole = searched(probe, timed)
    broken = Record("t", {}, 0, "failed", reason="no steps", outcome=FailedMeasurement("throughput"))
    result = compare_stored(whole, searched(probe, broken))
    assert [(row.benchmark, row.metric) for row in result.rows if row.outcome == "regressed"] == [
        ("digits", "failure")
    ]
    result = compare_stored(whole, searched(timed))
    assert [(row.benchmark, row.metric) for row in result.rows if row.outcome == "missing"] == [
        ("digits: batch_size=32", "needed_bytes"),
        ("digits", "largest_batch_size"),
    ]
    noisy = Record("t", {}, 0, "failed", reason="no norms", outcome=FailedMeasurement("noise"))
    assert compare_stored(whole, searched(probe, timed, noisy)).outcome == "can't tell"


def test_range_tests_are_shown_and_their_intervals_told(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "old_runs" / "sizes" / "20261129-113216-3189"
    new = tmp_path / old.name
    shutil.copytree(old, new)
    text = (new / "records.jsonl").read_text()
    text = text.replace('"lr_interval_low":0.007664972012032465', '"lr_interval_low":0.2')
    text = text.replace('"lr_interval_high":0.1045471282644194', '"lr_interval_high":0.4')
    (new / "records.jsonl").write_text(
        text.replace('"suggested_lr":0.014154070192749708', '"suggested_lr":0.3')
    )
    result = compare_stored(str(old), str(new))
    assert {row.outcome for row in result.rows} == {"pass"}
    (changed,) = [row for row in result.rows if row.effect]
    assert (changed.benchmark, changed.metric, changed.head) == ("sizes: batch_size=64", "suggested_lr", 0.3)
    notes = "\n".join(result.notes)
    assert (
        "sizes: batch_size=64: the 95 % intervals of the suggested lr do not overlap, 0.00766 to 0.105"
        in notes
    )
    assert "sizes: batch_size=128: the 95 % intervals of the suggested lr overlap" in notes


def test_a_suggestion_that_is_gone_is_missing(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "old_runs" / "sizes" / "20261129-113216-3189"
    new = tmp_path / old.name
    shutil.copytree(old, new)
    lines = [json.loads(line) for line in (new / "records.jsonl").read_text().splitlines()]
    for line in lines:
        line["values"].pop("suggested_lr", None)
    (new / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = compare_stored(str(old), str(new))
    assert [row.metric for row in result.rows if row.outcome == "missing"] == ["suggested_lr"] * 2
    # Nothing of it is a timing, so nothing is said of timings.
    assert not any("processes a side" in note or "more false alarms" in note for note in result.notes)


def test_rules_of_a_spec_are_kept(tmp_path: Path) -> None:
    base, head = [str(write_run(tmp_path, [training(peak_bytes=size)])) for size in (4096, 4200)]
    assert outcomes(compare_stored(base, head))["peak_bytes"] == "regressed"
    rules = Rules({"peak_bytes": Rule(threshold=0.05)})
    assert outcomes(compare_stored(base, head, rules=rules))["peak_bytes"] == "pass"


def test_other_devices_are_refused_in_one_sentence_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"two devices, 'Example CPU' and 'Other CPU'; ") as error:
        compared(tmp_path, [training()], [training()], machine={**MACHINE, "device_name": "Other CPU"})
    assert error.value.exit_code == 2
    write_run(tmp_path / "mixed", [training()])
    other = write_run(tmp_path / "mixed", [training()], machine={**MACHINE, "device_name": "Other CPU"})
    with pytest.raises(InputError, match=r"two devices, '(Example|Other) CPU' and '(Example|Other) CPU'"):
        compare_stored(str(tmp_path / "mixed/digits/*"), str(other))


def test_other_devices_of_pytest_benchmark_are_refused(tmp_path: Path) -> None:
    content = json.loads((FILES / "5.3.1.json").read_text())
    content["machine_info"]["cpu"]["brand_raw"] = "Other CPU"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="two devices, 'Example CPU' and 'Other CPU'"):
        compare_stored(str(FILES / "3.1.1.json"), str(tmp_path / "other.json"))
    content = json.loads((FILES / "3.0.0.json").read_text())
    content["machine_info"]["machine"] = "aarch64"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="two devices, 'x86_64' and 'aarch64'"):
        compare_stored(str(FILES / "3.0.0.json"), str(tmp_path / "other.json"))
    notes = compare_stored(str(FILES / "3.0.0.json"), str(FILES / "5.3.1.json")).notes
    assert any(note.startswith("The name of the device is not known on both sides") for note in notes)


def test_what_a_reader_must_know_first_is_said(tmp_path: Path) -> None:
    base = write_run(tmp_path, [training(values={"processor_missing": 0.5})], fingerprint=fingerprint("0"))
    head = write_run(
        tmp_path,
        [training(provenance={"threads": 1, "jobs": 2})],
        machine={**MACHINE, "cores": 4, "os": "Linux 6.2 x86_64"},
        versions={"python": "3.11.7", "torch": "2.10.0"},
        commit=None,
        dirty=True,
        stand_in="spirals stand in for digits",
        fingerprint=fingerprint("1"),
        spec={"train": {"optimizer": "adam", "batch_size": 64, "epochs": 2}},
    )
    notes = compare_stored(str(base), str(head)).notes
    for said in (
        "STAND-IN DATA in head: spirals stand in for digits",
        "Timings take 5 processes a side before they can be judged, and base is 1 process and head is 1 process.",
        "Uncommitted changes in head: the commit does not name what ran.",
        "The commit of head is not known.",
        "Other versions of torch: 2.9.0 in base, 2.10.0 in head.",
        "Other numbers of cores: 2 in base, 4 in head.",
        "Other systems: Linux 6.1 x86_64 in base, Linux 6.2 x86_64 in head.",
        "The settings differ: train.batch_size: 32 -> 64.",
        "The data differ: their fingerprints are not the same.",
        "Timings of head were taken with 2 trials at once.",
        "1 of 1 pair ran while others had more than 10 % of the processor.",
    ):
        assert said in notes
    assert sum("give more false alarms" in note for note in notes) == 1
    assert not any("python" in note for note in notes)


def fingerprint(digest: str) -> dict[str, Any]:
    return {"digits": {"digits.npz": {"bytes": 9, "sha256": digest * 64}}}


def test_the_same_commit_and_several_ones_are_said(tmp_path: Path) -> None:
    path = str(write_run(tmp_path, [training()]))
    assert f"Both sides are of commit {'a' * 12}." in compare_stored(path, path).notes
    write_run(tmp_path / "mixed", [training()])
    write_run(tmp_path / "mixed", [training()], commit="b" * 40)
    notes = compare_stored(path, str(tmp_path / "mixed/digits/*")).notes
    assert any(re.fullmatch(r"Several commits in head: [ab]{12}, [ab]{12}\.", note) for note in notes)


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    path = str(write_run(tmp_path, [training()]))
    with pytest.raises(
        InputError, match=r"hold different kinds of results; .* is of run and .* of pytest-benchmark"
    ):
        compare_stored(path, str(FILES / "5.3.1.json"))
    with pytest.raises(InputError, match="mixes results of run with those of pytest-benchmark"):
        read_side(f"{path},{FILES / '5.3.1.json'}")


def test_a_folder_of_runs_is_its_newest_and_a_list_is_all_of_them(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, [training()]) for _ in range(3)]
    newest = max(paths, key=lambda path: path.name)
    stored, notes = read_side(str(tmp_path / "digits"))
    assert [each.path for each in stored] == [newest]
    assert notes == (f"Of the 3 runs in {tmp_path / 'digits'}, the newest is compared: {newest.name}.",)
    listed, _ = read_side(f"{paths[0]},{paths[1]}, {paths[1]},{paths[2]}/run.json")
    assert [each.path for each in listed] == paths  # the one that was named twice is one process
    found, _ = read_side(str(tmp_path / "digits" / "*"))
    assert {each.path for each in found} == set(paths)
    with_comma = tmp_path / "a,b"
    shutil.copytree(paths[0], with_comma)
    assert read_side(str(with_comma))[0][0].path == with_comma


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "[" * 100_000, "is no JSON"),
        ("a.json", b"\xff\xfe", "is no JSON"),
        ("a.json", '{"benchmarks": [NaN]}', "holds NaN, which is no finite number"),
        ("a.json", '{"a": -Infinity}', "holds -Infinity, which is no finite number"),
        ("a.json", '{"benchmarks": [], "context": {}}', "is no stored result; known: a run's directory"),
        ("a.json", "7", "is no stored result"),
        ("a.txt", "hello", "is no JSON"),
        (None, None, "is not there"),
    ],
)
def test_bad_input_is_one_sentence(
    name: str | None, content: str | bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / (name or "nowhere")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        read_side(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_directory_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="no run is there"):
        read_side(str(tmp_path / "empty"))
    for text in ("", ",", str(tmp_path / "*.json")):
        with pytest.raises(InputError, match="stored result"):
            read_side(text)
    huge = json.loads((FILES / "5.3.1.json").read_text())
    text = json.dumps(huge).replace(str(huge["benchmarks"][0]["stats"]["median"]), "1e999")
    (tmp_path / "huge.json").write_text(text)
    with pytest.raises(InputError, match="should be a finite number"):
        read_side(str(tmp_path / "huge.json"))


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value, of the first two items of a list."""
    yield path
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content[:2] if isinstance(content, list) else ())
    )
    for key, value in inner:
        yield from places(value, (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("name", ["3.0.0.json", "5.3.1-without-data.json", "baseline"])
def test_whatever_stands_in_a_file_is_compared_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    if name == "baseline":
        whole, _ = save_baseline(tmp_path / "kept", read_run(write_run(tmp_path, [training(0), training(1)])))
    else:
        whole = FILES / name
    content, file, refused = json.loads(whole.read_text()), tmp_path / "changed.json", []
    junk: tuple[Any, ...] = (None, True, -1, 0, 1e300, 10**400, "", "x", [], [None], {}, {"x": {}})
    for index, path in enumerate(places(content)):
        for value in junk[index % 2 :: 2]:
            file.write_text(json.dumps(replaced(content, path, value)))
            try:
                compare_stored(str(whole), str(file))
            except (InputError, RunDirectoryError) as error:
                refused.append(str(error))
    assert len(refused) > 50
    assert all(len(text.splitlines()) == 1 for text in refused)


def test_the_settings_of_every_process_are_compared(tmp_path: Path) -> None:
    """A process other than a side's first one has other settings, and other data."""
    spec = {"train": {"optimizer": "adam", "batch_size": 64, "epochs": 2}}
    for side in ("base", "head"):
        write_run(tmp_path / side, [training()], fingerprint=fingerprint("0"))
    base, head = (str(tmp_path / side / "digits" / "*") for side in ("base", "head"))
    assert not any("differ" in note for note in compare_stored(base, head).notes)
    # The first process of a side is that of the first path, whose name chance makes.
    first = sorted((tmp_path / "head" / "digits").iterdir())[0]
    added = write_run(tmp_path / "head", [training()], spec=spec, fingerprint=fingerprint("1"))
    added.rename(first.with_name(first.name + "-later"))
    notes = compare_stored(base, head).notes
    assert "The settings differ within head: train.batch_size: 32 -> 64." in notes
    assert "The data differ within head: their fingerprints are not the same." in notes
    notes = compare_stored(head, base).notes
    assert "The settings differ within base: train.batch_size: 32 -> 64." in notes


def test_a_file_without_a_benchmark_says_nothing_of_its_settings(tmp_path: Path) -> None:
    content = json.loads((FILES / "5.3.1.json").read_text())
    for side in ("base", "head"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "1.json").write_text(json.dumps(content))
    kept = {**content, "benchmarks": content["benchmarks"][:1]}
    (tmp_path / "head" / "2.json").write_text(json.dumps(kept))
    base, head = str(tmp_path / "base"), str(tmp_path / "head")
    assert not any("settings differ" in note for note in compare_stored(base, head).notes)
    options = {**kept["benchmarks"][0]["options"], "warmup": "77"}
    kept = {**content, "benchmarks": [{**kept["benchmarks"][0], "options": options}]}
    (tmp_path / "head" / "2.json").write_text(json.dumps(kept))
    notes = compare_stored(base, head).notes
    assert any(note.startswith("The settings differ within head: ") and "-> 77" in note for note in notes)
