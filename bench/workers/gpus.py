"""The GPUs of this machine, as processes see them, and a lock on each against other runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> tuple[str, ...]:
    """Return what `CUDA_VISIBLE_DEVICES` calls each GPU that torch finds here. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return ()
    count = torch.cuda.device_count()
    given = [part.strip() for part in os.environ.get(_VISIBLE, "").split(",") if part.strip()]
    return tuple(given[:count]) if len(given) >= count else tuple(map(str, range(count)))


def gpu_uuids() -> tuple[str, ...]:
    """Return the UUID of each GPU that torch finds here, as the driver writes it. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(f"GPU-{properties.uuid}" for properties in found)


def show_gpus(visible: str | None) -> None:
    """Let this process see some GPUs alone. Call it before torch asks for them.

    Args:
        visible: as for `CUDA_VISIBLE_DEVICES`. None: as it is.

    Mutates: os.environ.
    """
    if visible is not None:
        os.environ[_VISIBLE] = visible


class DeviceLock:
    """An exclusive lock on a device of this machine, against other runs of this project. It ends with the process.

    Args:
        device_id: the UUID of a GPU, or another name that is unique on this machine.
        directory: of the lock files, on a file system of this machine alone. Default: in the temporary directory.

    Example:
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     first, second = DeviceLock("GPU-1", Path(directory)), DeviceLock("GPU-1", Path(directory))
        ...     taken = first.acquire(), second.acquire()
        ...     first.release()
        ...     taken, second.acquire()
        ((True, False), True)
    """

    def __init__(self, device_id: str, directory: Path | None = None) -> None:
        directory = directory or Path(tempfile.gettempdir(), "fusetune-devices")
        name = "".join(
            character if character.isalnum() or character in "-_" else "_" for character in device_id
        )
        self._path = directory / f"{name}.lock"
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock. Return whether it was free. Where no lock file can be made, nothing is locked."""
        try:
            self._path.parent.mkdir(mode=0o1777, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                self._path.parent.chmod(0o1777)  # every user's runs lock here
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Free the lock."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
