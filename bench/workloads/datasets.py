"""Data by name: decide what to load (`locate`), load it (`load`), hold samples out of it (`split`).

locate(request) -> Source    cheap, may download, names the stand-in and the reason for it
load(source) -> Arrays       in the worker: checked arrays
split(arrays, ...) -> Splits training, validation and test samples
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusetune.bench.catalog import DATASETS, GENERATED
from fusetune.bench.errors import InputError
from fusetune.bench.path_checks import is_file, is_folder
from fusetune.bench.spec import Source
from fusetune.bench.workloads import cifar10
from fusetune.bench.workloads.download import DownloadError, Progress
from fusetune.bench.workloads.generated import GENERATORS, generate
from fusetune.bench.workloads.image_folder import check_pillow, find_images, read_images
from fusetune.bench.workloads.npz_claims import check_claims

ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")

_IMAGE_CHANNELS = (1, 3, 4)
_DIGITS_TEST_SAMPLES = 359  # a fifth of 1,797
_TEST_SHARE = 5  # of a folder whose labels do not say which images are for the test


@dataclass(frozen=True)
class Arrays:
    """A loaded data set. x is uint8 or float32, (N, C, H, W) or (N, D). y is int64, 0..num_classes - 1."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    # The rows are independent draws already, so a prefix is as good a sample as any; `split` then takes prefixes,
    # and a set that was generated only in part splits as the full one does.
    in_random_order: bool = False


