"""CIFAR-10 in its binary version: find it on this machine or download it, unpack it, read it.

A row of a file is one byte of label and 3 x 32 x 32 bytes of pixels, channel by channel. The Python version of the
data set is never read, because it is a pickle, which can run any code.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusetune.bench.errors import InputError
from fusetune.bench.user_cache import NO_HOME, user_cache
from fusetune.bench.workloads.download import DownloadError, Progress, download, md5_of

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
NUM_CLASSES = 10
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
FILES = (*TRAIN_FILES, TEST_FILE)

_SHAPE = (3, 32, 32)
_ROW_BYTES = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """The published archive: where it is, how large, its checksum, and the rows in each of its files."""

    url: str
    archive_bytes: int
    md5: str
    rows_per_file: int

    @property
    def file_bytes(self) -> int:
        """The exact size of each unpacked file."""
        return self.rows_per_file * _ROW_BYTES


PUBLISHED = Release(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    archive_bytes=170_052_171,
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    rows_per_file=10_000,
)


def search_directories() -> list[Path]:
    """Where data is looked for, in order: `$BENCH_DATA`, `data/` in the current directory, the user's cache."""
    named = os.environ.get("BENCH_DATA")
    cache = user_cache()
    return [*([Path(named)] if named else []), Path("data"), *([cache] if cache else [])]


def find_cifar10() -> Path | None:
    """Return the unpacked folder, or the archive, in the first search directory with one. None where none has.

    Nothing is opened. A damaged copy is found too, and `obtain_cifar10` reports the damage.
    """
    directories = search_directories()
    for name, exists in ((FOLDER, Path.is_dir), (ARCHIVE, Path.is_file)):
        for directory in directories:
            if exists(directory / name):
                return directory / name
    return None


def obtain_cifar10(
    *, allow_download: bool = True, on_progress: Progress | None = None, release: Release = PUBLISHED
) -> Path | None:
    """Find the data set or download it, and unpack it where needed.

    Args:
        allow_download: whether the archive may be downloaded, into `$BENCH_DATA` or else the user's cache.
        on_progress: called as f(done_bytes, size_bytes) during the download.
        release: the expected files. Tests use another one.

    Returns:
        The folder with the six files, each of the right size. None where it is not on this machine and may not be
        downloaded.

    Raises:
        DownloadError: it could not be downloaded.
        InputError: a copy was found that is damaged or incomplete, or there is no room to unpack it.
    """
    found = find_cifar10()
    if found is None:
        if not allow_download:
            return None
        target = Path(os.environ.get("BENCH_DATA") or _cache(release)) / ARCHIVE
        found = download(
            release.url, target, size_bytes=release.archive_bytes, md5=release.md5, on_progress=on_progress
        )
    if found.name == FOLDER:
        check_files(found, release)
        return found
    check_archive(found, release)
    return unpack(found, release)


def _cache(release: Release) -> Path:
    if (cache := user_cache()) is None:
        reason = f"there is no directory to put it in, as {NO_HOME}"
        raise DownloadError(release.url, reason, "Name a directory in BENCH_DATA")
    return cache


def check_files(folder: Path, release: Release = PUBLISHED) -> None:
    """Raise InputError when one of the six files is missing or has another size than it must."""
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise InputError(
                path,
                "is missing",
                f"{FOLDER} has {', '.join(FILES)}",
                f"Unpack {ARCHIVE} again, or remove the folder",
            )
        size = path.stat().st_size
        if size != release.file_bytes:
            raise InputError(
                path,
                f"has {size} bytes",
                f"must have {release.file_bytes}",
                f"Unpack {ARCHIVE} again, or remove the folder",
            )


def check_archive(archive: Path, release: Release = PUBLISHED) -> None:
    """Raise InputError when an archive that was found is not the published one, byte for byte."""
    size = archive.stat().st_size
    if size != release.archive_bytes:
        raise InputError(
            archive,
            f"has {size} bytes",
            f"the published archive has {release.archive_bytes}",
            f"Remove it, or fetch it again from {release.url}",
        )
    found = md5_of(archive)
    if found != release.md5:
        raise InputError(
            archive,
            "wrong checksum",
            f"it has MD5 {found}, the published archive {release.md5}",
            f"Remove it, or fetch it again from {release.url}",
        )


