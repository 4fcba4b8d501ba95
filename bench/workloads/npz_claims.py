"""A check of an .npz file's headers against its size, before anything is allocated.

A header of a hundred bytes can claim 16 TiB. That is a damaged file, not a lack of memory.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from fusetune.bench.units import format_bytes

# Deflate packs at most 1,032 bytes into one. numpy's two ways of saving need no other bound.
_MOST_PACKED = 1032
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def check_claims(path: Path, names: Iterable[str]) -> None:
    """Refuse arrays whose headers claim more or less than the file holds.

    Args:
        path: an .npz file.
        names: of the arrays that will be read. Names that the file does not have are skipped.

    Raises:
        ValueError: names the array and its claim.
        OSError, zipfile.BadZipFile: the file cannot be read, or is no archive.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "a.npz"), x=np.zeros((3, 4), np.float32))
        ...     check_claims(Path(folder, "a.npz"), ["x"])
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in names:
            if (member := members.get(name)) is None:
                continue
            most = _MOST_PACKED * min(member.compress_size, path.stat().st_size)
            with archive.open(member) as stream:
                shape, dtype = _header(stream, name)
                held = member.file_size - stream.tell()
            if dtype.hasobject:
                continue  # numpy refuses it with its own sentence
            if any(length < 0 for length in shape):
                raise ValueError(f"{name} claims the shape {shape}, which no array has")
            claimed = math.prod(shape) * dtype.itemsize
            if claimed != held or held > most:
                raise ValueError(
                    f"{name} claims {dtype} of shape {shape}, which are {format_bytes(claimed)}, and the file holds "
                    f"{format_bytes(min(held, most))} of it"
                )


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{name} is in version {version} of numpy's format, which plain numbers never need")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype
