"""Download one file of known size and checksum: with progress, resumed after an interruption, and verified.

pooch does most of this, but starts an interrupted transfer again from zero. On a bad line, 170 MB would never arrive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import queue
import re
import stat
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

from fusetune.bench.errors import InputError
from fusetune.bench.units import format_bytes

Progress = Callable[[int, int], None]

_CHUNK_BYTES = 1 << 18
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_MOST_REQUESTS = 100
_MOST_IN_VAIN = 1
_LEAST_GAIN_BYTES = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadError(InputError):
    """The file at `url` could not be downloaded. `reason` fits into a sentence, and `advice` is a sentence."""

    code = "download"

    def __init__(self, url: str, reason: str, advice: str) -> None:
        super().__init__(url, reason, to_do=advice)
        self.reason = reason


class _BrokenOffError(Exception):
    """The transfer stopped in the middle. A request for the rest may help."""


class _CannotResumeError(Exception):
    """The server does not continue where the transfer stopped. A request for the whole file may help."""


def download(
    url: str,
    target: Path,
    *,
    size_bytes: int,
    md5: str,
    on_progress: Progress | None = None,
    answer_within_s: float = 8.0,
    stall_s: float = 30.0,
    pause_s: float = 1.0,
) -> Path:
    """Download `url` into `target`, unless it exists already.

    The bytes go to `<target>.part` first, which survives an interruption. The next call requests the rest only (a Range
    request), and starts over where the server does not grant that. The file gets its name once size and checksum are
    right. Of several processes one downloads and the others wait (a lock on `<target>.lock`). A server that sends less
    than 64 KiB more is asked once more, and any server at most 100 times. Only http and https are supported.
    Proxies are taken from the environment (`https_proxy` and so on).

    Args:
        url: http or https address.
        target: the file's path. Its directory is created.
        size_bytes: the file's exact size.
        md5: the file's MD5 checksum in hexadecimal. It protects against damage, not against malice.
        on_progress: called as f(done_bytes, size_bytes) from this thread after every piece.
        answer_within_s: the longest wait for an answer, name look-up and connection included.
        stall_s: the longest silence in the middle of a transfer.
        pause_s: the wait before a repeated request to a server that has sent almost nothing.

    Returns:
        `target`.

    Mutates:
        The files `target`, `<target>.part` and `<target>.lock`.

    Raises:
        DownloadError: offline, refused, no such file, an unexpected size, a wrong checksum (the file is removed), or a
            disk that is full or not writable.
        InputError: a directory is in the file's place, or a link or another user's file where it would be written.
        KeyboardInterrupt: passes through. The downloaded part is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = Path(directory, "a.txt").write_bytes(b"abc")
        ...     download("http://example.invalid/a.txt", Path(directory, "a.txt"), size_bytes=3, md5="unused").name
        'a.txt'
    """
    patience = _Patience(answer_within_s, stall_s, pause_s)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise _in_the_way(target, "is a directory" if target.is_dir() else "is not a file")
        with _only_one(target):
            if target.exists():
                return target
            path = target.with_name(target.name + ".part")
            with _own_file(path) as part:
                _fetch(url, part, path, size_bytes, on_progress or _silent, patience)
                _check(url, part, path, size_bytes, md5)
                _put_in_place(part, path, target)
    except OSError as error:
        raise _disk_error(url, target, error) from error
    return target


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file, in hexadecimal.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = Path(directory, "a.txt").write_bytes(b"abc")
        ...     md5_of(Path(directory, "a.txt"))
        '900150983cd24fb0d6963f7d28e17f72'
    """
    with path.open("rb") as file:
        return _md5_of(file)


