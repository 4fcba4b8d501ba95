"""CIFAR-10 from small files in the true format, and from archives that mean harm."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.workloads import cifar10
from fusetune.bench.workloads.cifar10 import ARCHIVE, FILES, FOLDER, PUBLISHED, Release
from fusetune.bench.workloads.download import DownloadError, md5_of

ROWS = 20
SMALL = replace(PUBLISHED, rows_per_file=ROWS)


def file_bytes(index: int) -> bytes:
    """One small file: row r has label r % 10, red `index`, green r, blue 200."""
    table = np.empty((ROWS, 3073), np.uint8)
    table[:, 0] = np.arange(ROWS) % 10
    table[:, 1:1025] = index
    table[:, 1025:2049] = np.arange(ROWS)[:, None]
    table[:, 2049:] = 200
    return table.tobytes()


CONTENTS = {f"{FOLDER}/{name}": file_bytes(i) for i, name in enumerate(FILES)}


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / Path(name).name).write_bytes(content)
    return folder


def write_archive(
    path: Path, contents: dict[str, bytes], edit: Callable[[tarfile.TarFile], None] | None = None
) -> Path:
    """Write a gzipped tar; `edit` may add members first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        if edit is not None:
            edit(tar)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def release_of(archive: Path) -> Release:
    """The release that this archive is."""
    return replace(SMALL, archive_bytes=archive.stat().st_size, md5=md5_of(archive))


