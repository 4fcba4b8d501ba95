"""Programs under the gate: what their last line may say."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.commands import Command, read_metrics
from fusetune.bench.gate.measured import Measured, Metric
from fusetune.bench.gate.processes import Place
from fusetune.bench.gate.rules import Rule, Rules
from fusetune.tuner.measure.reference_loop import ROUNDS


def read(line: str, rules: Rules | None = None) -> dict[str, dict[str, Metric]]:
    return read_metrics(f"some log\n{line}\n\n", "cmd", rules or Rules(), "head main")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("decode_s", 0.5, Metric((0.5,), "s", "lower", "timing")),
        ("decode_s", [0.5, 0.25], Metric((0.5, 0.25), "s", "lower", "timing")),
        ("tokens_per_s", 100, Metric((100.0,), "none", "higher", "timing")),
        ("samples_per_s", 100, Metric((100.0,), "samples/s", "higher", "timing")),
        ("peak_bytes", 1024, Metric((1024.0,), "bytes", "lower", "exact")),
        ("test_accuracy", 0.5, Metric((0.5,), "fraction", "higher", "learning")),
        ("final_loss", 0.5, Metric((0.5,), "nats", "lower", "learning")),
        ("steps_to_target", 7, Metric((7.0,), "count", "lower", "learning")),
        ("time_to_target_s", 7.5, Metric((7.5,), "s", "lower", "learning")),
    ],
)
def test_a_name_tells_unit_direction_and_comparison(name: str, value: object, expected: Metric) -> None:
    assert read(f'{{"{name}": {value}}}') == {"cmd": {name: expected}}


def test_a_rule_gives_the_direction_that_a_name_does_not() -> None:
    rules = Rules({"registers": Rule(better="lower"), "score": Rule(better="higher")})
    found = read('{"registers": 64, "score": 0.5}', rules)["cmd"]
    assert found["registers"] == Metric((64.0,), "count", "lower", "exact")
    assert found["score"] == Metric((0.5,), "none", "higher", "learning")


def test_benchmarks_of_one_program_keep_their_names() -> None:
    found = read('{"small": {"decode_s": 1}, "large": {"decode_s": [2, 3]}}')
    assert {name: metrics["decode_s"].values for name, metrics in found.items()} == {
        "small": (1.0,),
        "large": (2.0, 3.0),
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("done", "its last line is no JSON object: 'done'"),
        ("[1, 2]", "its last line is no JSON object"),
        ("{}", "its JSON object has no metrics"),
        ('{"a_s": NaN}', "'a_s' is nan, which is not finite"),
        ('{"a_s": [1, Infinity]}', "'a_s' is inf, which is not finite"),
        ('{"a_s": 1e999}', "'a_s' is inf, which is not finite"),
        ('{"a_s": %s}' % ("9" * 400), "which is not finite"),
        ('{"a_s": "1"}', "'a_s' is '\"1\"', which is no number"),
        ('{"a_s": true}', "'a_s' is 'true', which is no number"),
        ('{"a_s": null}', "'a_s' is 'null', which is no number"),
        ('{"a_s": []}', "'a_s' has no values"),
        ('{"a_s": 0}', "no timing is 0 or less"),
        ('{"a_s": 1, "b": {"c_s": 1}}', "mixes metrics and benchmarks"),
        ('{"score": 1}', "which direction of 'score' is better is not known"),
        ("[" * 100_000, "its last line is no JSON object"),
    ],
)
def test_what_is_no_object_of_finite_numbers_is_bad_input(line: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(line)
    assert said in str(caught.value)
    assert str(caught.value).startswith("head main: ")


def test_a_program_that_prints_nothing_is_bad_input() -> None:
    with pytest.raises(InputError, match="head main: printed nothing"):
        read_metrics("\n", "cmd", Rules(), "head main")


@pytest.mark.parametrize("text", ["", "   ", "python 'bench.py"])
def test_a_command_line_without_words_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match="--command: "):
        Command(text, Rules())


def measure(folder: Path, code: str, **settings: object) -> tuple[dict[str, Measured], list[str]]:
    (folder / "bench.py").write_text(code)
    told: list[str] = []
    command = Command(f"{shlex.quote(sys.executable)} bench.py", Rules(), told.append)
    return command.measure("cmd", 3, Place("head", "head main", folder, sys.executable), None), told


def test_a_process_has_its_seed_and_the_reference_loop_around_it(tmp_path: Path) -> None:
    found, told = measure(tmp_path, 'import os; print(\'{"loss": %s}\' % os.environ["BENCH_GATE_SEED"])')
    assert found["cmd"].metrics["loss"].values == (3.0,)
    assert len(found["cmd"].ref) == 2 * ROUNDS
    assert min(found["cmd"].ref) > 0
    assert found["cmd"].seconds > 0
    assert told == []


def test_a_program_that_fails_has_a_failure_and_no_metrics(tmp_path: Path) -> None:
    found, told = measure(tmp_path, "print('{\"a_s\": 1}'); raise AssertionError('3 != 4')")
    assert found["cmd"].metrics == {}
    assert found["cmd"].failure == "it ended with exit code 1, and said: AssertionError: 3 != 4"
    assert told[0] == f"head main: {found['cmd'].failure}"
    assert told[-1] == "    AssertionError: 3 != 4"


def test_a_program_that_cannot_be_imported_is_no_regression(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="head main: cannot be imported; it says ModuleNotFoundError"):
        measure(tmp_path, "import no_such_module_anywhere")


def test_a_script_that_a_side_lacks_is_bad_input(tmp_path: Path) -> None:
    command = Command(f"{shlex.quote(sys.executable)} missing.py --fast", Rules())
    with pytest.raises(InputError, match=r"head main: has no file 'missing\.py'"):
        command.measure("cmd", 0, Place("head", "head main", tmp_path, sys.executable), None)


@pytest.mark.parametrize(
    ("word", "value"), [("python", 1.0), ("python3", 1.0), (shlex.quote(sys.executable), 2.0)]
)
def test_python_is_that_of_the_side(tmp_path: Path, word: str, value: float) -> None:
    own = tmp_path / "own-python"
    own.write_text("#!/bin/sh\necho '{\"loss\": 1}'\n")
    own.chmod(0o755)
    (tmp_path / "bench.py").write_text("print('{\"loss\": 2}')")
    command = Command(f"{word} bench.py", Rules())
    found = command.measure("cmd", 0, Place("head", "head main", tmp_path, str(own)), None)
    assert found["cmd"].metrics["loss"].values == (value,)
