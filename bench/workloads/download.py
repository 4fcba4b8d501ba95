"""Fetch one file of known size and checksum: with progress, resumed where it stopped, in place only when right."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import queue
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from bench.errors import InputError
from bench.units import format_bytes

Progress = Callable[[int, int], None]

_CHUNK_BYTES = 1 << 18
_RETRIES_WITHOUT_PROGRESS = 1
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadError(InputError):
    """The file at `url` could not be fetched, for a `reason` that fits into a sentence; `advice` is one of its own."""

    def __init__(self, url: str, reason: str, advice: str) -> None:
        super().__init__(url, reason, advice)
        self.reason = reason

    def __str__(self) -> str:
        url, reason, advice = self.args
        return f"{url}: {reason}. {advice}"


class _BrokenOffError(Exception):
    """The transfer stopped in the middle; asking for the rest may help."""


class _CannotResumeError(Exception):
    """The server does not go on where we stopped; asking for the whole file may help."""


def download(
    url: str,
    target: Path,
    *,
    size_bytes: int,
    md5: str,
    on_progress: Progress | None = None,
    answer_within_s: float = 8.0,
    stall_s: float = 30.0,
) -> Path:
    """Fetch `url` into `target`, unless it is there already.

    The bytes go to `<target>.part` first, which survives an interruption: the next call asks for the rest only
    (a Range request) and starts over where the server does not grant that. The file gets its name once size and
    checksum are right. Of several processes one fetches and the others wait for it (a lock on `<target>.lock`).
    Proxies are taken from the environment (`https_proxy` and so on).

    Args:
        url: http or https address.
        target: where the file goes; its directory is made.
        size_bytes: the file's exact size.
        md5: the file's MD5 checksum in hexadecimal; it guards against damage, not against malice.
        on_progress: called as f(done_bytes, size_bytes) from this thread after every piece.
        answer_within_s: the longest wait for an answer, name look-up and connection included.
        stall_s: the longest silence in the middle of a transfer.

    Returns:
        `target`.

    Mutates:
        The files `target`, `<target>.part` and `<target>.lock`.

    Raises:
        DownloadError: offline, refused, no such file, another size than expected, a wrong checksum (both sums are
            named and the file is removed), or a disk that is full or not writable.
        KeyboardInterrupt: passes through; what has been fetched is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = Path(directory, "a.txt").write_bytes(b"abc")
        ...     download("http://example.invalid/a.txt", Path(directory, "a.txt"), size_bytes=3, md5="unused").name
        'a.txt'
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target):
            if not target.exists():
                part = target.with_name(target.name + ".part")
                _fetch(url, part, size_bytes, on_progress or _silent, answer_within_s, stall_s)
                _check(url, part, size_bytes, md5)
                part.replace(target)
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
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Hold the lock of `target`; the operating system lets go of it when a process dies."""
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _silent(_done_bytes: int, _size_bytes: int) -> None:
    """Report nothing."""


def _fetch(
    url: str, part: Path, size_bytes: int, on_progress: Progress, answer_within_s: float, stall_s: float
) -> None:
    """Fill `part` up to its full size; a broken transfer is taken up again as long as it gets further."""
    retries = _RETRIES_WITHOUT_PROGRESS
    while (before := _length(part)) != size_bytes:
        if before > size_bytes:
            part.unlink()
            continue
        try:
            with _ask(url, before, answer_within_s, stall_s) as answer:
                start = _start_of(answer, url, before, size_bytes)
                _copy(answer, part, start, size_bytes, on_progress)
        except _CannotResumeError as error:
            if before == 0:
                raise DownloadError(url, str(error), "Try again later") from error
            part.unlink()
        except _BrokenOffError as error:
            retries = retries - 1 if _length(part) <= before else _RETRIES_WITHOUT_PROGRESS
            if retries < 0:
                raise DownloadError(
                    url,
                    f"the transfer broke off ({error})",
                    f"{format_bytes(_length(part))} of {format_bytes(size_bytes)} are kept in {part}: "
                    "run again to fetch the rest",
                ) from error


def _length(part: Path) -> int:
    """Bytes fetched so far."""
    return part.stat().st_size if part.exists() else 0


def _ask(url: str, offset: int, answer_within_s: float, stall_s: float) -> HTTPResponse:
    """Send the request and wait for the head of the answer.

    The waiting is done on a thread of its own, because a name look-up has no time-out and may hang for minutes.
    """
    headers = {"User-Agent": "fusetune", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put(urllib.request.urlopen(request, timeout=stall_s))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = outcome.get(timeout=answer_within_s)
    except queue.Empty:
        raise DownloadError(url, f"no answer within {answer_within_s:g} s", "Check the network") from None
    if isinstance(answer, HTTPResponse):
        return answer
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        reason = f"the server answered {answer.code} {answer.reason}"
        if answer.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _CannotResumeError(reason)
    else:
        cause = getattr(answer, "reason", answer)
        reason = f"no connection: {getattr(cause, 'strerror', None) or cause}"
    raise DownloadError(url, reason, "Check the network, then try again") from answer


def _start_of(answer: HTTPResponse, url: str, offset: int, size_bytes: int) -> int:
    """Where in the file the answer starts: `offset` where the range was granted, else 0. Refuse another size."""
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
            "A log-in page may stand in the network's way, or the file has moved",
        )
    return start


def _copy(answer: HTTPResponse, part: Path, start: int, size_bytes: int, on_progress: Progress) -> None:
    """Write the answer's body into `part` from `start` on."""
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while done < size_bytes:
            try:
                piece = answer.read1(min(_CHUNK_BYTES, size_bytes - done))
            except (OSError, HTTPException) as error:
                raise _BrokenOffError(str(error) or type(error).__name__) from error
            if not piece:
                raise _BrokenOffError(f"the server closed it after {done} bytes")
            file.write(piece)
            done += len(piece)
            on_progress(done, size_bytes)


def _check(url: str, part: Path, size_bytes: int, md5: str) -> None:
    """Remove the file and say so when its checksum is wrong."""
    found = md5_of(part)
    if found != md5:
        part.unlink()
        raise DownloadError(
            url,
            f"wrong checksum: the {size_bytes} bytes have MD5 {found}, the published one is {md5}",
            "The file was removed: run again to fetch it afresh",
        )


def _disk_error(url: str, target: Path, error: OSError) -> DownloadError:
    """Build the error of a disk that does not take the file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Make room there" if full else "Make the directory writable"
    return DownloadError(
        url,
        f"{target} cannot be written ({error.strerror or error})",
        f"{hint}, or name another in BENCH_DATA",
    )
