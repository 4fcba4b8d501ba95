"""What a page brings along: made once, kept where only this user can write, and made again where that fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.bench.page import assets

MADE = "window.vegaEmbed = 1;"


class Bundler:
    """Stands in for vl-convert, which takes seconds, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, snippet: str, version: str) -> str:
        assert (snippet, version) == ("window.vegaEmbed = vegaEmbed;", "6.4")
        self.calls += 1
        return f"{MADE} // '</script>' <!-- {self.calls}"


@pytest.fixture
def bundler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundler]:
    """The stand-in, with nothing remembered by this process before and after."""
    made = Bundler()
    monkeypatch.setattr("vl_convert.javascript_bundle", made)
    assets.plots_script.cache_clear()
    yield made
    assets.plots_script.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this user's own. The folder of the scripts in it is not made."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fusetune" / "page"


def asked_again() -> str:
    """Ask as another process would."""
    assets.plots_script.cache_clear()
    return assets.plots_script()


def test_the_script_is_made_once_and_kept_for_this_user_alone(bundler: Bundler, folder: Path) -> None:
    first = assets.plots_script()
    assert assets.plots_script() == asked_again() == asked_again() == first
    assert bundler.calls == 1
    [kept] = folder.iterdir()
    assert kept.read_text() == first
    assert re.fullmatch(r"vega-lite-6\.4-[\d.]+(post\d+)?\.js", kept.name)
    assert kept.stat().st_mode & 0o077 == folder.stat().st_mode & 0o077 == 0


def test_nothing_in_it_ends_the_element_that_it_stands_in(bundler: Bundler, folder: Path) -> None:
    for script in (assets.plots_script(), assets.tables_script(), assets.text_of("page.js")):
        assert not re.search(r"</script|<!--", script, re.IGNORECASE)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_can_change_is_not_used(bundler: Bundler, folder: Path, what: str) -> None:
    assets.plots_script()
    [kept] = folder.iterdir()
    kept.write_text("alert('changed by another')")
    (folder if what == "folder" else kept).chmod(0o777)
    assert asked_again().startswith(MADE)
    assert bundler.calls == 2


def test_an_empty_or_unreadable_file_is_made_again(bundler: Bundler, folder: Path) -> None:
    assets.plots_script()
    [kept] = folder.iterdir()
    kept.write_text("")
    assert asked_again().startswith(MADE)
    assert kept.read_text().startswith(MADE)
    kept.unlink()
    kept.mkdir()
    assert asked_again().startswith(MADE)
    assert bundler.calls == 3


def test_a_cache_that_cannot_be_made_or_written_costs_only_time(
    bundler: Bundler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert assets.plots_script().startswith(MADE)
    assert asked_again().startswith(MADE)
    assert bundler.calls == 2
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_user_without_a_home_gets_a_page_too(bundler: Bundler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "user_cache", lambda: None)
    assert assets.plots_script().startswith(MADE)


def test_a_disk_without_room_leaves_no_part_of_a_file(
    bundler: Bundler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert assets.plots_script().startswith(MADE)
    assert list(folder.iterdir()) == []


def test_the_real_scripts_define_what_the_page_calls() -> None:
    assert "vegaEmbed" in assets.plots_script()
    assert "window.fusetuneTables={DataTable:" in assets.tables_script()
