"""torch.compile's code is kept where only this user can write."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from fusetune.bench.user_cache import user_cache
from fusetune.bench.workers import compile_cache
from fusetune.bench.workers.compile_cache import (
    VARIABLE,
    keep_compiled_code_private,
    keep_headers_private,
    private_directory,
)
from fusetune.kernels import trust


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose parents, whatever they are here, are root's, with the user's cache in it."""
    place, real = tmp_path.resolve(), trust._status

    def pretended(path: Path, handle: int | None = None) -> os.stat_result:
        found = [*real(path, handle)][:10]
        if path in place.parents:
            found[0], found[4] = 0o40755, 0
        return os.stat_result(found)

    monkeypatch.setattr(trust, "_status", pretended)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(compile_cache.tempfile, "tempdir", None)  # type: ignore[attr-defined]
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back
    monkeypatch.setattr("fusetune.kernels.private_directory._temporary", {})
    return place


def test_it_is_in_the_users_cache_and_closed(place: Path) -> None:
    keep_compiled_code_private()
    assert os.environ[VARIABLE] == str(place / "cache/fusetune/torch")
    assert (place / "cache/fusetune/torch").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_the_user_names_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(place / "mine"))
    keep_compiled_code_private()
    assert os.environ[VARIABLE] == str(place / "mine")


@pytest.mark.parametrize("mode", [0o775, 0o777])
def test_a_directory_that_others_can_write_is_not_used(
    mode: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "theirs").mkdir()
    (place / "theirs").chmod(mode)
    monkeypatch.setenv(VARIABLE, str(place / "theirs"))
    assert private_directory() == place / "cache/fusetune/torch"
    assert list((place / "theirs").iterdir()) == []
    (place / "cache").chmod(mode)
    assert private_directory().parent == place
    assert private_directory().name.startswith("fusetune-torch-")
    assert private_directory().stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_and_no_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "cache").touch(mode=0o600)
    assert private_directory().name.startswith("fusetune-torch-")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where it knows no home
    assert user_cache() is None
    assert private_directory().name.startswith("fusetune-torch-")


def test_headers_stay_where_torch_puts_them_closed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "a/b")
    keep_headers_private()
    assert (place / "torchinductor_a_b").stat().st_mode & 0o777 == 0o700
    assert os.environ["TMPDIR"] == str(place)


def test_headers_are_not_kept_where_another_was_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    (place / "torchinductor_me").mkdir()
    (place / "torchinductor_me").chmod(0o777)
    keep_headers_private()
    assert tempfile.gettempdir() == os.environ["TMPDIR"]
    assert Path(tempfile.gettempdir()).name.startswith("fusetune-torch-")
    assert list((place / "torchinductor_me").iterdir()) == []


def test_headers_of_a_user_without_a_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "")  # so that it is put back
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    keep_headers_private()
    assert (place / f"torchinductor_uid_{os.getuid()}").is_dir()
