"""A person's own pictures: a folder with one subfolder a class, or a folder and a CSV file of labels.

find_images(...) -> ImageFolder   cheap, without Pillow: the files and the class of each
read_images(...) -> array         every file decoded, uint8 of shape (N, C, H, W)
"""

from __future__ import annotations

import csv
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusetune.bench.errors import InputError
from fusetune.closest_name import closest

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
COLUMNS = ("file", "label", "split")
SPLITS = ("train", "test")

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
# A PNG file has its orientation after its pixels, so reading it would decode the picture.
_WITH_ORIENTATION = ("JPEG", "MPO", "TIFF", "WEBP")
_ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageFolder:
    """The files of an image folder, and the class of each.

    Args:
        files: absolute paths.
        labels: int64, one a file: the index of its class.
        in_test: bool, one a file. None: no split is given.
        classes: names by index, in numeric order where all are whole numbers, else in the order of text.
    """

    files: list[Path]
    labels: np.ndarray
    in_test: np.ndarray | None
    classes: tuple[str, ...]


def find_images(folder: Path, labels: Path | None, where: str) -> ImageFolder:
    """List the pictures of a folder with their classes. None of them is opened.

    Args:
        folder: with `labels`, the folder of the files that they name. Without, it holds a subfolder for each class, or
            `train` and `test` with such subfolders. Files without a picture's extension are skipped.
        labels: a CSV file with the columns file, label and, if wanted, split (train or test).
        where: the place of the spec's `data`, for error messages.

    Raises:
        InputError: columns, rows, folders or files are wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("dog/1.png", "cat/1.png", "cat/2.png"):
        ...         (Path(name) / file).parent.mkdir(exist_ok=True)
        ...         (Path(name) / file).touch()
        ...     found = find_images(Path(name), None, "data")
        >>> found.classes, found.labels.tolist()
        (('cat', 'dog'), [0, 0, 1])
    """
    if labels is not None:
        rows = list(_rows(folder, labels, f"{where}.labels: {labels}"))
    else:
        rows = list(_in_class_folders(folder, f"{where}.path: {folder}"))
    classes = _in_order({name for _, name, _ in rows})
    index = {name: number for number, name in enumerate(classes)}
    splits = {split for _, _, split in rows}
    at = f"{where}.labels: {labels}" if labels is not None else f"{where}.path: {folder}"
    if len(classes) < 2:
        raise InputError(
            at, f"has one class only, '{classes[0]}'", to_do="A classification needs two or more"
        )
    if splits != {""}:
        missing = [split for split in SPLITS if split not in splits]
        if missing:
            raise InputError(
                at, f"has no {missing[0]} images", "a split has both", "Leave it out, or add some"
            )
        learnt = {name for _, name, split in rows if split == "train"}
        unseen = [name for name in classes if name not in learnt]
        if unseen:
            raise InputError(
                at, f"class '{unseen[0]}' is in the test set alone", to_do="Add training images of it"
            )
    return ImageFolder(
        [file for file, _, _ in rows],
        np.array([index[name] for _, name, _ in rows], np.int64),
        None if splits == {""} else np.array([split == "test" for _, _, split in rows]),
        classes,
    )


def read_images(files: Sequence[Path], size: Sequence[int] | None, where: str) -> np.ndarray:
    """Decode pictures into one array.

    If all pictures are grey (modes 1, L, LA), they have one channel. Otherwise every picture becomes RGB, palettes and
    other colour spaces too. Transparency is dropped. An animation gives its first frame. JPEG, TIFF and WebP files are
    rotated by their EXIF orientation.

    Args:
        files: one or more.
        size: (height, width) to which each is resized, bilinear with antialiasing, ignoring the aspect ratio. None: all
            must have one size.
        where: the place of the spec's `data`, for error messages.

    Returns:
        uint8 of shape (N, 1 or 3, height, width).

    Raises:
        InputError: Pillow is not installed. A file is not a whole picture, has more than 8 bits a channel, or, without
            `size`, differs in size from most.
    """
    check_pillow(where)
    headers = [_header(file, where) for file in files]
    if size is None:
        height, width = _common_size(files, [shape for _, shape in headers], where)
    else:
        height, width = size
    grey = all(mode in _GREY for mode, _ in headers)
    out = np.empty((len(files), 1 if grey else 3, height, width), np.uint8)
    for row, file in enumerate(files):
        pixels = _pixels(file, "L" if grey else "RGB", None if size is None else (height, width), where)
        out[row] = pixels[None] if grey else pixels.transpose(2, 0, 1)
    return out