@dataclass(frozen=True)
class Splits:
    """The samples of a trial: for training, for every decision (validation), and for one final test."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int


def narrowed(source: Source, *, validation: int, limit: int | None) -> Source:
    """Return the same source, generating no more samples than `split` needs. Other sources stay as they are.

    Example:
        >>> narrowed(Source("spirals", "spirals", options={"seed": 0}), validation=200, limit=1000).options
        {'seed': 0, 'n_train': 1200, 'n_test': 1080}
    """
    if source.is_factory or source.name not in GENERATORS or limit is None:
        return source
    full = GENERATORS[source.name]
    sizes = {"n_train": min(full.n_train, validation + limit), "n_test": min(full.n_test, limit)}
    # Whole blocks hold the classes in the same proportions, on which the stratified split depends.
    rounded = {key: -(-size // full.block_samples) * full.block_samples for key, size in sizes.items()}
    return replace(source, options={**source.options, **rounded})


@dataclass(frozen=True)
class DataRequest:
    """The data that a spec asks for.

    Args:
        name: a name of `bench.catalog.DATASETS`. None with a factory.
        stand_in: the generated set to use where cifar10 is neither here nor can be downloaded.
        path: the .npz file, for `npz`, or the folder, for `folder`. Relative to the spec's directory, else to the
            current one.
        labels: the CSV file of a folder. Searched for there, and in the folder itself.
        size: height and width to which a folder's images are resized.
        factory: "package.module:function" that returns the arrays, instead of a name.
        options: the factory's keyword arguments.
        seed: of generated sets, int >= 0.
    """

    name: str | None
    stand_in: str | None = None
    path: str | None = None
    labels: str | None = None
    size: Sequence[int] | None = None
    factory: str | None = None
    options: Mapping[str, Any] | None = None
    seed: int = 0


def locate(
    request: DataRequest,
    *,
    spec_dir: Path | None = None,
    allow_download: bool = True,
    on_progress: Progress | None = None,
    where: str = "data",
) -> Source:
    """Decide what will be loaded, and make sure that it exists.

    Args:
        request: the data.
        spec_dir: the directory of the spec.
        allow_download: whether cifar10 may be downloaded.
        on_progress: called as f(done_bytes, size_bytes) meanwhile.
        where: the place in the spec, for error messages.

    Raises:
        InputError: an unknown name, keys that contradict each other, a missing file, or a data set that cannot be
            loaded. A factory is not searched for: `load` does that, in a worker.

    Example:
        >>> source = locate(DataRequest("spirals"))
        >>> source.name, source.stand_in, source.announcement()
        ('spirals', False, None)
    """
    _check_keys(request, where)
    name, factory, path = request.name, request.factory, request.path
    if factory is not None:
        # A person's own code is run in a worker alone, where it is built once to check before anything is trained.
        return Source(factory, factory, is_factory=True, options=dict(request.options or {}), where=where)
    assert name is not None
    if name == "cifar10":
        return _locate_cifar10(request.stand_in, request.seed, allow_download, on_progress, where)
    if name == "npz":
        assert path is not None
        return Source(name, name, path=str(_find(path, [spec_dir, Path.cwd()], f"{where}.path")), where=where)
    if name == "folder":
        assert path is not None
        return _locate_folder(path, request.labels, request.size, spec_dir, where)
    return Source(name, name, options={"seed": request.seed} if name in GENERATED else {}, where=where)


def load(source: Source) -> Arrays:
    """Load what `locate` found and check it.

    Raises:
        InputError: a file that is damaged or has changed since, or arrays that are not a classification data set.

    Example:
        >>> arrays = load(locate(DataRequest("spirals")))
        >>> arrays.x_train.shape, arrays.num_classes
        ((3600, 2), 3)
    """
    return _load_factory(source) if source.is_factory else _LOADERS[source.name](source)


def split(arrays: Arrays, *, validation: int, limit: int | None = None, seed: int = 0) -> Splits:
    """Hold validation samples out of the training set, and keep at most `limit` of the rest.

    Every choice is stratified: with n_k of N samples in class k, a choice of m samples holds m n_k / N of class k to
    within less than one. Choices are nested: the training samples for a limit of 1,000 are among those for 2,000,
    and the validation samples do not depend on the limit. The test set is cut to `limit` in the same way.
    The kept samples are in the order in which they were chosen.

    Args:
        arrays: a loaded data set.
        validation: samples to hold out, num_classes or more.
        limit: most training samples, and most test samples, to keep. None keeps all.
        seed: int >= 0, of the choice. It is not a trial's seed, so all trials share one split. Arrays in random order
            keep their order, whatever the seed.

    Memory:
        A copy of the samples that are kept.

    Raises:
        InputError: too few or too many validation samples, a limit below num_classes, or a class without a training
            sample.

    Example:
        >>> splits = split(load(locate(DataRequest("spirals"))), validation=300, limit=600)
        >>> len(splits.y_train), len(splits.y_test), np.bincount(splits.y_val).tolist()
        (600, 600, [100, 100, 100])
    """
    samples, classes = len(arrays.y_train), arrays.num_classes
    if not classes <= validation < samples:
        raise InputError(
            "data.validation",
            f"is {validation}",
            f"the training set has {samples} samples of {classes} classes, and validation samples "
            "steer everything",
            f"Give {classes} to {samples - classes}",
        )
    if limit is not None and limit < classes:
        raise InputError(
            "data.limit", f"is {limit}", f"there are {classes} classes", f"Give {classes} or more"
        )
    order = _sample_order(samples, arrays, seed, 0)
    held = _stratified(arrays.y_train, order, validation, classes)
    left = order[~np.isin(order, held)]
    kept = _stratified(arrays.y_train, left, limit, classes)
    missing = np.setdiff1d(np.arange(classes), arrays.y_train[kept])
    if missing.size:
        raise InputError(
            "data",
            f"{len(kept)} training samples are left, none of class {_listed(missing)}",
            to_do="Lower `validation`, raise `limit`, or add samples",
        )
    test_order = _sample_order(len(arrays.y_test), arrays, seed, 1)
    tested = _stratified(arrays.y_test, test_order, limit, classes)
    return Splits(
        arrays.x_train[kept],
        arrays.y_train[kept],
        arrays.x_train[held],
        arrays.y_train[held],
        arrays.x_test[tested],
        arrays.y_test[tested],
        classes,
    )


def _sample_order(samples: int, arrays: Arrays, seed: int, stream: int) -> np.ndarray:
    """Return the order in which samples are chosen: random, or unchanged where the arrays are random already."""
    if arrays.in_random_order:
        return np.arange(samples)
    words = np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(samples)
    return np.argsort(words, kind="stable")


def _stratified(labels: np.ndarray, order: np.ndarray, wanted: int | None, classes: int) -> np.ndarray:
    """Return the first `wanted` of `order`, with the classes dealt out so that every prefix is stratified.

    Largest remainders would meet the proportions too, but a class could then lose a sample as `wanted` grows (the
    Alabama paradox), and choices would not be nested. This is Tijdeman's rule: of the classes that are due, the one
    with the nearest deadline is next. No prefix is ever off by 1 - 1/(2K - 2) samples or more.

    Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980), algorithm of section 2.
    """
    total = len(order)
    if wanted is None or wanted >= total:
        return order
    sizes = np.bincount(labels[order], minlength=classes)
    present = np.flatnonzero(sizes)
    sizes, scale = sizes[present], max(2, 2 * len(present) - 2)
    by_class = order[np.argsort(labels[order], kind="stable")]
    queues = np.split(by_class, np.cumsum(sizes)[:-1])
    dealt = np.zeros(len(present), dtype=np.int64)
    chosen = np.empty(wanted, dtype=np.int64)
    for i in range(wanted):
        behind = sizes * (i + 1) - dealt * total
        due = scale * behind >= total
        deadline = np.where(due, (total - total / scale - behind) / sizes, np.inf)
        turn = int(np.argmin(deadline))
        chosen[i] = queues[turn][dealt[turn]]
        dealt[turn] += 1
    return chosen


def check_arrays(where: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> Arrays:
    """Convert a person's arrays into the suite's form, or explain what is wrong with them.

    Args:
        where: their file or factory, for error messages.
        x_train: uint8, or a finite float type (converted to float32), of shape (N, D), (N, H, W), (N, C, H, W) or
            (N, H, W, C). Of C and W the smaller is the channels, which must be 1, 3 or 4 where they come last.
        y_train: integers 0..K - 1, each of them used, of shape (N,) or (N, 1). K is the number of classes.
        x_test: as x_train, and of the same shape except N.
        y_test: as y_train, of the same classes.

    Raises:
        InputError: any of this does not hold.

    Example:
        >>> x, y = np.zeros((6, 8, 8), np.uint8), np.array([0, 1, 2, 0, 1, 2])
        >>> arrays = check_arrays("mine.npz", x, y, x[:3], y[:3])
        >>> arrays.x_train.shape, arrays.num_classes
        ((6, 1, 8, 8), 3)
    """
    given = dict(zip(ARRAY_NAMES, map(np.asarray, (x_train, y_train, x_test, y_test)), strict=True))
    for part in ("train", "test"):
        rows_x, rows_y = (
            len(given[f"{axis}_{part}"]) if given[f"{axis}_{part}"].ndim else 0 for axis in "xy"
        )
        if rows_x != rows_y or rows_x == 0:
            raise InputError(
                where,
                f"x_{part} has {rows_x} rows and y_{part} {rows_y}",
                "they must agree, and there must be some",
                "Save one label for each sample",
            )
    if given["x_train"].shape[1:] != given["x_test"].shape[1:]:
        raise InputError(
            where,
            f"a sample of x_train has shape {given['x_train'].shape[1:]}, one of x_test "
            f"{given['x_test'].shape[1:]}",
            to_do="Save both in one shape",
        )
    if (given["x_train"].dtype == np.uint8) != (given["x_test"].dtype == np.uint8):
        raise InputError(
            where,
            f"x_train is {given['x_train'].dtype} and x_test {given['x_test'].dtype}",
            "bytes and other numbers differ in scale",
            "Save both in one type",
        )
    x = {name: _samples(where, name, given[name]) for name in ("x_train", "x_test")}
    y = {name: _labels(where, name, given[name]) for name in ("y_train", "y_test")}
    num_classes = int(y["y_train"].max()) + 1
    if num_classes < 2:
        raise InputError(where, "y_train has one class only", to_do="A classification needs two or more")
    if num_classes > len(y["y_train"]):
        raise InputError(
            where,
            f"y_train has the label {num_classes - 1} among {len(y['y_train'])} samples",
            to_do=_NUMBER_THEM,
        )
    unused = np.flatnonzero(np.bincount(y["y_train"], minlength=num_classes) == 0)
    if unused.size:
        raise InputError(
            where,
            f"y_train has labels 0 to {num_classes - 1}, but none of {_listed(unused)}",
            to_do=_NUMBER_THEM,
        )
    if int(y["y_test"].max()) >= num_classes:
        row = int(np.argmax(y["y_test"] >= num_classes))
        raise InputError(
            where,
            f"y_test[{row}] is {y['y_test'][row]}",
            f"y_train has 0 to {num_classes - 1}",
            "Every class must be in the training set",
        )
    return Arrays(x["x_train"], y["y_train"], x["x_test"], y["y_test"], num_classes)


def _samples(where: str, name: str, x: np.ndarray) -> np.ndarray:
    """Return samples as uint8 or float32, in (N, D) or (N, C, H, W)."""
    if x.dtype != np.uint8 and not (x.dtype.kind == "f" and x.dtype.itemsize <= 8):
        raise InputError(
            where,
            f"{name} is {x.dtype}",
            "known: uint8, float16, float32, float64",
            "Convert it: whole grey levels 0 to 255 to uint8, all else to float32",
        )
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise InputError(
            where, f"{name} has shape {x.shape}", "known: N,D / N,H,W / N,C,H,W / N,H,W,C", "Reshape it"
        )
    if x.dtype != np.uint8:
        with np.errstate(
            over="ignore"
        ):  # a float64 beyond float32's range becomes inf, and is refused as such
            x = x.astype(np.float32)
        finite = np.isfinite(x)
        if not finite.all():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), x.shape))
            raise InputError(
                where,
                f"{name}[{', '.join(map(str, index))}] is not a finite float32",
                to_do="Correct it or remove it",
            )
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and _channels_last(where, name, x.shape):
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x)


def _channels_last(where: str, name: str, shape: tuple[int, ...]) -> bool:
    """Whether (N, a, b, c) is N,H,W,C: the smaller of a and c is the channels."""
    first, last = shape[1], shape[3]
    if first < last:
        return False
    if last < first and last in _IMAGE_CHANNELS:
        return True
    raise InputError(
        where,
        f"{name} has shape {shape}, which could be N,C,H,W or N,H,W,C",
        "the two are told apart by the smaller of the second and the last axis, and a last axis of 1, 3 or 4",
        "Transpose it to N,C,H,W with C below W",
    )


def _labels(where: str, name: str, y: np.ndarray) -> np.ndarray:
    """Return labels as int64 of shape (N,), none below 0."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        raise InputError(
            where,
            f"{name} has shape {y.shape}, which looks like one-hot rows",
            "labels are integers of shape (N,)",
            "Save y.argmax(axis=1)",
        )
    if y.ndim != 1:
        raise InputError(
            where,
            f"{name} has shape {y.shape}",
            "labels are integers of shape (N,)",
            "Save one label for each sample",
        )
    if y.dtype.kind not in "iu":
        raise InputError(where, f"{name} {_no_labels(y)}")
    if y.dtype.kind == "i" and int(y.min()) < 0:
        row = int(np.argmax(y < 0))
        raise InputError(where, f"{name}[{row}] is {y[row]}", "labels start at 0", _NUMBER_THEM)
    if int(y.max()) >= 2**31:
        raise InputError(where, f"{name} holds {int(y.max())}", to_do=_NUMBER_THEM)
    return y.astype(np.int64)