def tree(directory: Path) -> set[str]:
    """Every path below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a current directory and a $BENCH_DATA of the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_published_numbers_agree_with_the_format() -> None:
    assert PUBLISHED.file_bytes == 30_730_000
    assert (PUBLISHED.archive_bytes, PUBLISHED.md5) == (170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")


def test_rows_are_a_label_and_three_planes(tmp_path: Path) -> None:
    x_train, y_train, x_test, y_test = cifar10.read_cifar10(write_folder(tmp_path / FOLDER), SMALL)
    assert x_train.shape == (5 * ROWS, 3, 32, 32)
    assert x_test.shape == (ROWS, 3, 32, 32)
    assert x_train.dtype == np.uint8
    assert y_train.dtype == y_test.dtype == np.int64
    row = 2 * ROWS + 7  # row 7 of data_batch_3.bin
    assert [set(plane.ravel()) for plane in x_train[row]] == [{2}, {7}, {200}]
    assert y_train[row] == 7
    assert set(x_test[:, 0].ravel()) == {5}
    np.testing.assert_array_equal(y_test, np.arange(ROWS) % 10)


@pytest.mark.parametrize("change", [-1, 1, -3073])
def test_a_file_of_another_size_is_refused_by_name(tmp_path: Path, change: int) -> None:
    folder = write_folder(tmp_path / FOLDER)
    content = (folder / "data_batch_4.bin").read_bytes() + b"x"
    (folder / "data_batch_4.bin").write_bytes(content[: len(content) - 1 + change])
    with pytest.raises(
        InputError, match=rf"data_batch_4\.bin: has {SMALL.file_bytes + change} bytes; must have"
    ):
        cifar10.read_cifar10(folder, SMALL)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / FOLDER)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(InputError, match=r"test_batch\.bin: is missing"):
        cifar10.read_cifar10(folder, SMALL)


def test_a_label_above_nine_is_refused_with_its_row(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / FOLDER)
    content = bytearray((folder / "data_batch_2.bin").read_bytes())
    content[3 * 3073] = 10
    (folder / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"data_batch_2\.bin: row 3 has label 10; labels are 0 to 9"):
        cifar10.read_cifar10(folder, SMALL)


def test_directories_are_searched_in_order_and_folders_before_archives(places: Path) -> None:
    assert cifar10.find_cifar10() is None
    write_archive(places / "named" / ARCHIVE, CONTENTS)
    assert cifar10.find_cifar10() == places / "named" / ARCHIVE
    write_folder(places / "cache" / "fusetune" / FOLDER)
    assert cifar10.find_cifar10() == places / "cache" / "fusetune" / FOLDER
    write_folder(places / "work" / "data" / FOLDER)
    assert cifar10.find_cifar10() == Path("data") / FOLDER
    write_folder(places / "named" / FOLDER)
    assert cifar10.find_cifar10() == places / "named" / FOLDER


def test_an_archive_is_unpacked_beside_itself(places: Path) -> None:
    archive = write_archive(places / "work" / "data" / ARCHIVE, CONTENTS)
    folder = cifar10.obtain_cifar10(allow_download=False, release=release_of(archive))
    assert folder == Path("data") / FOLDER
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        Path(name).name: content for name, content in CONTENTS.items()
    }
    assert tree(places / "work" / "data") == {ARCHIVE, FOLDER, *CONTENTS}


def test_absent_and_not_to_be_downloaded_is_none(places: Path) -> None:
    assert cifar10.obtain_cifar10(allow_download=False) is None
    assert tree(places) == {"work"}


def test_a_download_goes_to_the_named_directory_and_is_unpacked(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_of(write_archive(places / "origin.tar.gz", CONTENTS))
    asked: list[tuple[str, int, str]] = []

    def fetch(url: str, target: Path, *, size_bytes: int, md5: str, on_progress: object) -> Path:
        asked.append((url, size_bytes, md5))
        target.parent.mkdir(parents=True)
        return (places / "origin.tar.gz").rename(target)

    monkeypatch.setattr(cifar10, "download", fetch)
    assert cifar10.obtain_cifar10(release=release) == places / "named" / FOLDER
    assert asked == [(PUBLISHED.url, release.archive_bytes, release.md5)]
    assert cifar10.obtain_cifar10(release=release) == places / "named" / FOLDER
    assert len(asked) == 1


def test_a_failed_download_says_why(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, *_arguments: object, **_options: object) -> Path:
        raise DownloadError(url, "no connection", "Check the network")

    monkeypatch.setattr(cifar10, "download", fail)
    with pytest.raises(DownloadError, match="no connection"):
        cifar10.obtain_cifar10()


def test_an_archive_that_is_not_the_published_one_is_refused(places: Path) -> None:
    archive = write_archive(places / "named" / ARCHIVE, CONTENTS)
    release = release_of(archive)
    with pytest.raises(InputError, match="wrong checksum; it has MD5"):
        cifar10.obtain_cifar10(release=replace(release, md5="0" * 32))
    with pytest.raises(InputError, match="the published archive has 170052171"):
        cifar10.obtain_cifar10()
    assert tree(places / "named") == {ARCHIVE}


def test_an_archive_in_a_read_only_directory_is_unpacked_into_the_cache(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(places / "named" / ARCHIVE, CONTENTS)
    monkeypatch.setattr(
        "os.access", lambda path, _mode: Path(path) != archive.parent
    )  # root may write anywhere
    assert cifar10.unpack(archive, SMALL) == places / "cache" / "fusetune" / FOLDER
    assert tree(places / "named") == {ARCHIVE}


def add_traversal(tar: tarfile.TarFile) -> None:
    for name in (f"../{FOLDER}/data_batch_1.bin", "../escaped.bin", f"{FOLDER}/../../escaped.bin"):
        member = tarfile.TarInfo(name)
        member.size = SMALL.file_bytes
        tar.addfile(member, io.BytesIO(b"\1" * SMALL.file_bytes))


def add_absolute(outside: Path) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(str(outside / "escaped.bin"))
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))

    return add


def add_link(kind: bytes, name: str, target: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return add


def add_huge(tar: tarfile.TarFile) -> None:
    member = tarfile.TarInfo(f"{FOLDER}/data_batch_1.bin")
    member.size = 40_000_000
    tar.addfile(member, io.BytesIO(bytes(member.size)))


def test_members_with_other_names_are_never_written(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def add(tar: tarfile.TarFile) -> None:
        add_traversal(tar)
        add_absolute(outside)(tar)
        add_link(tarfile.SYMTYPE, "sneaky", str(outside))(tar)
        add_link(tarfile.SYMTYPE, FOLDER, str(outside))(tar)  # the folder itself as a link to elsewhere

    archive = write_archive(tmp_path / "deep" / "in" / ARCHIVE, CONTENTS, add)
    folder = cifar10.unpack(archive, SMALL)
    cifar10.check_files(folder, SMALL)
    assert (folder / "data_batch_1.bin").read_bytes() == CONTENTS[f"{FOLDER}/data_batch_1.bin"]
    assert not folder.is_symlink()
    assert tree(outside) == set()
    assert tree(tmp_path / "deep") == {
        "in", f"in/{ARCHIVE}", f"in/{FOLDER}", *(f"in/{name}" for name in CONTENTS)
    }  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        add_link(tarfile.SYMTYPE, f"{FOLDER}/data_batch_1.bin", "/etc/passwd"),
        add_link(tarfile.LNKTYPE, f"{FOLDER}/data_batch_1.bin", f"{FOLDER}/data_batch_2.bin"),
        add_link(tarfile.FIFOTYPE, f"{FOLDER}/data_batch_1.bin", ""),
        add_link(tarfile.DIRTYPE, f"{FOLDER}/data_batch_1.bin", ""),
        add_huge,
    ],
    ids=["symbolic link", "hard link", "pipe", "directory", "huge"],
)
def test_a_known_name_that_is_no_file_of_the_right_size_is_refused(
    tmp_path: Path, edit: Callable[[tarfile.TarFile], None]
) -> None:
    archive = write_archive(tmp_path / ARCHIVE, CONTENTS, edit)
    with pytest.raises(InputError, match=rf"data_batch_1\.bin is not a file of {SMALL.file_bytes} bytes"):
        cifar10.unpack(archive, SMALL)
    assert tree(tmp_path) == {ARCHIVE}


def test_an_archive_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    contents = {name: content for name, content in CONTENTS.items() if "test" not in name}
    with pytest.raises(InputError, match=rf"lacks {FOLDER}/test_batch\.bin"):
        cifar10.unpack(write_archive(tmp_path / ARCHIVE, contents), SMALL)
    assert tree(tmp_path) == {ARCHIVE}


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9])
def test_an_archive_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    archive = write_archive(tmp_path / ARCHIVE, CONTENTS)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(InputError, match="is not a whole gzipped tar archive"):
        cifar10.unpack(archive, SMALL)
    assert tree(tmp_path) == {ARCHIVE}


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / ARCHIVE, CONTENTS)
    content = bytearray(archive.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(InputError):
        cifar10.unpack(archive, SMALL)
    assert tree(tmp_path) == {ARCHIVE}


def test_two_that_unpack_at_once_find_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_archive(tmp_path / ARCHIVE, CONTENTS)
    both = threading.Barrier(2)
    rename = Path.rename

    def rename_together(self: Path, target: Path) -> Path:
        both.wait(10)  # both have unpacked before either renames
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_together)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(cifar10.unpack(archive, SMALL))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / FOLDER] * 2
    cifar10.check_files(tmp_path / FOLDER, SMALL)
    assert tree(tmp_path) == {ARCHIVE, FOLDER, *CONTENTS}