def unpack(archive: Path, release: Release = PUBLISHED) -> Path:
    """Copy the six known files out of the archive, into a folder beside it (in the user's cache if that is read-only).

    The archive's own paths, links and sizes are not trusted. A member counts only with its exact name, as a regular
    file of the right size. Its bytes are copied to a name of ours in a temporary directory, which is then renamed in
    one step. Two processes may do this at once: one wins, and both find the same files.

    Returns:
        The folder.

    Raises:
        InputError: not a gzipped tar archive, a member that is missing or wrong, or no room to unpack it.
    """
    try:
        directory = archive.parent if os.access(archive.parent, os.W_OK) else _cache(release)
        directory.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=directory))
        try:
            _copy_members(archive, temporary, release)
            temporary.chmod(0o755)
            return _put_in_place(temporary, directory / FOLDER, release)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            archive, "is not a whole gzipped tar archive", str(error), f"Fetch it again from {release.url}"
        ) from error
    except OSError as error:
        raise InputError(
            archive, "cannot be unpacked", str(error), "Make room, or name another directory in BENCH_DATA"
        ) from error


def _copy_members(archive: Path, folder: Path, release: Release) -> None:
    wanted = {f"{FOLDER}/{name}": name for name in FILES}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = wanted.get(member.name)
            if name is None:
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.size != release.file_bytes:
                raise InputError(
                    archive,
                    f"{member.name} is not a file of {release.file_bytes} bytes",
                    "the archive is not the published one",
                    f"Fetch it again from {release.url}",
                )
            with content, (folder / name).open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            del wanted[member.name]
            if not wanted:
                return
    raise InputError(
        archive,
        f"lacks {', '.join(sorted(wanted))}",
        "the archive is not the published one",
        f"Fetch it again from {release.url}",
    )


def _put_in_place(temporary: Path, folder: Path, release: Release) -> Path:
    """Rename `temporary` to `folder`, or use the folder that another process has put there in the meantime."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        check_files(folder, release)
    return folder


def read_cifar10(
    folder: Path, release: Release = PUBLISHED
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read the six files.

    Args:
        folder: the directory `cifar-10-batches-bin`.
        release: the expected files. Tests use another one.

    Returns:
        x_train, y_train, x_test, y_test: x is uint8 (N, 3, 32, 32) in red, green, blue. y is int64, 0..9.

    Memory:
        184 MB for the images, and one file of 31 MB while it is read.

    Raises:
        InputError: a file that is missing, cut short, or has a label above 9.
    """
    check_files(folder, release)
    rows = release.rows_per_file
    x_train = np.empty((rows * len(TRAIN_FILES), *_SHAPE), dtype=np.uint8)
    y_train = np.empty(rows * len(TRAIN_FILES), dtype=np.int64)
    for i, name in enumerate(TRAIN_FILES):
        part = slice(i * rows, (i + 1) * rows)
        x_train[part], y_train[part] = _read_file(folder / name)
    x_test, y_test = _read_file(folder / TEST_FILE)
    return x_train, y_train, np.ascontiguousarray(x_test), y_test.astype(np.int64)


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one file, as views of its bytes."""
    try:
        table = np.fromfile(path, dtype=np.uint8).reshape(-1, _ROW_BYTES)
    except OSError as error:
        raise InputError(path, "cannot be read", str(error), f"Unpack {ARCHIVE} again") from error
    labels = table[:, 0]
    wrong = np.flatnonzero(labels >= NUM_CLASSES)
    if wrong.size:
        raise InputError(
            path,
            f"row {wrong[0]} has label {labels[wrong[0]]}",
            f"labels are 0 to {NUM_CLASSES - 1}",
            f"The file is damaged: unpack {ARCHIVE} again",
        )
    return table[:, 1:].reshape(-1, *_SHAPE), labels