# One numbering for both arrays: a class has the same number in the training set and in the test set.
_NUMBER_THEM = (
    "Number the classes from 0: names = np.unique(y_train), y_train = np.searchsorted(names, y_train), "
    "and y_test alike"
)
_MOST_CLASSES_OF_FRACTIONS = 100


def _no_labels(y: np.ndarray) -> str:
    """Explain what an array holds instead of integers, and how to make labels of it."""
    if y.dtype.kind in "USO":
        shown = y[0].item() if isinstance(y[0], np.generic) else y[0]
        return f"is of {y.dtype}, like {shown!r}; labels are integers. {_NUMBER_THEM}"
    if y.dtype.kind == "b":
        return "is bool; labels are integers. Convert it with astype('int64')"
    if y.dtype.kind != "f":
        return f"is {y.dtype}; labels are integers. {_NUMBER_THEM}"
    if not np.isfinite(y).all():
        row = int(np.argmin(np.isfinite(y)))
        return f"has {y[row]} in row {row}; labels are integers. Remove the sample or give it its label"
    fractions = np.flatnonzero(y != np.round(y))
    if not fractions.size:
        return f"is {y.dtype}; labels are integers. Convert it with astype('int64')"
    row = int(fractions[0])
    if len(np.unique(y)) > _MOST_CLASSES_OF_FRACTIONS:
        return (
            f"has {y[row]:g} in row {row}, a fraction, and more than {_MOST_CLASSES_OF_FRACTIONS} different values; "
            "labels are integers, and a regression is not trained here. Make classes of ranges with np.digitize"
        )
    return f"has {y[row]:g} in row {row}, a fraction; labels are integers. {_NUMBER_THEM}"


