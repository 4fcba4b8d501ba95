"""A file of lines keeps what was appended and nothing else, whatever the disk and the process do."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results.line_file import LineFile
from fusetune.bench.results.whole_file import remove_unfinished, write_whole
from tests.bench.faulty_disk import file_size_limit, full

ENTRIES: list[Any] = [{"op": 1}, [1, "ü\n"], None, "text"]


def made(path: Path, entries: list[Any] = ENTRIES) -> LineFile:
    file = LineFile(path, "an entry", "Restore it.", go_on="bench go on")
    file.append(entries)
    return file


@given(cut=st.integers(1, 60), binary=st.binary(max_size=5).filter(lambda tail: b"\n" not in tail))
@settings(max_examples=60, deadline=None)
def test_wherever_a_file_was_cut_its_whole_lines_are_read_and_go_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int, binary: bytes
) -> None:
    path = tmp_path_factory.mktemp("cut") / "file"
    made(path)
    content = path.read_bytes()[: max(0, len(path.read_bytes()) - cut)] + binary
    path.write_bytes(content)
    whole = [json.loads(line) for line in content.split(b"\n")[:-1]]
    torn = not content.endswith(b"\n") and bool(content)

    file = LineFile(path, "an entry", "Restore it.")
    assert file.read() == whole
    assert path.read_bytes() == content
    assert file.cut_torn_line() == (f"{path}: the last line was cut short by a crash and is left out" * torn)
    assert file.cut_torn_line() == ""
    file.append(["more"])
    assert LineFile(path, "an entry", "").read() == [*whole, "more"]


@pytest.mark.parametrize("broken", [b"{", b"", b"\xff", b"{} {}", b"[" * 100_000, b"1" * 10_000, b"\0\0"])
def test_a_line_in_the_middle_that_is_no_json_is_an_error_that_names_it(
    tmp_path: Path, broken: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}\n" + broken + b"\n{}\n")
    with pytest.raises(RunDirectoryError, match=r"file:2: not an entry; .+\. Restore it\.") as caught:
        LineFile(path, "an entry", "Restore it.").read()
    assert caught.value.exit_code == 2


def test_an_append_that_does_not_fit_leaves_no_part_of_itself_and_says_how_to_go_on(tmp_path: Path) -> None:
    file = made(tmp_path / "file")
    before = file.path.read_bytes()
    with file_size_limit(len(before) + 3), pytest.raises(RunDirectoryError) as caught:
        file.append([{"a": 1}, {"b": 2}])
    assert file.path.read_bytes() == before
    assert str(caught.value).startswith(f"{file.path}: the file may not grow any more here; nothing that was")
    assert str(caught.value).endswith("Then continue with `bench go on`.")
    file.append([{"c": 3}])
    assert file.read() == [*ENTRIES, {"c": 3}]


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_is_said_with_path_and_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, there: bool
) -> None:
    file = made(tmp_path / "file", ENTRIES if there else [])
    if not there:
        file.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RunDirectoryError, match=r"file: the disk is full, [\d.,e+]+ MiB of .+ MiB free;"):
            file.append([1])
    assert file.read() == (ENTRIES if there else [])
    file.append([2])
    assert file.read() == ([*ENTRIES, 2] if there else [2])


def test_what_a_failed_append_could_not_take_back_is_taken_back_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(tmp_path / "file")
    real = os.write

    def half(descriptor: int, content: bytes) -> int:
        if len(content) < 8:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, content[: len(content) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(RunDirectoryError, match="Input/output error"):
            file.append(["a long entry that is written by halves"])
        assert not file.path.read_bytes().endswith(b"\n")
    file.append(["next"])
    assert file.read() == [*ENTRIES, "next"]


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    file = made(tmp_path / "file")
    with pytest.raises(ValueError, match="Out of range float"):
        file.append([1, float("nan")])
    assert file.read() == ENTRIES


def test_a_whole_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_whole(path, b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            patch.setattr(Path, "replace", full) if call == "replace" else None
            with pytest.raises(OSError, match="No space left"):
                write_whole(path, b"new" * 1000)
        assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
        assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.png", b"a")
    (tmp_path / "b.png.unfinished").write_bytes(b"half")
    (tmp_path / "my.tmp").write_bytes(b"mine")
    remove_unfinished(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "my.tmp"]