def check_pillow(where: str) -> None:
    """Raise InputError with the install command where Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{where}.name",
            "folder reads images with Pillow, which is not installed",
            to_do="Run: python -m pip install Pillow",
        ) from error


def _rows(folder: Path, labels: Path, at: str) -> Iterator[tuple[Path, str, str]]:
    lines: dict[str, int] = {}
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header, at)
            for row in reader:
                if not row:
                    continue
                here = f"{at}:{reader.line_num}"
                if len(row) != len(header):
                    raise InputError(
                        here,
                        f"has {len(row)} values for {len(header)} columns",
                        to_do="Give one for each, quoted where it holds a comma",
                    )
                cells = dict(zip(header, map(str.strip, row), strict=True))
                yield _checked(cells, folder, lines, here, reader.line_num)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(at, "cannot be read", str(error), "Save it as CSV text in UTF-8") from error
    if not lines:
        raise InputError(at, "has no rows", to_do="Write one line for each image: file,label")


def _check_columns(header: Sequence[str], at: str) -> None:
    """Refuse unknown, missing and repeated columns."""
    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise InputError(
            f"{at}:1", f"separates its columns by {other!r}", "known: ','", "Save it with commas"
        )
    for name in header:
        if name not in COLUMNS:
            raise InputError.unknown(f"{at}:1: column", name, COLUMNS)
        if header.count(name) > 1:
            raise InputError(f"{at}:1", f"has the column '{name}' twice", to_do="Keep one")
    for name in COLUMNS[:2]:
        if name not in header:
            raise InputError(
                f"{at}:1", f"lacks the column '{name}'", f"known: {', '.join(COLUMNS)}", "Add it"
            )


def _checked(
    cells: dict[str, str], folder: Path, lines: dict[str, int], here: str, line: int
) -> tuple[Path, str, str]:
    """Check a row and return its file, class and split. Mutates: `lines`, the line of each file."""
    name, label, split = cells["file"], cells["label"], cells.get("split", "")
    for column in cells:
        if not cells[column]:
            raise InputError(here, f"has no {column}", to_do="Fill it in")
    if "split" in cells and split not in SPLITS:
        validation = split.lower().startswith("val")
        hint = (
            "Validation images are taken from `train`, see data.validation"
            if validation
            else "Use one of these"
        )
        raise InputError(here, f"unknown split '{split}'", f"known: {', '.join(SPLITS)}", hint)
    key = os.path.normpath(name)
    if key in lines:
        raise InputError(here, f"'{name}' is in line {lines[key]} already", to_do="Keep one")
    lines[key] = line
    file = folder / name
    if not file.is_file():
        near = closest(file.name, (each.name for each in file.parent.glob("*")))
        hint = f"Did you mean '{near}'?" if near else "Check the name, or remove the line"
        raise InputError(here, f"no file '{name}' in {folder}", to_do=hint)
    return file, label, split


def _in_class_folders(folder: Path, at: str) -> Iterator[tuple[Path, str, str]]:
    """Yield file, class and split of each picture below a folder of class folders."""
    inside = _folders(folder)
    names = {each.name for each in inside}
    if "train" not in names or not names <= {"train", "test", "val", "valid", "validation"}:
        yield from _of_classes(inside, "", at)
        return
    if names != {"train", "test"}:
        raise InputError(
            at,
            f"has the folders {', '.join(sorted(names))}",
            "known: class folders, or train and test with class folders",
            "Rename or move them. Validation images are taken from train, see data.validation",
        )
    for each in inside:
        yield from _of_classes(_folders(each), each.name, f"{at}{os.sep}{each.name}")


def _of_classes(folders: Sequence[Path], split: str, at: str) -> Iterator[tuple[Path, str, str]]:
    """Yield the pictures of each class folder, in the order of their names."""
    if not folders:
        raise InputError(
            at,
            "has no class folders",
            "known: one folder of images for each class, or a CSV file",
            "Sort the images into folders, or name the file in `labels`",
        )
    for folder in folders:
        files = sorted(
            file
            for file in folder.rglob("*")
            if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".") and file.is_file()
        )
        if not files:
            raise InputError(
                at,
                f"the folder '{folder.name}' holds no images",
                f"known: {' '.join(EXTENSIONS)}",
                "Remove it",
            )
        for file in files:
            yield file, folder.name, split


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones, by name."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Sort class names: by number where all are whole numbers, else as text."""
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _header(file: Path, where: str) -> tuple[str, tuple[int, int]]:
    """Read a picture's mode, and its height and width after rotation, without decoding it."""
    with _opened(file, where) as image:
        return image.mode, _turned(image)


def _turned(image: Picture) -> tuple[int, int]:
    """Return height and width of a picture after rotation."""
    width, height = image.size
    if image.format in _WITH_ORIENTATION and image.getexif().get(_ORIENTATION_TAG) in _QUARTER_TURNS:
        return width, height
    return height, width


def _pixels(file: Path, mode: str, size: tuple[int, int] | None, where: str) -> np.ndarray:
    from PIL import Image, ImageOps

    with _opened(file, where) as image:
        turned = ImageOps.exif_transpose(image) if image.format in _WITH_ORIENTATION else image
        converted = turned.convert(mode)
        if size is not None and converted.size != size[::-1]:
            converted = converted.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(converted)


# What Pillow's decoders raise for files that are damaged, each where its format has it.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def _opened(file: Path, where: str) -> Iterator[Picture]:
    """Open a picture. Every failure is one sentence with the file's name."""
    from PIL import Image, UnidentifiedImageError

    at = f"{where}.path: {file}"
    try:
        with Image.open(file) as image:
            if image.mode not in (*_GREY, *_COLOUR):
                raise InputError(
                    at,
                    f"has mode {image.mode}",
                    f"known: 8 bits a channel, {', '.join((*_GREY, *_COLOUR))}",
                    "Convert it to 8 bits",
                )
            yield image
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(at, "is no image that Pillow knows", to_do="Replace it or remove it") from error
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(
            at, "cannot be read as an image", f"{type(error).__name__}: {error}", "Replace it or remove it"
        ) from error


def _common_size(files: Sequence[Path], sizes: Sequence[tuple[int, int]], where: str) -> tuple[int, int]:
    """Return the height and width that all pictures have. The first picture of a rarer size is an error."""
    (usual, count), *others = Counter(sizes).most_common()
    if others:
        odd = next(index for index, size in enumerate(sizes) if size != usual)
        raise InputError(
            f"{where}.path: {files[odd]}",
            f"is {_text(sizes[odd])} (height x width), where {count} of {len(files)} images are "
            f"{_text(usual)}",
            to_do=f"Write size: [{usual[0]}, {usual[1]}] to resize them all, or correct it",
        )
    return usual


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