def _listed(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:10].tolist()))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"


def _check_keys(request: DataRequest, where: str) -> None:
    """Refuse unknown names, and keys of another data set."""
    name, factory, stand_in = request.name, request.factory, request.stand_in
    of_files = {"path": request.path, "labels": request.labels, "size": request.size}
    if (name is None) == (factory is None):
        raise InputError(
            where, "needs either a name or a factory", f"known names: {', '.join(DATASETS)}", "Give one"
        )
    if name is not None and name not in DATASETS:
        raise InputError.unknown(f"{where}.name", name, DATASETS)
    if stand_in is not None:
        if stand_in not in GENERATED:
            raise InputError.unknown(f"{where}.stand_in", stand_in, GENERATED)
        if name != "cifar10":
            raise InputError(
                f"{where}.stand_in",
                "only cifar10 takes one",
                f"{name or factory} needs no download",
                "Remove it",
            )
    for key, value in of_files.items():
        takers = [name for name, entry in DATASETS.items() if key in entry.parameters]
        if value is None and key == "path" and name in takers:
            raise InputError(f"{where}.path", f"{name} needs it", to_do="Name the file or folder there")
        if value is not None and name not in takers:
            raise InputError(
                f"{where}.{key}", f"is for {' and '.join(takers)}", "nothing else takes it", "Remove it"
            )
    if request.options and factory is None:
        raise InputError(where, f"{name} takes no {', '.join(sorted(request.options))}", to_do="Remove it")


