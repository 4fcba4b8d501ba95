"""Owner and mode of all that leads to a file, links included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.kernels import trust
from fusetune.kernels.trust import distrust, read_trusted

ANOTHER = os.getuid() + 4321


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose parents, whatever they are here, are root's. What is made in it is closed to others."""
    place = tmp_path.resolve()
    pretend(monkeypatch, dict.fromkeys(place.parents, (0, 0o40755)))
    place.chmod(0o755)
    umask = os.umask(0o022)
    yield place
    os.umask(umask)


def pretend(monkeypatch: pytest.MonkeyPatch, known: dict[Path, tuple[int, int]]) -> None:
    """Have paths belong to a user and have a mode, whoever runs this."""
    real = trust._status

    def pretended(path: Path, handle: int | None = None) -> os.stat_result:
        found = [*real(path, handle)][:10]
        if path in known:
            found[4], found[0] = known[path]
        return os.stat_result(found)

    monkeypatch.setattr(trust, "_status", pretended)


def given_away(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Have paths belong to another user."""
    pretend(monkeypatch, {path: (ANOTHER, os.lstat(path).st_mode) for path in paths})


def why(path: Path) -> str | None:
    found = distrust(path)
    return found.why if found else None


def test_what_is_ones_own_is_trusted(place: Path) -> None:
    (place / "deep" / "er").mkdir(parents=True)
    assert why(place / "deep" / "er") is None
    assert why(place / "not" / "there") is None


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o757, 0o722])
@pytest.mark.parametrize("which", ["above", "above/below", "above/below/file"])
def test_a_place_on_the_way_that_others_can_write(mode: int, which: str, place: Path) -> None:
    (place / "above/below").mkdir(parents=True)
    (place / "above/below/file").touch(mode=0o600)
    assert why(place / "above/below/file") is None
    (place / which).chmod(mode)
    assert why(place / "above/below/file") == f"others can write to {place / which}"


@pytest.mark.parametrize("which", ["above", "above/below", "above/below/file"])
def test_a_place_on_the_way_of_another_user(which: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "above/below").mkdir(parents=True)
    (place / "above/below/file").touch(mode=0o600)
    given_away(monkeypatch, place / which)
    assert why(place / "above/below/file") == f"{place / which} belongs to another user"


def test_an_open_directory_with_the_sticky_bit_may_lead_there(place: Path) -> None:
    (place / "tmp" / "mine").mkdir(parents=True)
    (place / "tmp" / "mine").chmod(0o700)
    (place / "tmp").chmod(0o1777)
    assert why(place / "tmp" / "mine") is None
    assert why(place / "tmp") == f"others can write to {place}/tmp"  # anybody can make a file in it


def test_a_link_leads_to_what_it_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "open" / "closed").mkdir(parents=True)
    (place / "open" / "closed").chmod(0o755)
    for name, target in {"absolute": place / "open/closed", "relative": "open/../open/closed"}.items():
        (place / name).symlink_to(target)  # type: ignore[arg-type]
        (place / "open").chmod(0o755)
        assert why(place / name) is None
        (place / "open").chmod(0o777)
        assert why(place / name) == f"others can write to {place}/open"
    (place / "open").chmod(0o755)
    given_away(monkeypatch, place / "absolute")  # in /tmp, its owner could have it name another place
    assert why(place / "absolute") == f"{place}/absolute belongs to another user"


def test_links_in_a_circle_end(place: Path) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        distrust(place / "a")


def test_a_file_is_read_as_it_was_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "file"
    assert read_trusted(file) is None
    file.write_bytes(b"mine")
    file.chmod(0o600)
    assert read_trusted(file) == b"mine"
    (place / "link").symlink_to(file)
    os.mkfifo(place / "pipe", 0o600)
    for other in (place / "link", place / "pipe", place):
        with pytest.raises(OSError, match=r"Too many levels of symbolic links|not a regular file") as caught:
            read_trusted(other)
        assert not isinstance(caught.value, PermissionError)
    given_away(monkeypatch, file)
    with pytest.raises(PermissionError, match="belongs to another user"):
        read_trusted(file)


def test_nothing_stays_open(place: Path) -> None:
    (place / "file").touch(mode=0o600)
    (place / "open").touch()
    (place / "open").chmod(0o666)
    before = len(os.listdir("/proc/self/fd"))
    read_trusted(place / "file")
    for bad in (place, place / "open"):
        with pytest.raises(OSError, match=r"not a regular file|others can write"):
            read_trusted(bad)
    assert len(os.listdir("/proc/self/fd")) == before
