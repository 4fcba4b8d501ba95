"""What somebody else wrote cannot drive a terminal, break a picture or end a report."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusetune.bench.batch_size.plot import draw_batch_size
from fusetune.bench.cli import program as cli
from fusetune.bench.learning_rate.plot import draw_lr_range
from fusetune.bench.learning_rate.study import study_learning_rates
from fusetune.bench.report.live import Progress
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.outcomes import RangeTestOutcome
from fusetune.bench.results.pictures import Pictures, picture_text
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.search.for_optuna import draw_all
from fusetune.bench.terminal.console import SafeConsole, say
from fusetune.bench.terminal.text import one_line, printable
from tests.bench.batch_size import test_report as batch_size_case
from tests.bench.learning_rate import test_study as lr_range_case
from tests.bench.report import test_comparison as run_case

ROOT = Path(__file__).parents[3]
ANY_TEXT = st.text(st.characters(codec=None))
# A title for the window, a cleared screen, a C1 control, a turn of direction, half a character, markup, mathematics.
HOSTILE = [
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[1;1H",
    "\x9b2J",
    "a\u202eb\u2066c",
    "\ud800half",
    "nul\x00nul",
    "[/red] [bold",
    "$\\nope{$",
    ":smile: \ufffe \uffff",
    "two\nlines\rand\ta tab\u2028more",
]


def is_safe(text: str) -> bool:
    """Whether nothing in a text, newlines and tabs aside, is a control, a surrogate, a mark, or no character at all."""
    return all(
        character in "\n\t"
        or (
            unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
            and unicodedata.bidirectional(character)
            not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
            and ord(character) & 0xFFFE != 0xFFFE
        )
        for character in text
    )


@pytest.mark.parametrize("plane", range(17))
def test_every_character_there_is_comes_out_safe(plane: int) -> None:
    text = "".join(map(chr, range(plane * 0x10000, (plane + 1) * 0x10000)))
    shown = printable(text)
    assert is_safe(shown)
    ElementTree.fromstring(f"<t>{shown.replace('&', '&amp;').replace('<', '&lt;')}</t>".encode())
    kept = [character for character in text if unicodedata.category(character)[0] in "LNPS"]
    assert set(kept) <= set(shown)


@given(ANY_TEXT)
def test_what_is_safe_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert is_safe(shown)
    assert printable(shown) == shown
    assert is_safe(text) or shown != text
    assert len(one_line(text).splitlines()) <= 1


def pictures_are_whole(directory: Path) -> int:
    """Parse every SVG, look at every PNG's end, and return how many there are."""
    for file in directory.glob("*.svg"):
        ElementTree.parse(file)
    for file in directory.glob("*.png"):
        assert file.read_bytes().endswith(b"IEND\xaeB`\x82")
    return len([*directory.glob("*.svg"), *directory.glob("*.png")])