def _locate_cifar10(
    stand_in: str | None, seed: int, allow_download: bool, on_progress: Progress | None, where: str
) -> Source:
    """Return CIFAR-10's folder, or the stand-in with the reason for it."""
    looked = ", ".join(map(_below_home, cifar10.search_directories()))
    absent = f"is not on this machine (looked in {looked})"
    try:
        folder = cifar10.obtain_cifar10(allow_download=allow_download, on_progress=on_progress)
        reason = f"{absent} and may not be downloaded"
    except DownloadError as error:
        folder = None
        reason = f"{absent} and cannot be downloaded ({error.reason})"
    if folder is not None:
        return Source("cifar10", "cifar10", path=str(folder.resolve()), where=where)
    if stand_in is None:
        raise InputError(
            f"{where}.name",
            f"cifar10 {reason}",
            to_do=f"Fetch {cifar10.PUBLISHED.url} by hand and put it into one of these directories, or "
            "write `stand_in: cifar10-like`",
        )
    return Source(stand_in, "cifar10", reason=reason, options={"seed": seed}, where=where)


def _below_home(directory: Path) -> str:
    """Write a path with ~, because the reason for a stand-in is in reports that people send to others."""
    try:
        return f"~/{directory.relative_to(Path.home())}"
    except (RuntimeError, ValueError):
        return str(directory)


def _find(path: str, directories: Sequence[Path | None], where: str, *, folder: bool = False) -> Path:
    """Return a file or a folder of a spec, in the first of the directories that has it."""
    try:
        named = Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{where}: '{path}'", str(error).rstrip("."), to_do="Write the path without ~"
        ) from None
    places = [directory / named for directory in directories if directory is not None]
    for place in places:
        if is_folder(place) if folder else is_file(place):
            return place.resolve()
    looked = " and ".join(dict.fromkeys(str(place.absolute()) for place in places))
    kind = "folder" if folder else "file"
    raise InputError(where, f"no {kind} '{path}'", f"looked for {looked}", "Check the path")


def _locate_folder(
    path: str, labels: str | None, size: Sequence[int] | None, spec_dir: Path | None, where: str
) -> Source:
    """Return a folder of images with its class names. Every file that will be read exists."""
    check_pillow(where)
    directories = [spec_dir, Path.cwd()]
    folder = _find(path, directories, f"{where}.path", folder=True)
    file = None if labels is None else _find(labels, [*directories, folder], f"{where}.labels")
    found = find_images(folder, file, where)
    options = {"labels": None if file is None else str(file), "size": None if size is None else list(size)}
    return Source("folder", "folder", path=str(folder), options=options, classes=found.classes, where=where)


def _plain_array(file: Mapping[str, np.ndarray], name: str, at: str) -> np.ndarray:
    """Read one array. An array of Python objects, which texts easily become, is not read."""
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        mend = _NUMBER_THEM if name.startswith("y_") else "Save plain numbers"
        raise InputError(at, f"{name} holds Python objects, which are not read", to_do=mend) from None


# Errors of a damaged archive in numpy and zipfile: an encrypted one is a RuntimeError, an unknown packing a
# NotImplementedError, a length that fits nowhere an OverflowError.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    RuntimeError,
    OverflowError,
    struct.error,
)


