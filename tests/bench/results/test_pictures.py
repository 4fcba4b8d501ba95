"""Pictures are drawn whole by the command that runs, and never by one that reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fusetune.bench.results.pictures import Pictures
from tests.bench.faulty_disk import file_size_limit, snapshot


def draw() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def test_a_picture_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, drawing=True)
    pictures.add("a", draw, style={"svg.hashsalt": "a"})
    assert pictures.paths == [tmp_path / "a.png"]
    assert pictures.files == [tmp_path / "a.png", tmp_path / "a.svg"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 2
    before = (tmp_path / "a.svg").read_bytes()
    Pictures(tmp_path, drawing=True).add("a", draw, style={"svg.hashsalt": "a"})
    assert (tmp_path / "a.svg").read_bytes() == before


def test_a_reader_names_what_is_there_and_draws_nothing(tmp_path: Path) -> None:
    Pictures(tmp_path, drawing=True).add("a", draw)
    before = snapshot(tmp_path)

    def never() -> Figure:
        raise AssertionError("a reader draws nothing")

    reader = Pictures(tmp_path, drawing=False)
    reader.add("a", never)
    reader.add("b", never)
    assert (reader.paths, reader.note) == ([tmp_path / "a.png"], "")
    assert snapshot(tmp_path) == before


def test_a_disk_that_is_full_is_one_sentence_and_leaves_no_half_of_a_picture(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, drawing=True)
    with file_size_limit(100):
        pictures.add("a", draw)
        pictures.add("b", draw)
    assert pictures.paths == []
    assert pictures.note.startswith(
        f"the pictures cannot be saved; {tmp_path / 'a.png'}: the file may not grow"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing", "file/inside"])
def test_a_place_that_is_none_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    pictures = Pictures(tmp_path / place, drawing=True)
    pictures.add("a", draw)
    assert pictures.paths == []
    assert pictures.note.startswith("the pictures cannot be saved; ")