@pytest.mark.parametrize("text", [*HOSTILE, "\\$x$", "$$", "\\", "x" * 5000])
def test_any_text_can_stand_in_a_picture(text: str, tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_title(picture_text(text))
    axes.plot([1], [1], label=picture_text(f"label {text}"))
    axes.legend()
    figure.savefig(tmp_path / "a.svg")
    figure.savefig(tmp_path / "a.png")
    assert pictures_are_whole(tmp_path) == 2


def test_a_dollar_is_shown_as_a_dollar() -> None:
    figure = Figure()
    text = figure.text(0, 0, picture_text("$x$ costs 5 $"))
    plain = figure.text(0, 0, r"\$x\$ costs 5 \$")
    assert text.get_text() == plain.get_text()
    assert text._preprocess_math(text.get_text()) == ("$x$ costs 5 $", False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_no_console_obeys_what_it_prints(text: str, terminal: bool) -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=terminal, color_system=None, width=100)
    table = Table(title=f"t{text}t")
    table.add_column(f"c{text}c")
    table.add_row(f"s{text}s")
    table.add_row(Text(f"x{text}x", style="bold"))
    for renderable in (text, Text(text, style="red"), table, Panel(f"p{text}p", title=Text(f"q{text}q"))):
        console.print(renderable)
    console.rule(f"r{text}r")
    shown = stream.getvalue()
    if terminal:
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # rich's own: bold and the like
    assert is_safe(shown)
    for mark in "tcsxpqr":
        # Some controls are taken away by rich, before they could be written out.
        whole = printable(text.translate(dict.fromkeys(b"\x07\x08\x0b\x0c\r"))).splitlines()[0]
        assert f"{mark}{whole}" in shown, mark


def test_what_is_written_out_has_the_style_of_what_it_stands_for() -> None:
    segments = SafeConsole(highlight=False).render(Text("ab").append("\x1b", style="red"))
    red = [segment.text for segment in segments if segment.style and segment.style.color]
    assert "".join(red) == r"\x1b"


@pytest.mark.parametrize("text", HOSTILE)
def test_say_prints_no_raw_control(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    say(text, err=True)
    out, err = capsys.readouterr()
    assert out == err == f"{printable(text)}\n"
    assert is_safe(out)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_and_the_live_display_obey_nothing(terminal: bool) -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=terminal, color_system=None, width=100)
    progress = Progress(console, clock=iter(float(number) * 20 for number in range(1000)).__next__)
    for text in HOSTILE:
        progress.message(text)
    progress.start(len(HOSTILE), 0)
    for index, text in enumerate(HOSTILE, start=1):
        progress.trial_started(text, index)
        progress.trial_progress(text, {"phase": text, "epoch": 1, "epochs": 2})
        if terminal:
            console.print(progress.frame())
        progress.message(text)
        progress.trial_finished(Record(text, {}, 0, "failed", text), index)
    progress.stop()
    # rich's own: the cursor hidden and shown, lines erased, the cursor moved up
    shown = re.sub(r"\x1b\[(?:\?25[lh]|[0-9]*[AKm]|[0-9;]*m)|\r", "", stream.getvalue())
    assert "owned" in shown
    assert is_safe(shown)


def report(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Print a run's report as `bench report` does, and return what came out."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(directory)])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    assert not err
    assert is_safe(out)
    return out


def written(results: Path, run: dict[str, Any], records: list[Record]) -> Path:
    """Write a run to disk."""
    with RunDirectory.create(results, "demo", RunInfo.from_dict(run)) as directory:
        for record in records:
            directory.append(record)
    return directory.path


HOSTILE_NAME = "".join(text for text in HOSTILE)


def hostile_training(results: Path) -> Path:
    """A run whose factors, reasons, classes, machine and findings are hostile."""
    factors = {f"model.{HOSTILE_NAME}": HOSTILE, "batch_size": [256, 64]}
    records = [
        *run_case.grid_records(factors, 2),  # type: ignore[arg-type]
        *(
            Record(f"{text},seed=2", {f"model.{HOSTILE_NAME}": text, "batch_size": 64}, 2, "failed", text)
            for text in HOSTILE
        ),
    ]
    finding = dict.fromkeys(("name", "title", "sentence", "try_next"), HOSTILE_NAME)
    records[0].findings.append({**finding, "evidence": {}, "confidence": "sure"})
    changes: dict[str, Any] = {
        "trials": len(records),
        "machine": {"device": HOSTILE_NAME, "device_name": HOSTILE_NAME},
        "classes": [HOSTILE],
        "data": HOSTILE,
        "overrides": HOSTILE,
        "profile": HOSTILE_NAME,
        "profile_changes": HOSTILE,
        "stand_in": HOSTILE_NAME,
        "same": HOSTILE,
        "versions": {HOSTILE_NAME: HOSTILE_NAME},
    }
    return written(results, run_case.run_json(factors, **changes), records)  # type: ignore[arg-type]


def hostile_range_test(results: Path) -> Path:
    """An LR range test with hostile factors and notes."""
    values = [HOSTILE[0], "$\\nope{$", HOSTILE_NAME]
    factors: dict[str, list[Any]] = {"x": values}
    records = [lr_range_case.swept_record({"x": text}, 0.01) for text in values]
    outcome = RangeTestOutcome(HOSTILE_NAME, tuple(HOSTILE))
    records = [dataclasses.replace(record, outcome=outcome) for record in records]
    return written(results, {**lr_range_case.run_json(factors), "data": HOSTILE}, records)


@pytest.mark.parametrize("make", [hostile_training, hostile_range_test])
def test_reports_of_hostile_runs_are_printed(
    make: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "owned" in report(make(tmp_path / "[/red]\x1b[2J$\\nope{$"), capsys)


def test_the_pictures_of_hostile_range_tests_are_whole(tmp_path: Path) -> None:
    directory = RunDirectory.open(hostile_range_test(tmp_path))
    pictures = Pictures(tmp_path, drawing=True)
    records, _ = directory.records()
    draw_lr_range(study_learning_rates(directory.run, records, "").tested, pictures)
    assert pictures_are_whole(tmp_path) == 6


def test_the_picture_of_a_hostile_batch_size_search_is_whole(tmp_path: Path) -> None:
    study, measurements = batch_size_case.measured("memory_alone")
    for text in ("$\\nope{$", HOSTILE_NAME):
        hostile = dataclasses.replace(study.configurations[0], factors={text: text})
        pictures = Pictures(tmp_path, drawing=True)
        draw_batch_size(dataclasses.replace(study, configurations=(hostile,)), measurements, pictures)
        assert pictures_are_whole(tmp_path) == 2


def test_the_pictures_of_a_hostile_search_are_whole(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    choices: list[Any] = [*HOSTILE, None, True, "[1, 2]"]
    names = {HOSTILE_NAME: CategoricalDistribution(choices), "$a$": FloatDistribution(1e-3, 1.0, log=True)}
    for number, choice in enumerate(choices):
        params = {HOSTILE_NAME: choice, "$a$": 0.01 + 0.05 * number}
        study.add_trial(create_trial(params=params, distributions=names, value=float(number)))
    draw_all(study, {HOSTILE_NAME: 0.7, "$a$": 0.3}, Pictures(tmp_path, drawing=True))
    assert pictures_are_whole(tmp_path) == 4


def test_errors_name_hostile_keys_and_options_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "[red].yaml"
    spec.write_text(f"{json.dumps(HOSTILE[0])}: 1\n")
    for arguments in (
        ["run", str(spec)],
        ["run", str(tmp_path / "\x1b[2J.yaml")],
        ["run", str(spec), "--set", f"{HOSTILE[1]}=1"],
        ["run", str(spec), "--fail-on", HOSTILE[0]],
        ["report", str(tmp_path / HOSTILE[0])],
        [HOSTILE[1]],
        ["list", f"--{HOSTILE[0]}"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        out, err = capsys.readouterr()
        assert stop.value.code == 2, arguments
        assert not out
        assert is_safe(err)
        assert r"\x1b" in err


def test_nothing_prints_past_the_safe_console() -> None:
    """In bench/, `say` and `SafeConsole` alone print."""
    forbidden = {"print", "click.echo", "click.secho", "Console", "sys.stdout.write", "sys.stderr.write"}
    found = []
    for path in sorted((ROOT / "bench").rglob("*.py")):
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
        ]
    assert [line for line in found if not line.startswith("bench/terminal/console.py:")] == []
    assert len(found) == 1  # say
    assert issubclass(SafeConsole, Console)