def _md5_of(file: BinaryIO) -> str:
    """Return the MD5 checksum of an open file, from its start."""
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Hold the lock of `target`. The operating system releases it when a process dies."""
    with _own_file(target.with_name(target.name + ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _own_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing, as bytes without a buffer. Create it where it does not exist.

    Raises:
        InputError: it is a link, no regular file, another user's, or a second name of another file. Our writes would go
            where others want them.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        what = {errno.ELOOP: "is a symbolic link", errno.EISDIR: "is a directory"}
        raise _in_the_way(path, what.get(error.errno, "is not a file")) from error
    try:
        if why := _why_not_own(_status(handle)):
            raise _in_the_way(path, why)
    except BaseException:
        os.close(handle)
        raise
    with open(handle, "r+b", buffering=0) as file:
        yield file


def _status(handle: int) -> os.stat_result:
    return os.fstat(handle)


def _why_not_own(status: os.stat_result) -> str | None:
    """Return why we cannot write to an open file, or None where we can."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    return "is a file that has another name too" if status.st_nlink > 1 else None


def _in_the_way(path: Path, what: str) -> InputError:
    """Build the error of an object at the path of a download."""
    return InputError(
        path,
        what,
        "a download writes a file of your own there",
        "Move it away, or name another directory in BENCH_DATA",
    )


def _silent(_done_bytes: int, _size_bytes: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class _Patience:
    """Waiting times in seconds: for an answer, in the middle of a transfer, and before a repeated request."""

    answer_s: float
    stall_s: float
    pause_s: float


def _fetch(
    url: str, part: BinaryIO, kept_in: Path, size_bytes: int, on_progress: Progress, patience: _Patience
) -> None:
    """Fill `part` up to its full size. A broken transfer is resumed as long as it makes progress."""
    if _length(part) > size_bytes:
        part.truncate(0)
    furthest, in_vain = _length(part), 0
    for _ in range(_MOST_REQUESTS):
        before = _length(part)
        if before == size_bytes:
            return
        try:
            with _ask(url, before, patience) as answer:
                start = _start_of(answer, url, before, size_bytes)
                _copy(answer, part, start, size_bytes, on_progress)
            continue
        except _CannotResumeError as error:
            if before == 0:
                raise DownloadError(url, str(error), "Try again later") from error
            why = str(error)
            part.truncate(0)
        except _BrokenOffError as error:
            why = f"the transfer broke off ({error})"
        # Counted from the furthest that this call has come: a server that has us start over gets no further either.
        in_vain = 0 if _length(part) >= furthest + _LEAST_GAIN_BYTES else in_vain + 1
        furthest = max(furthest, _length(part))
        if in_vain > _MOST_IN_VAIN:
            raise _gave_up(url, why, part, kept_in, size_bytes)
        time.sleep(patience.pause_s * in_vain)
    if _length(part) != size_bytes:
        why = f"the transfer broke off {_MOST_REQUESTS} times"
        raise _gave_up(url, why, part, kept_in, size_bytes)


def _gave_up(url: str, why: str, part: BinaryIO, kept_in: Path, size_bytes: int) -> DownloadError:
    """Build the error of a transfer that can be resumed later."""
    return DownloadError(
        url,
        why,
        f"{format_bytes(_length(part))} of {format_bytes(size_bytes)} are kept in {kept_in}: "
        "run again to fetch the rest",
    )


def _length(part: BinaryIO) -> int:
    """Return the bytes downloaded so far."""
    return os.fstat(part.fileno()).st_size


def _ask(url: str, offset: int, patience: _Patience) -> HTTPResponse:
    """Send the request and wait for the head of the answer.

    The wait happens on a separate thread, because a name look-up has no time-out and can hang for minutes.
    """
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put(_follow(url, offset, patience.stall_s))
        except (OSError, HTTPException, ValueError, DownloadError) as error:
            outcome.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = outcome.get(timeout=patience.answer_s)
    except queue.Empty:
        raise DownloadError(url, f"no answer within {patience.answer_s:g} s", "Check the network") from None
    if isinstance(answer, HTTPResponse):
        return answer
    if isinstance(answer, DownloadError):
        raise answer
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        reason = f"the server answered {answer.code} {answer.reason}"
        if answer.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _CannotResumeError(reason)
    else:
        cause = getattr(answer, "reason", answer)
        reason = f"no connection: {getattr(cause, 'strerror', None) or cause}"
    raise DownloadError(url, reason, "Check the network, then try again") from answer


class _NotFollowed(urllib.request.HTTPRedirectHandler):
    """Returns a redirect unchanged."""

    def redirect_request(self, *_: Any) -> None:
        """Ask for nothing."""


def _opener() -> urllib.request.OpenerDirector:
    """Build an opener that speaks HTTP and nothing else: no files, no FTP, no data in an address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _NotFollowed(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _follow(url: str, offset: int, stall_s: float) -> HTTPResponse:
    """Send the request, and follow a few redirects."""
    headers = {"User-Agent": "fusetune", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    opener, address = _opener(), url
    for _ in range(_MOST_REDIRECTS + 1):
        if urllib.parse.urlsplit(address).scheme not in _SCHEMES:
            known = f"which is no address of {' or '.join(_SCHEMES)}"
            where = "the address" if address == url else "what the server sends us to"
            raise DownloadError(url, f"{where} is {address[:200]!r}, {known}", "Check the address")
        request = urllib.request.Request(address, headers=headers)
        try:
            answer: HTTPResponse = opener.open(request, timeout=stall_s)
            return answer
        except urllib.error.HTTPError as error:
            elsewhere = error.headers.get("Location") if error.code in _REDIRECTS else None
            if elsewhere is None:
                raise
            error.close()
            address = urllib.parse.urljoin(
                address, urllib.parse.quote(elsewhere, string.punctuation, "iso-8859-1")
            )
    raise DownloadError(
        url, f"the server sends us elsewhere more than {_MOST_REDIRECTS} times", "Try again later"
    )


def _start_of(answer: HTTPResponse, url: str, offset: int, size_bytes: int) -> int:
    """Return where in the file the answer starts: `offset` where the range was granted, else 0. Refuse another size."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            raise _CannotResumeError(
                f"the server sent another part of the file than asked for (byte {offset} on)"
            )
        start, announced = offset, match[2]
    else:
        start, announced = 0, answer.headers.get("Content-Length", "*")
    if announced not in ("*", str(size_bytes)):
        # Checked before a byte is written: a log-in page in the network's way must not overwrite what is kept.
        raise DownloadError(
            url,
            f"the server offers {announced} bytes and the file has {size_bytes}",
            "A log-in page may intercept the request, or the file has moved",
        )
    return start


