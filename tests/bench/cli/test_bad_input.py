"""Whatever stands in a spec, on the command line or where a run should be: one sentence and exit code 2."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.errors import InputError
from fusetune.bench.spec.yaml import MAX_LEVELS, parse_value, parse_yaml
from fusetune.errors import StateError

BASE = """\
name: a
data: {name: digits}
model: {name: mlp}
train: {base_lr: 0.1, batch_size: 64, epochs: 1}
"""
OWN = BASE.replace("{name: mlp}", '{factory: "m:f"}')


def with_data(path: str) -> str:
    return BASE.replace("{name: digits}", f"{{name: npz, path: {path}}}")


def with_train(text: str) -> str:
    return BASE.replace("epochs: 1", text)


# Each with a part of what is said.
SPECS: dict[str, tuple[str, str]] = {
    "a tagged key": (BASE + "? !!python/name:os.system x\n: 1\n", "python/name:os.system' is not known here"),
    "a key that calls": ("? !!python/object/apply:os.system [x]\n: 1\n", "a key must be a word"),
    "a key that is no number": (BASE + "!!int x: 1\n", "'x' does not read as int"),
    "maybe": (BASE + "description: !!bool maybe\n", "a.yaml:5: description: 'maybe' does not read as bool"),
    "no number": (BASE + "description: !!int x\n", "'x' does not read as int"),
    "an empty number": (BASE + "description: !!int ''\n", "'' does not read as int"),
    "octal": (BASE + "description: !!int 0o17\n", "'0o17' does not read as int"),
    "an empty float": (BASE + "description: !!float ''\n", "'' does not read as float"),
    "no date": (BASE + "description: !!timestamp x\n", "timestamp' is not known here"),
    "a date that is none": (BASE + "description: !!timestamp 2001-99-99\n", "timestamp' is not known here"),
    "null x": (BASE + "description: !!null x\n", "'x' does not read as null"),
    "a set": (BASE + "description: !!set {a, b}\n", "set' is not known here"),
    "bytes": (BASE + "description: !!binary aGVsbG8=\n", "binary' is not known here"),
    "bytes for a model": (OWN + "factors: {model.q: [!!binary aGVsbG8=, 3]}\n", "binary' is not known here"),
    "a part of a number": (
        BASE + "factors: {batch_size.0: [1, 2]}\n",
        "batch_size is one value, which has no parts",
    ),
    "a part of a list": (
        with_train("epochs: 1, betas: [0.9, 0.99], optimizer: adam") + "factors: {betas.0: [0.1, 0.2]}\n",
        "betas is one value, which has no parts",
    ),
    "a factor without name": (BASE + "factors: {'': [1, 2]}\n", "no such field"),
    "dots": (BASE + "factors: {'..': [1, 2]}\n", "no such field"),
    "300 levels in a line": (BASE + "description: " + "[" * 300 + "]" * 300 + "\n", "levels deep"),
    "300 levels": (
        BASE + "description:\n" + "".join(" " * (i + 1) + "a:\n" for i in range(300)),
        "levels deep",
    ),
    "300 levels for a model": (OWN + f"factors: {{model.q: [{'[' * 300}1{']' * 300}, 3]}}\n", "levels deep"),
    "300 mappings for a model": (
        OWN.replace('"m:f"', f'"m:f", q: {"{a: " * 300}1{"}" * 300}'),
        "levels deep",
    ),
    "3,000 levels": ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
    "levels by aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
        "levels deep",
    ),
    "half a character": (BASE + 'description: "\\ud800"\n', r"'\ud800' holds half a character"),
    "half a character as a key": (BASE + '"\\ud800": 1\n', "holds half a character"),
    "half a character for a model": (OWN + 'factors: {model.q: ["\\ud800", 3]}\n', "holds half a character"),
    "a path with a NUL": (with_data('"a\\0b"'), "data.path: no file"),
    "a user who is not there": (with_data("~nosuchuser/a"), "Write the path without ~"),
    "a long path": (with_data("a" * 300), "data.path: no file"),
    "a very long path": (with_data("a/" * 3000), "data.path: no file"),
    "a directory for a file": (with_data("/"), "data.path: no file"),
    "a device for a file": (with_data("/dev/null"), "data.path: no file"),
    "9,000,000 TiB": (BASE + "limits: {memory: 9000000TiB}\n", "must be from 1 byte to 1 EiB"),
    "a tenth of a byte": (BASE + "limits: {memory: 0.1B}\n", "must be from 1 byte to 1 EiB"),
    "more than 1 EiB": (BASE + f"limits: {{memory: {2**60 + 1}}}\n", "must be at most"),
    "many hours": (BASE + "limits: {trial_time: 1" + "0" * 20 + "h}\n", "must be at most"),
    "5,000 digits": (with_train("epochs: 1" + "0" * 4999), "is a number of 5000 digits"),
    "400 digits": (BASE.replace("base_lr: 0.1", "base_lr: 1" + "0" * 400), "is a number of 401 digits"),
    "65 bits": (with_train(f"epochs: {2**63}"), "needs more than 64 bits"),
    "5,000 digits in a text": (BASE + "limits: {memory: '1" + "0" * 5000 + "GiB'}\n", "must be finite"),
    "a number of samples": (BASE.replace("64", str(2**31)), "train.batch_size: must be below"),
    "a width": (
        BASE.replace("{name: mlp}", f"{{name: mlp, width: {2**31}}}"),
        "model.width: must be at most 1e+06",
    ),
    "a budget": (
        BASE + f"factors: {{batch_size: [1, 2]}}\ndesign: {{search: {{budget_epochs: {2**40}}}}}\n",
        "budget_epochs: must be below",
    ),
    "a bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n"
            for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "expands to more than 20,000 values",
    ),
    "an alias of itself": ("x: &a {b: *a}\n", "an alias that contains itself"),
    "a merge of a number": (BASE + "<<: 1\n", "'<<' must name a mapping"),
    "a merge of a list of numbers": (BASE + "<<: [1]\n", "'<<' must name a mapping"),
    "a key twice": (BASE + "name: b\n", "written twice, first on line 1"),
    "a key that is a list": (BASE + "[a]: 1\n", "a key must be a word, not a collection"),
    "a key that is null": (BASE + "~: 1\n", "a key must be a word, not '~'"),
    "a tab": ("\tname: a\n", "not valid YAML"),
    "two documents": (BASE + "---\n" + BASE, "not valid YAML"),
    "nothing": ("", "must be a mapping (key: value), not empty"),
    "profiles that are a list": (BASE + "profiles: [cpu]\n", "profiles: must be a mapping"),
    "a profile that is a number": (BASE + "profiles: {cpu: 1}\n", "profiles.cpu: must be a mapping"),
    "a device that is a mapping": (BASE + "device: {a: 1}\n", "device: must be a text"),
    "a design that is a list": (BASE + "design: []\n", "design"),
    "a seed that is a mapping": (BASE + "seeds: [{a: 1}]\n", "seeds[0]: must be a whole number"),
}


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line, which must end with 2, and return what it said."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2, err
    assert not out
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("case", SPECS)
def test_a_bad_spec_is_a_sentence_and_exit_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = SPECS[case]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    err = complaint(capsys, "run", str(path), "--results", str(tmp_path / "results"))
    assert err.startswith(f"error: {path}")
    assert said in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BASE.encode("utf-16"), "not UTF-8 text (byte 0)"),
        (BASE.encode() + b"description: \xed\xa0\x80\n", "not UTF-8 text (byte "),
        (b"\xef\xbb\xbf" + BASE.encode() + b"zz: 1\n", "zz: unknown key"),
        (BASE.encode() + b"description: \x07\n", "not valid YAML"),
        (b"a" * (2**20 + 1), "larger than 1 MiB"),
    ],
)
def test_bytes_that_are_no_spec(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert said in complaint(capsys, "run", str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "a"), "must be key.path=value"),
        (("--set", "=1"), "must be key.path=value"),
        (("--set", "train.epochs=!!bool maybe"), "'maybe' does not read as bool"),
        (("--set", "train.epochs=" + "[" * 300), "--set train.epochs:1: not valid YAML"),
        (("--set", "train.epochs=" + "[" * 300 + "]" * 300), "--set train.epochs: nested 300 levels deep"),
        (("--set", "a." * 2000 + "a=1"), "a: unknown key"),
        (("--set", "train.epochs=" + "1" * 5000), "is a number of 5000 digits"),
        (("--set", "description=\udc80"), "not valid YAML"),
        (("--set", "train.epochs.x=1"), "train.epochs: must be a whole number"),
        (("--set", "profiles=[1]"), "profiles: must be a mapping"),
    ],
)
def test_a_bad_override(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BASE)
    assert said in complaint(capsys, "run", str(path), *arguments)


def test_places_where_no_spec_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        (str(tmp_path), "is a directory"),
        (str(tmp_path / "pipe"), "is a pipe"),
        ("/dev/null", "must be a mapping"),
        ("/dev/zero", "larger than 1 MiB"),
        ("a" * 300, "cannot be read (File name too long)"),
        ("\udc80.yaml", "no such file"),
        ("~nosuchuser/a.yaml", "no such file"),
    ):
        assert said in complaint(capsys, "run", name)


def test_places_where_no_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "holds").mkdir()
    os.mkfifo(tmp_path / "holds/run.json")
    for command in (("report",), ("run", "--resume"), ("lr-range", "--resume")):
        for place in ("/proc", "/proc/self", "/dev/null", "a" * 300, "~nosuchuser", str(tmp_path / "holds")):
            err = complaint(capsys, *command, place)
            assert re.search(r"no run is there|is not a directory|holds a folder|cannot be used", err), (
                place,
                err,
            )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "9000000TiB"),
        ("--memory", "1" + "0" * 5000),
        ("--noise-epochs", "1" * 5000),
        ("--noise-epochs", "²"),
    ],
)
def test_quantities_without_end_on_the_command_line(
    arguments: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BASE)
    assert arguments[0] in complaint(capsys, "batch-size", str(path), *arguments)


def test_tags_that_say_what_a_scalar_is_are_followed() -> None:
    assert parse_value("!!str 5", "a") == "5"
    assert parse_value("!!int 5", "a") == 5
    assert parse_value("!!float 1e-3", "a") == 0.001
    assert parse_value("!!null ''", "a") is None
    assert parse_value(str(2**63 - 1), "a") == 2**63 - 1
    assert parse_yaml("!!str 5: !!bool true", "a").data == {"5": True}
    deep = "[" * (MAX_LEVELS - 1) + "]" * (MAX_LEVELS - 1)
    assert parse_value(deep, "a") is not None
    with pytest.raises(InputError, match="levels deep"):
        parse_value(f"[[{deep}]]", "a")


def test_an_error_of_the_library_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cache of tuned launch configs that cannot be written, for one."""

    def fail(**_: object) -> None:
        raise StateError("tuning cache", "/x cannot be written", to_do="Make room there")

    monkeypatch.setattr(cli.commands.commands["schema"], "callback", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["schema"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: tuning cache: /x cannot be written. Make room there\n"
