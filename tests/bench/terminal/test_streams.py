"""What cannot be printed is lost, and nothing else: no error, no number of a stream that a file gets."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.terminal.streams import LossyFile, StandardStreams, text_stream

ROOT = Path(__file__).parents[3]
FILES = """
import os, sys
from fusetune.bench.terminal.streams import open_closed_streams, StandardStreams
{first}
with open({path!r}, "w") as file:
    number = file.fileno()
    print("this is not for the file", flush=True)
    for stream in (1, 2):
        try:
            os.write(stream, b"nor is this, as a C library writes it")
        except OSError:
            pass
    file.write(str(number))
"""


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "<&- >&-"])
@pytest.mark.parametrize("first", ["open_closed_streams()", "StandardStreams().__enter__()"])
def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path, closing: str, first: str) -> None:
    path = tmp_path / "data"
    code = FILES.format(first=first, path=str(path))
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(path.read_text()) > 2


def test_without_it_a_file_does_get_that_number(tmp_path: Path) -> None:
    path = tmp_path / "data"
    code = FILES.format(first="", path=str(path))
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert "nor is this" in path.read_text()


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    ("make", "number"),
    [(lambda: os.open("/dev/full", os.O_WRONLY), errno.ENOSPC), (pipe_without_reader, errno.EPIPE)],
)
def test_a_write_that_fails_is_remembered_and_raises_nothing(make: Callable[[], int], number: int) -> None:
    descriptor = make()
    file = LossyFile(descriptor)
    stream = text_stream(file, line_buffering=True)
    assert (file.lost, file.failure) == (False, None)
    for _ in range(100):
        print("line" * 1000, file=stream)
    stream.flush()
    assert file.lost
    assert file.failure is not None
    assert file.failure.errno == number
    stream.close()
    os.fstat(descriptor)  # is not ours to close
    os.close(descriptor)


def test_a_full_disk_that_has_room_again_takes_what_comes_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    file = LossyFile(descriptor)
    stream = text_stream(file, line_buffering=True)
    full = os.open("/dev/full", os.O_WRONLY)
    kept = os.dup(descriptor)
    print("first", file=stream)
    os.dup2(full, descriptor)
    print("lost", file=stream)
    os.dup2(kept, descriptor)
    print("last", file=stream)
    assert (tmp_path / "log").read_text() == "first\nlast\n"
    assert file.lost
    for number in (descriptor, full, kept):
        os.close(number)


def test_a_pipe_that_does_not_wait_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "".join(f"{number}\n" for number in range(100_000))
    received: list[bytes] = []

    def read() -> None:
        while part := os.read(reader, 4096):
            received.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    file = LossyFile(writer)
    stream = text_stream(file)
    stream.write(text)
    stream.flush()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(received).decode() == text
    assert not file.lost


def test_a_stream_that_somebody_put_in_place_stays(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = sys.stdout
    with StandardStreams() as streams:
        assert sys.stdout is theirs
        print("printed")
        assert streams.output_failure() is None
    assert capsys.readouterr().out == "printed\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_an_encoding_does_not_have_is_a_question_mark(tmp_path: Path, encoding: str) -> None:
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    like: Any = type("Like", (), {"encoding": encoding})
    print("─ é \udcff", file=text_stream(LossyFile(descriptor), like=like), flush=True)
    os.close(descriptor)
    expected = {"ascii": b"? ? ?\n", "utf-8": "─ é ?\n".encode()}
    assert (tmp_path / "out").read_bytes() == expected[encoding]