def _begins_as_array(path: str) -> bool:
    """Whether a file is that of a single array, by its first bytes."""
    with open(path, "rb") as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def _load_npz(source: Source) -> Arrays:
    assert source.path is not None
    at = f"{source.where}.path: {source.path}"
    try:
        if zipfile.is_zipfile(source.path):
            check_claims(Path(source.path), ARRAY_NAMES)
        elif _begins_as_array(source.path):
            raise InputError(
                at, "holds a single array", f"an .npz file holds {', '.join(ARRAY_NAMES)}", "Use np.savez"
            )
        # numpy leaves a damaged archive open that it was given by its path.
        with open(source.path, "rb") as content, np.load(content, allow_pickle=False) as file:
            missing = [name for name in ARRAY_NAMES if name not in file.files]
            if missing:
                held = ", ".join(file.files) or "nothing"
                raise InputError(
                    at, f"lacks {', '.join(missing)}", f"it has {held}", "Save all four with np.savez"
                )
            arrays = [_plain_array(file, name, at) for name in ARRAY_NAMES]
    # numpy raises ValueError for pickled objects, and for a file that is no array file at all.
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            at, "cannot be read", str(error), "Save plain number arrays with np.savez"
        ) from error
    return check_arrays(at, *arrays)


def _load_factory(source: Source) -> Arrays:
    """Return the four arrays that a person's function returns, as a mapping or in order."""
    from fusetune.bench.workloads.factories import (  # here, because it imports torch
        call_factory,
        load_factory,
    )

    at = f"{source.where}.factory"
    result = call_factory(load_factory(source.name, at), at, source.options)
    returned = f"what {source.name} returned"
    if isinstance(result, Mapping):
        missing = [name for name in ARRAY_NAMES if name not in result]
        if missing:
            raise InputError(
                at,
                f"{returned} lacks {', '.join(missing)}",
                f"it has {', '.join(map(str, result))}",
                "Return all four",
            )
        return check_arrays(f"{at}: {returned}", *(result[name] for name in ARRAY_NAMES))
    if isinstance(result, tuple) and len(result) == len(ARRAY_NAMES):
        return check_arrays(f"{at}: {returned}", *result)
    raise InputError(
        at,
        f"{returned} is a {type(result).__name__}",
        f"known: a mapping or a tuple of {', '.join(ARRAY_NAMES)}",
        "Return one",
    )


def _load_folder(source: Source) -> Arrays:
    """Return images from a folder. Where no split is given, a stratified fifth is the test set."""
    assert source.path is not None
    labels, at = source.options["labels"], f"{source.where}.path: {source.path}"
    found = find_images(Path(source.path), None if labels is None else Path(labels), source.where)
    x, y, classes = (
        read_images(found.files, source.options["size"], source.where),
        found.labels,
        len(found.classes),
    )
    in_test = found.in_test
    if in_test is None:
        order = _sample_order(len(y), Arrays(x, y, x[:0], y[:0], classes), 0, 0)
        in_test = np.isin(np.arange(len(y)), _stratified(y, order, len(y) // _TEST_SHARE, classes))
        if not in_test.any():
            raise InputError(
                at, f"has {len(y)} images", "a fifth is held for the test", f"Give {_TEST_SHARE} or more"
            )
    counts = np.bincount(y[~in_test], minlength=classes)
    if not counts.all():
        name = found.classes[int(np.argmin(counts))]
        raise InputError(at, f"no training image of class '{name}' is left", to_do="Give more images of it")
    return Arrays(x[~in_test], y[~in_test], x[in_test], y[in_test], classes)


def _load_cifar10(source: Source) -> Arrays:
    assert source.path is not None
    return Arrays(*cifar10.read_cifar10(Path(source.path)), cifar10.NUM_CLASSES)


def _load_generated(source: Source) -> Arrays:
    arrays = generate(source.name, **source.options)
    return Arrays(*arrays, GENERATORS[source.name].num_classes, in_random_order=True)


def _load_digits(_source: Source) -> Arrays:
    """Return scikit-learn's digits: 17 grey levels 0..16, times 15 to fill a byte."""
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    images, labels = load_digits(return_X_y=True)
    x = (images * 15).astype(np.uint8).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    everything = Arrays(x, y, x[:0], y[:0], 10)
    order = _sample_order(len(y), everything, 0, 0)
    tested = _stratified(y, order, _DIGITS_TEST_SAMPLES, 10)
    rest = np.setdiff1d(order, tested)
    return Arrays(x[rest], y[rest], x[tested], y[tested], 10)


_LOADERS: dict[str, Callable[[Source], Arrays]] = {
    "cifar10": _load_cifar10,
    "digits": _load_digits,
    "npz": _load_npz,
    "folder": _load_folder,
    **dict.fromkeys(GENERATED, _load_generated),
}
