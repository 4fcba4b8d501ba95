"""`bench autotune` as a command: bad input, listing, and files of entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusetune.bench.autotune import Tuning, as_json, show_tuning
from fusetune.bench.cli import autotune as command
from fusetune.bench.cli import program as cli
from fusetune.bench.cli.console import make_console
from tests.bench.autotune.test_run import Scripted, by_block, tuned


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["autotune", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gelo"], "unknown 'gelo'"),
        (["gelu", "--budget", "soon"], "--budget: 'soon' is not a quantity"),
        (["gelu", "--dtype", "float31"], "--dtype: unknown 'float31'"),
        (["nowhere.py"], "no such file"),
        (["--import", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert said in err
    assert out == ""
    assert "Traceback" not in err


def test_the_space_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--list", "gelu", "--shape", "1000")
    assert code == 0
    assert "gelu/1000/float32" in out
    assert "BLOCK_SIZE=1024 num_warps=4 num_stages=1" in out


def test_entries_are_exported_and_taken_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "entries.json"
    code, _, err = run(capsys, "--export", str(file))
    assert (code, err) == (0, f"0 entries are in {file}\n")
    code, _, err = run(capsys, "--import", str(file))
    assert code == 0
    assert "0 added" in err


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("wrong", 1)])
def test_a_kernel_that_is_wrong_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    def tune_all(cases: object, *rest: object) -> tuple[list[Tuning], bool]:
        return [Tuning(cases[0], status)], False  # type: ignore[index]

    monkeypatch.setattr(command, "_tune_all", tune_all)
    found, out, _ = run(capsys, "gelu", "--json")
    assert found == code
    assert json.loads(out)[0]["status"] == status


def test_the_report_says_what_became_of_each_config_in_100_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = tuned(Scripted(by_block, {("verify", 2): "wrong"}, code=lambda c: str(c["BLOCK"]), default=1))
    show_tuning(found, make_console())
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "(default)" in out
    assert "fastest" in out
    assert "same code, as BLOCK=64 num_warps=8" in out
    assert "failed: wrong, as scripted" in out
    assert "times as fast as the default [" in out
    assert "entry: /entries/key.json" in out
    plain = json.loads(as_json([found]))[0]
    assert plain["replaced"] is True
    assert plain["gain_low"] > 1
    assert len(plain["candidates"]) == 8
