"""Downloading from a server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.workloads.download import DownloadError, download, md5_of

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
    return download(server.url, target, **{"size_bytes": len(BODY), "md5": MD5, **options})  # type: ignore[arg-type]


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path / "data.bin").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"No space left on device.*Make room"):
        fetch(server, tmp_path / "data.bin")


def test_the_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DownloadError("http://a", "no connection", "Check the network")))
    assert (str(error), error.reason) == ("http://a: no connection. Check the network", "no connection")


def test_md5_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"message digest")  # RFC 1321, appendix A.5
    assert md5_of(tmp_path / "text") == "f96b697d7cb7938d525a2f31aaf161d0"