def _copy(answer: HTTPResponse, part: BinaryIO, start: int, size_bytes: int, on_progress: Progress) -> None:
    """Write the answer's body into `part` from `start` on."""
    done = start
    part.truncate(start)
    part.seek(start)
    while done < size_bytes:
        try:
            piece = answer.read1(min(_CHUNK_BYTES, size_bytes - done))
        except (OSError, HTTPException) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from error
        if not piece:
            raise _BrokenOffError(f"the server closed it after {done} bytes")
        _write(part, piece)
        done += len(piece)
        on_progress(done, size_bytes)


def _write(part: BinaryIO, piece: bytes) -> None:
    """Write all of a piece, because a file without a buffer may take less at a time."""
    while piece:
        piece = piece[part.write(piece) :]


def _check(url: str, part: BinaryIO, path: Path, size_bytes: int, md5: str) -> None:
    """Remove the file and raise when its checksum is wrong."""
    found = _md5_of(part)
    if found != md5:
        path.unlink()
        raise DownloadError(
            url,
            f"wrong checksum: the {size_bytes} bytes have MD5 {found}, the published one is {md5}",
            "The file was removed: run again to fetch it afresh",
        )


def _put_in_place(part: BinaryIO, path: Path, target: Path) -> None:
    """Give the verified file its name. A file put there in the meantime gets no name."""
    ours, there = os.fstat(part.fileno()), os.lstat(path)
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise _in_the_way(path, "was replaced during the download")
    path.replace(target)


def _disk_error(url: str, target: Path, error: OSError) -> DownloadError:
    """Build the error of a disk that refuses the file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "Make room there" if full else "Make the directory writable"
    return DownloadError(
        url,
        f"{target} cannot be written ({error.strerror or error})",
        f"{hint}, or name another in BENCH_DATA",
    )
