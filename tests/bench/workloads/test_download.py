"""Downloading from a server on this machine that can be told to misbehave."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import pickle
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.workloads import download as download_module
from fusetune.bench.workloads.download import DownloadError, download, md5_of

BODY = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY at every path; the fields say how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges_asked: list[str | None] = []
        self.body = BODY
        self.grants_ranges = True
        self.shifts_ranges = False
        self.status = 200
        self.redirects_to: Callable[[str], str | None] = lambda _: None
        self.redirect_code = 302
        self.cut_after: int | None = None
        self.announces_length = True
        self.piece_bytes = 1 << 20
        self.pause_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its server's fields say."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges_asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        if elsewhere := server.redirects_to(urllib.parse.unquote(self.path, "latin-1")):
            self.send_response(server.redirect_code)
            self.send_header("Location", elsewhere)
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.grants_ranges else 0
        if start >= len(server.body):
            self.send_error(416)
            return
        part = server.body[start:]
        if start:
            claimed = start + 1 if server.shifts_ranges else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {claimed}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        if server.announces_length:
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        part = part[: server.cut_after]
        try:
            for i in range(0, len(part), server.piece_bytes):
                self.wfile.write(part[i : i + server.piece_bytes])
                time.sleep(server.pause_s)
        except OSError:
            pass  # the client has gone

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server: Server, target: Path, **options: object) -> Path:
    """Download BODY from the server."""
    return download(server.url, target, **{"size_bytes": len(BODY), "md5": MD5, "pause_s": 0.0, **options})  # type: ignore[arg-type]


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def test_the_file_arrives_whole_with_progress_to_the_end(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = fetch(server, tmp_path / "new" / "data.bin", on_progress=lambda *at: seen.append(at))
    assert target.read_bytes() == BODY
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(BODY), len(BODY))
    assert not part_of(target).exists()


def test_a_file_that_is_there_is_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    assert fetch(server, tmp_path / "data.bin").read_bytes() == b"mine"
    assert server.ranges_asked == []


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "data.bin"

    def interrupt(done_bytes: int, _size_bytes: int) -> None:
        if done_bytes > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, target, on_progress=interrupt)
    kept = part_of(target).stat().st_size
    assert 300_000 < kept < len(BODY)
    assert not target.exists()
    seen: list[int] = []
    assert fetch(server, target, on_progress=lambda done, _: seen.append(done)).read_bytes() == BODY
    assert server.ranges_asked == [None, f"bytes={kept}-"]
    assert min(seen) > kept


def test_a_server_without_ranges_makes_it_start_over(server: Server, tmp_path: Path) -> None:
    server.grants_ranges = False
    part_of(tmp_path / "data.bin").write_bytes(b"x" * 1000)  # would spoil the checksum if it were kept
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY
    assert server.ranges_asked == ["bytes=1000-"]


def test_another_range_than_asked_for_makes_it_start_over(server: Server, tmp_path: Path) -> None:
    server.shifts_ranges = True
    part_of(tmp_path / "data.bin").write_bytes(BODY[:1000])
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY
    assert server.ranges_asked == ["bytes=1000-", None]


def test_a_range_beyond_the_servers_file_makes_it_start_over(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:500]
    part_of(tmp_path / "data.bin").write_bytes(BODY[:1000])
    with pytest.raises(DownloadError, match="the server offers 500 bytes"):
        fetch(server, tmp_path / "data.bin")
    assert server.ranges_asked == ["bytes=1000-", None]


@pytest.mark.parametrize("kept", [len(BODY), len(BODY) + 1])
def test_a_full_part_needs_no_transfer_and_a_longer_one_starts_over(
    server: Server, tmp_path: Path, kept: int
) -> None:
    part_of(tmp_path / "data.bin").write_bytes((BODY + b"x")[:kept])
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY
    assert server.ranges_asked == ([] if kept == len(BODY) else [None])


def test_a_transfer_that_breaks_off_is_taken_up_again_while_it_gets_further(
    server: Server, tmp_path: Path
) -> None:
    server.cut_after = 400_000
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY
    assert server.ranges_asked == [None, "bytes=400000-", "bytes=800000-"]


def test_a_transfer_that_gets_no_further_ends_with_what_is_kept(server: Server, tmp_path: Path) -> None:
    server.cut_after = 0
    part_of(tmp_path / "data.bin").write_bytes(BODY[:2048])
    with pytest.raises(
        DownloadError, match=r"broke off .*2\.00 KiB of 1\.00 MiB are kept in .*data\.bin\.part"
    ):
        fetch(server, tmp_path / "data.bin")
    assert part_of(tmp_path / "data.bin").read_bytes() == BODY[:2048]
    assert len(server.ranges_asked) == 2


def test_silence_in_the_middle_counts_as_broken_off(server: Server, tmp_path: Path) -> None:
    server.piece_bytes, server.pause_s = 600_000, 1.0
    assert fetch(server, tmp_path / "data.bin", stall_s=0.1).read_bytes() == BODY
    assert server.ranges_asked == [None, "bytes=600000-"]


def test_a_wrong_checksum_names_both_sums_and_removes_the_file(server: Server, tmp_path: Path) -> None:
    server.body = bytes(len(BODY))
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path / "data.bin")
    assert hashlib.md5(server.body).hexdigest() in str(caught.value)
    assert MD5 in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.bin.lock"]


def test_a_page_in_the_way_does_not_touch_what_is_kept(server: Server, tmp_path: Path) -> None:
    server.body, server.grants_ranges = b"<html>log in</html>", False
    part_of(tmp_path / "data.bin").write_bytes(BODY[:1000])
    with pytest.raises(DownloadError, match=f"offers 19 bytes and the file has {len(BODY)}"):
        fetch(server, tmp_path / "data.bin")
    assert part_of(tmp_path / "data.bin").read_bytes() == BODY[:1000]


def test_a_body_that_never_ends_is_cut_at_the_size(server: Server, tmp_path: Path) -> None:
    server.body, server.announces_length = BODY + bytes(5_000_000), False
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY


def test_an_http_error_says_its_number(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="answered 404 Not Found"):
        fetch(server, tmp_path / "data.bin")
    assert len(server.ranges_asked) == 1


def test_a_refused_port_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.bin"
        with pytest.raises(DownloadError) as caught:
            download(url, tmp_path / "data.bin", size_bytes=1, md5=MD5)
    assert caught.value.reason == "no connection: Connection refused"


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_a_failed_name_look_up_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def fail(host: str, *_arguments: object, **_options: object) -> None:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DownloadError, match="no connection: Name or service not known"):
        download("http://example.invalid/data.bin", tmp_path / "data.bin", size_bytes=1, md5=MD5)
    assert looked_up == ["example.invalid"]


@pytest.mark.usefixtures("no_proxy")
def test_a_name_look_up_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def hang(*_arguments: object, **_options: object) -> None:
        end.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(DownloadError, match=r"no answer within 0\.1 s"):
        download("http://a.invalid/d", tmp_path / "d", size_bytes=1, md5=MD5, answer_within_s=0.1)
    end.set()


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.piece_bytes, server.pause_s = 100_000, 0.01
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server, tmp_path / "data.bin").read_bytes()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 3
    assert len(server.ranges_asked) == 1


def test_a_directory_that_cannot_be_made_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"cannot be written .*BENCH_DATA"):
        fetch(server, tmp_path / "file" / "data.bin")


def test_a_full_disk_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: object, piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module, "_write", full)
    with pytest.raises(DownloadError, match=r"No space left on device.*Make room"):
        fetch(server, tmp_path / "data.bin")


@pytest.mark.parametrize("suffix", [".part", ".lock"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_where_a_file_would_be_written_is_not_followed(
    suffix: str, there: bool, server: Server, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_bytes(b"precious")
    link = tmp_path / f"data.bin{suffix}"
    link.symlink_to(victim)
    with pytest.raises(InputError) as caught:
        fetch(server, tmp_path / "data.bin")
    assert str(caught.value) == (
        f"{link}: is a symbolic link; a download writes a file of your own there. "
        "Move it away, or name another directory in BENCH_DATA"
    )
    assert caught.value.exit_code == 2
    assert (victim.read_bytes() == b"precious") if there else not victim.exists()
    assert server.ranges_asked == []


@pytest.mark.parametrize("suffix", [".part", ".lock"])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "is not a file"),
        (lambda path: os.link(path.with_name("victim"), path), "is a file that has another name too"),
    ],
)
def test_something_else_where_a_file_would_be_written(
    make: Callable[[Path], object], what: str, suffix: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    make(tmp_path / f"data.bin{suffix}")
    with pytest.raises(InputError, match=rf"data\.bin{suffix}: {what}; a download writes"):
        fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert server.ranges_asked == []


@pytest.mark.parametrize("suffix", [".part", ".lock"])
def test_another_users_file_is_not_written(
    suffix: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"data.bin{suffix}"
    theirs.write_bytes(BODY[:1000])
    real = os.fstat

    def given_away(handle: int) -> os.stat_result:
        found = [*real(handle)][:10]
        if found[1] == theirs.stat().st_ino:
            found[4] = os.geteuid() + 1
        return os.stat_result(found)

    monkeypatch.setattr(download_module, "_status", given_away)
    with pytest.raises(InputError, match=rf"data\.bin{suffix}: belongs to another user"):
        fetch(server, tmp_path / "data.bin")
    assert theirs.read_bytes() == BODY[:1000]
    assert server.ranges_asked == []


def test_a_part_that_is_replaced_meanwhile_is_not_taken(server: Server, tmp_path: Path) -> None:
    part = part_of(tmp_path / "data.bin")

    def replace(done: int, size: int) -> None:
        if done == size:
            (tmp_path / "other").write_bytes(b"theirs")
            (tmp_path / "other").replace(part)

    with pytest.raises(InputError, match="was replaced during the download"):
        fetch(server, tmp_path / "data.bin", on_progress=replace)
    assert not (tmp_path / "data.bin").exists()


@pytest.mark.parametrize(("make", "what"), [(Path.mkdir, "is a directory"), (os.mkfifo, "is not a file")])
def test_something_else_in_the_place_of_the_file(
    make: Callable[[Path], object], what: str, server: Server, tmp_path: Path
) -> None:
    make(tmp_path / "data.bin")
    with pytest.raises(InputError) as caught:
        fetch(server, tmp_path / "data.bin")
    assert str(caught.value).startswith(f"{tmp_path}/data.bin: {what}; a download writes a file of your own")
    assert caught.value.exit_code == 2
    assert server.ranges_asked == []


@pytest.mark.parametrize(
    "elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://a/"]
)
def test_no_redirect_leads_out_of_http(elsewhere: str, server: Server, tmp_path: Path) -> None:
    server.redirects_to = lambda _: elsewhere
    with pytest.raises(DownloadError) as caught:
        fetch(server, tmp_path / "data.bin")
    assert (
        caught.value.reason
        == f"what the server sends us to is '{elsewhere}', which is no address of http or https"
    )
    assert len(server.ranges_asked) == 1


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x", "/etc/hostname"]
)
def test_no_other_address_is_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is no address of http or https"):
        download(url, tmp_path / "data.bin", size_bytes=1, md5=MD5)
    assert not (tmp_path / "data.bin").exists()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_asks_for_the_rest_only(code: int, server: Server, tmp_path: Path) -> None:
    server.redirects_to = lambda path: None if path == "/b ü" else "/b ü"
    server.redirect_code = code
    part_of(tmp_path / "data.bin").write_bytes(BODY[:1000])
    assert fetch(server, tmp_path / "data.bin").read_bytes() == BODY
    assert server.ranges_asked == ["bytes=1000-"] * 2


def test_redirects_without_end_are_counted(server: Server, tmp_path: Path) -> None:
    server.redirects_to = lambda path: f"{path}x"
    with pytest.raises(DownloadError, match="elsewhere more than 5 times"):
        fetch(server, tmp_path / "data.bin")
    assert len(server.ranges_asked) == 6


def test_a_redirect_to_nowhere_says_its_number(server: Server, tmp_path: Path) -> None:
    server.status = 302
    with pytest.raises(DownloadError, match="answered 302"):
        fetch(server, tmp_path / "data.bin")
    assert len(server.ranges_asked) == 1


@pytest.mark.parametrize("cut_after", [0, 1, 1000])
@pytest.mark.parametrize("ranges", ["granted", "shifted", "not granted"])
def test_a_server_that_makes_no_progress_is_asked_few_times(
    ranges: str, cut_after: int, server: Server, tmp_path: Path
) -> None:
    """It sends next to nothing, and where it shifts ranges what was fetched has to be dropped again."""
    server.cut_after = cut_after
    server.shifts_ranges, server.grants_ranges = ranges == "shifted", ranges != "not granted"
    with pytest.raises(DownloadError, match="run again to fetch the rest"):
        fetch(server, tmp_path / "data.bin")
    assert len(server.ranges_asked) == 2


def test_a_server_that_always_breaks_off_is_asked_a_hundred_times(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_LEAST_GAIN_BYTES", 1)
    server.cut_after = 1
    with pytest.raises(DownloadError, match="the transfer broke off 100 times"):
        fetch(server, tmp_path / "data.bin")
    assert len(server.ranges_asked) == 100
    assert part_of(tmp_path / "data.bin").read_bytes() == BODY[:100]


def test_the_server_is_left_alone_for_a_while_before_it_is_asked_in_vain_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download_module.time, "sleep", waited.append)  # type: ignore[attr-defined]
    server.cut_after = 0
    with pytest.raises(DownloadError):
        fetch(server, tmp_path / "data.bin", pause_s=7.0)
    assert [seconds for seconds in waited if seconds >= 7.0] == [7.0]


def test_the_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DownloadError("http://a", "no connection", "Check the network")))
    assert (str(error), error.reason) == ("http://a: no connection. Check the network", "no connection")


def test_md5_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"message digest")  # RFC 1321, appendix A.5
    assert md5_of(tmp_path / "text") == "f96b697d7cb7938d525a2f31aaf161d0"
