"""Entries on disk: whole or a miss with its reason, never another user's, and one notice for all that is damaged."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusetune.errors import InvalidValueError, StateError
from fusetune.kernels.autotune import (
    Entry,
    Miss,
    TuningKey,
    export_entries,
    import_entries,
    list_entries,
    read_entry,
    read_export,
    write_entry,
)


def miss(key: TuningKey) -> Miss:
    """What reading a key gives, which must be a miss."""
    found = read_entry(key)
    assert isinstance(found, Miss)
    return found


def test_what_is_written_is_read(cache: Path, entry: Entry) -> None:
    path = write_entry(entry)
    assert path.is_relative_to(cache / "copy")
    assert read_entry(entry.key) == entry
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_last_entry_of_a_key_counts(cache: Path, entry: Entry) -> None:
    write_entry(entry)
    write_entry(replace(entry, config={"BLOCK_SIZE": 256}))
    assert list_entries() == [replace(entry, config={"BLOCK_SIZE": 256})]


def test_entries_are_listed_by_kernel(cache: Path, entry: Entry) -> None:
    others = [
        replace(entry, key=replace(entry.key, kernel=name)) for name in ("gelu", "a/b", "a-b", "x" * 300, "")
    ]
    for each in (entry, *others):
        write_entry(each)
    assert sorted(each.key.kernel for each in list_entries()) == sorted(
        ["copy", "gelu", "a/b", "a-b", "x" * 300, ""]
    )
    assert list_entries("a/b") == [others[1]]
    assert list_entries("absent") == []


@pytest.mark.parametrize("part", [name for name in TuningKey.__dataclass_fields__ if name != "kernel"])
def test_a_miss_names_the_part_that_differs(part: str, cache: Path, entry: Entry) -> None:
    write_entry(entry)
    other = replace(entry.key, **{part: "another"})
    found = miss(other)
    assert found.differs == (part,)
    assert found.nearest == entry.key
    assert f"{part} ({getattr(entry.key, part)!r} there, 'another' here)" in found.reason


def test_a_miss_is_about_the_nearest_entry(cache: Path, entry: Entry) -> None:
    for device, triton in (("b", "3.9"), ("a CPU", "3.5"), ("c", "3.7.1")):
        write_entry(replace(entry, key=replace(entry.key, device=device, triton=triton)))
    assert miss(replace(entry.key, device="d", triton="3.5")).differs == ("device",)


def test_without_any_entry_a_miss_says_so(cache: Path, key: TuningKey) -> None:
    assert miss(key) == Miss("'copy' has no tuned launch config here.")
    assert not cache.exists()


def rewritten(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Change the JSON of an entry's file."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def link(path: Path) -> None:
    """Move the file and leave a link."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def pipe(path: Path) -> None:
    """Put a pipe in the place of the file."""
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    """Put a directory in the place of the file."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "another JSON": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "newer": rewritten(lambda content: content.update(format=2)),
    "a changed digit": rewritten(lambda content: content["entry"]["config"].update(BLOCK_SIZE=8192)),
    "no entry": rewritten(lambda content: content.pop("entry")),
    "others can write": lambda path: path.chmod(0o666),
    "a directory of others": lambda path: path.parent.chmod(0o777),
    "a link": link,
    "a directory": directory,
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_entry_is_a_miss_and_one_notice(damage: str, cache: Path, entry: Entry) -> None:
    other = replace(entry, key=replace(entry.key, size="2^4"))
    for each in (entry, other):
        DAMAGE[damage](write_entry(each))
        if damage == "a directory of others":
            break
    with pytest.warns(UserWarning, match="this tuned launch config is not used, because") as said:
        assert isinstance(read_entry(entry.key), Miss)
    assert len(said) == 1
    assert str(said[0].message).count(".\n") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(read_entry(entry.key), Miss)
        assert isinstance(read_entry(other.key), Miss)
        assert list_entries() == []


def test_an_entry_under_the_name_of_another_key_is_a_miss(cache: Path, entry: Entry) -> None:
    other = replace(entry, key=replace(entry.key, device="another"))
    write_entry(entry).replace(write_entry(other))
    with pytest.warns(UserWarning, match="it is about another device"):
        assert miss(other.key).differs == ("device",)


def test_a_damaged_entry_is_replaced(cache: Path, entry: Entry) -> None:
    write_entry(entry).write_text("{")
    write_entry(entry)
    assert read_entry(entry.key) == entry


@pytest.mark.parametrize("config", [{}, {"BLOCK_SIZE": 1.5}, {"BLOCK_SIZE": True}, {"BLOCK SIZE": 1}, None])
def test_what_is_no_launch_config_is_not_written(config: Any, cache: Path, entry: Entry) -> None:
    with pytest.raises(InvalidValueError, match="launch config of 'copy'"):
        write_entry(replace(entry, config=config))
    assert list_entries() == []


def test_abandoned_files_are_removed_and_young_ones_stay(cache: Path, entry: Entry) -> None:
    folder = write_entry(entry).parent
    old, young = folder / ".a.1-2.unfinished", folder / ".b.1-2.unfinished"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    write_entry(entry)
    assert not old.exists()
    assert young.exists()


def test_no_home(cache: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where it knows no home
    assert "HOME is not set" in miss(entry.key).reason
    assert list_entries() == []
    with pytest.raises(StateError, match=r"HOME is not set .* Set HOME or XDG_CACHE_HOME"):
        write_entry(entry)


def test_a_cache_that_others_can_change_is_not_written(cache: Path, entry: Entry) -> None:
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o777)
    with pytest.raises(StateError, match=r"others can write to .*autotune"):
        write_entry(entry)
    assert list(cache.parent.iterdir()) == []


def test_a_file_in_the_way(cache: Path, entry: Entry) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.touch(mode=0o600)
    assert isinstance(read_entry(entry.key), Miss)
    with pytest.raises(StateError, match=r"autotune is not a directory"):
        write_entry(entry)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_or_read_only_disk_is_one_sentence_and_keeps_the_old_entry(
    call: str, number: int, cache: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_entry(entry)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StateError, match=rf"cannot be written \({os.strerror(number)}\)"):
            write_entry(replace(entry, rounds=99))
    assert read_entry(entry.key) == entry
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_disk_with_no_room_for_a_file(cache: Path, entry: Entry, tmp_path: Path) -> None:
    """The system itself refuses to let the file grow, in another process."""
    write_entry(entry)
    program = (
        "import resource, signal, sys\n"
        "from dataclasses import replace\n"
        "from fusetune.errors import StateError\n"
        "from fusetune.kernels.autotune import list_entries, write_entry\n"
        "entry, = list_entries()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    write_entry(replace(entry, rounds=99))\n"
        "except StateError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100
    assert "cannot be written (File too large)" in done.stderr.splitlines()[-1]
    assert list_entries() == [entry]


def test_two_versions_of_the_kernels_at_once(cache: Path, entry: Entry) -> None:
    """Each reads what it wrote itself."""
    newer = replace(entry, key=replace(entry.key, source="2c3d"), config={"BLOCK_SIZE": 512})
    for each in (entry, newer, entry):
        write_entry(each)
    assert read_entry(entry.key) == entry
    assert read_entry(newer.key) == newer


def test_another_format_is_neither_read_nor_touched(cache: Path, entry: Entry) -> None:
    theirs = cache.parent / "2" / "copy" / write_entry(entry).name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("of a newer version")
    write_entry(entry)
    assert list_entries() == [entry]
    assert theirs.read_text() == "of a newer version"


def test_an_export_is_imported_elsewhere(
    cache: Path, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(entry, key=replace(entry.key, kernel="gelu"), speedup=None, latency_s=None)
    for each in (entry, other):
        write_entry(each)
    assert export_entries(tmp_path / "tuned.json") == 2
    first = (tmp_path / "tuned.json").read_bytes()
    export_entries(tmp_path / "tuned.json", reversed(list_entries()))
    assert (tmp_path / "tuned.json").read_bytes() == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert set(import_entries(tmp_path / "tuned.json").added) == {entry.key, other.key}
    assert list_entries() == [entry, other]
    again = import_entries(tmp_path / "tuned.json")
    assert (again.added, again.replaced, len(again.kept)) == ((), (), 2)


@pytest.mark.parametrize(
    ("theirs_s", "ours_s", "fate"),
    [
        (1.0, 2.0, "replaced"),
        (2.0, 1.0, "kept"),
        (1.0, 1.0, "kept"),
        (1.0, None, "replaced"),
        (None, 1.0, "kept"),
    ],
)
def test_the_faster_one_of_two_entries_stays(
    theirs_s: float | None, ours_s: float | None, fate: str, cache: Path, entry: Entry, tmp_path: Path
) -> None:
    theirs = replace(entry, config={"BLOCK_SIZE": 512}, latency_s=theirs_s)
    export_entries(tmp_path / "tuned.json", [theirs])
    ours = replace(entry, latency_s=ours_s)
    write_entry(ours)
    assert getattr(import_entries(tmp_path / "tuned.json"), fate) == (entry.key,)
    assert read_entry(entry.key) == (theirs if fate == "replaced" else ours)


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)"),
    "no JSON": (lambda path: path.write_text("what: tuned"), "is not JSON"),
    "no text": (lambda path: path.write_bytes(b"\xff"), "is not JSON"),
    "foreign": (
        lambda path: path.write_text('{"entries": []}'),
        "holds no tuned launch configs of fusetune's",
    ),
    "newer": (
        rewritten(lambda content: content.update(format=2)),
        "has the format 2; this version of fusetune reads format 1. Export it again by this version, or install",
    ),
    "no list": (rewritten(lambda content: content.update(entries={})), "has no list of entries"),
    "another part": (
        rewritten(lambda content: content["entries"][1]["key"].update(moon="full")),
        "entry 2 is damaged: tuning key: 'moon' is missing, unknown or no text",
    ),
    "no config": (rewritten(lambda content: content["entries"][1].update(config={})), "entry 2 is damaged"),
    "no key": (rewritten(lambda content: content["entries"][1].update(key="copy")), "entry 2 is damaged"),
    "a time of 0": (
        rewritten(lambda content: content["entries"][1].update(latency_s=0)),
        "a time of it is not",
    ),
    "a text as time": (
        rewritten(lambda content: content["entries"][1].update(latency_s="1")),
        "a time of it",
    ),
    "speedup": (rewritten(lambda content: content["entries"][1].update(speedup=2)), "has not three numbers"),
    "rounds": (rewritten(lambda content: content["entries"][1].update(rounds="2")), "has another type"),
    "a list": (
        rewritten(lambda content: content["entries"].__setitem__(1, [])),
        "other fields than an entry",
    ),
}


@pytest.mark.parametrize("case", list(FOREIGN))
def test_a_foreign_export_is_one_sentence_and_imports_nothing(
    case: str, cache: Path, entry: Entry, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.json"
    export_entries(path, [entry, replace(entry, key=replace(entry.key, size="2^4"))])
    damage, said = FOREIGN[case]
    damage(path)
    with pytest.raises(InvalidValueError, match=said) as error:
        import_entries(path)
    assert error.value.where == str(path)
    assert list_entries() == []


def test_an_export_to_nowhere(cache: Path, entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(
        StateError, match=r"cannot be written \(No such file or directory\). Name another file"
    ):
        export_entries(tmp_path / "absent" / "tuned.json", [entry])


def test_an_export_can_be_read_by_others(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    export_entries(tmp_path / "tuned.json", [entry])
    assert (tmp_path / "tuned.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert read_export(tmp_path / "tuned.json") == [entry]
