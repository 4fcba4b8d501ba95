"""Locating, loading, checking and splitting data."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fusetune.bench.catalog import DATASETS
from fusetune.bench.errors import InputError
from fusetune.bench.spec.source import Source
from fusetune.bench.workloads import cifar10, datasets
from fusetune.bench.workloads.datasets import Arrays, DataRequest, check_arrays, load, locate, narrowed, split
from fusetune.bench.workloads.download import DownloadError
from fusetune.bench.workloads.generated import generate
from fusetune.bench.workloads.npz_claims import check_claims


def arrays_of(counts: list[int], *, test: int = 30, seed: int = 0) -> Arrays:
    """Arrays whose single feature is the sample's own number, with so many samples of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    return Arrays(
        x, labels, -1 - np.arange(test, dtype=np.float32)[:, None], np.arange(test) % len(counts), len(counts)
    )


def numbers(x: np.ndarray) -> set[int]:
    """The samples' own numbers."""
    return set(x[:, 0].astype(int).tolist())


def my_arrays(**changes: Any) -> dict[str, Any]:
    """A small, correct data set of three classes in (N, H, W), with changes."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (12, 5, 6), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (6, 5, 6), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return {**arrays, **changes}


# ---------------------------------------------------------------- split


@given(
    counts=st.lists(st.integers(4, 60), min_size=2, max_size=6),
    share=st.floats(0, 0.5),
    limit_share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_splits_are_disjoint_and_within_one_sample_of_each_class_share(
    counts: list[int], share: float, limit_share: float, seed: int
) -> None:
    arrays, classes, total = arrays_of(counts), len(counts), sum(counts)
    validation = max(classes, int(share * total))
    limit = max(classes, int(limit_share * total))
    try:
        splits = split(arrays, validation=validation, limit=limit, seed=seed)
    except InputError as error:
        if "none of class" not in str(error):
            raise
        return  # a class too rare for the limit
    held, kept = numbers(splits.x_val), numbers(splits.x_train)
    assert len(held) == len(splits.y_val) == validation
    assert len(kept) == len(splits.y_train) == min(limit, total - validation)
    assert not held & kept
    val_counts = np.bincount(splits.y_val, minlength=classes)
    assert np.all(np.abs(val_counts - validation * np.array(counts) / total) < 1)
    left = np.array(counts) - val_counts
    kept_counts = np.bincount(splits.y_train, minlength=classes)
    assert np.all(np.abs(kept_counts - len(kept) * left / left.sum()) < 1)
    for x, y in ((splits.x_train, splits.y_train), (splits.x_val, splits.y_val)):
        np.testing.assert_array_equal(arrays.y_train[x[:, 0].astype(int)], y)


def test_choices_are_nested_even_where_largest_remainders_are_not() -> None:
    # The Alabama paradox: by largest remainders the third class gets 2 of 10 samples, but 1 of 11.
    arrays = arrays_of([60, 60, 20])
    assert [largest_remainders([60, 60, 20], seats)[2] for seats in (10, 11)] == [2, 1]
    before: set[int] = set()
    for limit in range(12, 120):
        kept = numbers(split(arrays, validation=14, limit=limit).x_train)
        assert before < kept
        before = kept


def largest_remainders(counts: list[int], seats: int) -> list[int]:
    """Deal seats by largest remainder."""
    exact = [seats * count / sum(counts) for count in counts]
    dealt = [int(share) for share in exact]
    for k in sorted(range(len(counts)), key=lambda k: dealt[k] - exact[k])[: seats - sum(dealt)]:
        dealt[k] += 1
    return dealt


def test_validation_does_not_depend_on_the_limit() -> None:
    arrays = arrays_of([50, 30, 20])
    held = [split(arrays, validation=20, limit=limit).x_val.tobytes() for limit in (10, 40, None)]
    assert len(set(held)) == 1


def test_one_seed_is_one_split_and_another_seed_another() -> None:
    arrays = arrays_of([50, 50])
    first, again, other = (split(arrays, validation=20, limit=30, seed=seed) for seed in (1, 1, 2))
    assert first.x_train.tobytes() == again.x_train.tobytes()
    assert numbers(first.x_val) != numbers(other.x_val)
    assert numbers(first.x_train) != numbers(other.x_train)


def test_without_a_limit_all_samples_are_used() -> None:
    splits = split(arrays_of([10, 20]), validation=6)
    assert numbers(splits.x_train) | numbers(splits.x_val) == set(range(30))
    assert len(splits.y_test) == 30


def test_the_test_set_is_cut_to_the_limit_by_class() -> None:
    splits = split(arrays_of([20, 20, 20], test=30), validation=6, limit=12)
    assert np.bincount(splits.y_test).tolist() == [4, 4, 4]
    np.testing.assert_array_equal((-1 - splits.x_test[:, 0]).astype(int) % 3, splits.y_test)


@pytest.mark.parametrize(
    ("validation", "limit", "said"),
    [
        (0, None, "data.validation: is 0; the training set has 100 samples of 2 classes"),
        (1, None, "Give 2 to 98"),
        (100, None, "data.validation: is 100"),
        (-5, None, "data.validation: is -5"),
        (10, 1, "data.limit: is 1"),
        (10, 5, "none of class 1"),
        (99, None, "1 training samples are left, none of class"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(validation: int, limit: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        split(arrays_of([95, 5]), validation=validation, limit=limit)


@pytest.mark.parametrize(("name", "validation", "limit"), [("spirals", 300, 500), ("mnist-like", 250, 310)])
def test_a_narrowed_source_splits_as_the_full_one(name: str, validation: int, limit: int) -> None:
    source = locate(DataRequest(name))
    narrow = split(
        load(narrowed(source, validation=validation, limit=limit)), validation=validation, limit=limit
    )
    wide_source = narrowed(source, validation=validation, limit=2 * limit)
    wide = split(load(wide_source), validation=validation, limit=2 * limit)
    np.testing.assert_array_equal(narrow.x_val, wide.x_val)
    np.testing.assert_array_equal(narrow.x_train, wide.x_train[:limit])
    np.testing.assert_array_equal(narrow.y_train, wide.y_train[:limit])
    np.testing.assert_array_equal(narrow.x_test, wide.x_test[:limit])


def test_narrowing_never_asks_for_more_than_there_is() -> None:
    source = narrowed(locate(DataRequest("spirals")), validation=3000, limit=3000)
    assert (source.options["n_train"], source.options["n_test"]) == (3600, 1200)
    assert narrowed(locate(DataRequest("digits")), validation=10, limit=10) == locate(DataRequest("digits"))


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("given_shape", "shape"),
    [
        ((7,), (7,)),
        ((5, 6), (1, 5, 6)),
        ((3, 5, 6), (3, 5, 6)),
        ((5, 6, 3), (3, 5, 6)),
        ((28, 28, 1), (1, 28, 28)),
        ((1, 28, 28), (1, 28, 28)),
        ((32, 32, 4), (4, 32, 32)),
        ((2, 9, 9), (2, 9, 9)),
        ((1, 4, 4), (1, 4, 4)),
    ],
)
def test_layouts_become_channels_first(given_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x = np.arange(6 * np.prod(given_shape), dtype=np.float32).reshape(6, *given_shape)
    arrays = check_arrays("here", x, np.arange(6) % 2, x[:2], np.arange(2))
    assert arrays.x_train.shape == (6, *shape)
    assert arrays.x_train.flags.c_contiguous
    if given_shape == (5, 6, 3):
        assert arrays.x_train[4, 2, 1, 3] == x[4, 1, 3, 2]


@pytest.mark.parametrize("shape", [(3, 3, 3), (9, 9, 2), (8, 8, 8), (1, 8, 1)])
def test_a_layout_that_could_be_either_is_refused(shape: tuple[int, ...]) -> None:
    x = np.zeros((6, *shape), np.uint8)
    with pytest.raises(InputError, match=r"could be N,C,H,W or N,H,W,C.*Transpose it to N,C,H,W"):
        check_arrays("here", x, np.arange(6) % 2, x, np.arange(6) % 2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32_and_bytes_stay(dtype: str) -> None:
    x = np.linspace(-1, 1, 24).reshape(6, 4).astype(dtype)
    arrays = check_arrays("here", x, np.arange(6) % 2, x, np.arange(6) % 2)
    assert arrays.x_train.dtype == np.float32
    np.testing.assert_array_equal(arrays.x_train, x.astype(np.float32))
    assert check_arrays("here", **my_arrays()).x_train.dtype == np.uint8


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_labels_of_any_integer_type_and_as_a_column(dtype: str) -> None:
    arrays = check_arrays("here", **my_arrays(y_train=(np.arange(12) % 3).astype(dtype)[:, None]))
    assert arrays.y_train.dtype == np.int64
    assert arrays.y_train.tolist() == [0, 1, 2] * 4
    assert arrays.num_classes == 3


NOT_FINITE = np.zeros((12, 4))
NOT_FINITE[7, 2] = np.nan
TOO_LARGE = np.zeros((12, 4))
TOO_LARGE[3, 1] = 1e300
FLAT = np.zeros((6, 4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": NOT_FINITE, "x_test": FLAT}, r"x_train\[7, 2\] is not a finite"),
        ({"x_train": TOO_LARGE, "x_test": FLAT}, r"x_train\[3, 1\] is not a finite"),
        ({"x_train": np.zeros((12, 5, 6), int)}, "bytes and other numbers differ in scale"),
        (
            {"x_train": np.zeros((12, 4), int), "x_test": np.zeros((6, 4), int)},
            "x_train is int64; known: uint8",
        ),
        ({"x_train": np.zeros((12, 4), complex), "x_test": FLAT}, "x_train is complex128"),
        ({"x_test": np.zeros((6, 6, 5), np.uint8)}, r"shape \(5, 6\), one of x_test \(6, 5\)"),
        ({"x_train": np.zeros(12), "x_test": np.zeros(6)}, r"shape \(12,\); known: N,D"),
        ({"y_train": np.arange(11) % 3}, "x_train has 12 rows and y_train 11"),
        ({"x_test": np.zeros((0, 5, 6), np.uint8), "y_test": np.zeros(0, int)}, "x_test has 0 rows"),
        ({"y_train": np.float32(3)}, "y_train 0"),
        ({"y_train": np.eye(3)[np.arange(12) % 3]}, r"one-hot rows.*argmax"),
        ({"y_train": np.eye(3, dtype=int)[np.arange(12) % 3]}, "one-hot rows"),
        ({"y_train": np.zeros((12, 2, 2), int)}, "one label for each sample"),
        ({"y_train": np.arange(12) + 0.5, "y_test": np.arange(6)}, r"has 0.5 in row 0, a fraction"),
        ({"y_train": np.array([0.0, np.nan, *[1.0] * 10])}, "has nan in row 1"),
        ({"y_train": np.arange(12) % 3 - 1}, r"y_train\[0\] is -1; labels start at 0"),
        ({"y_train": np.arange(12) % 3 * 2}, "labels 0 to 4, but none of 1, 3"),
        ({"y_train": np.arange(12) % 3 + 1}, "none of 0"),
        ({"y_train": np.arange(12) % 3 * 10**6}, "Number the classes from 0"),
        ({"y_test": np.array([0, 1, 2, 3, 0, 1])}, r"y_test\[3\] is 3; y_train has 0 to 2"),
        ({"y_train": np.zeros(12, int)}, "one class only"),
        ({"y_train": np.full(12, 2**63, np.uint64)}, "holds 9223372036854775808"),
    ],
)
def test_arrays_that_are_no_classification_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        check_arrays("mine.npz", **my_arrays(**changes))
    assert str(caught.value).startswith("mine.npz: ")


@pytest.mark.parametrize(
    "names",
    [np.array(["cat", "a dog", "bird"]), np.array(["cat", "a dog", "bird"], object), np.array([0.5, 1.0, 2.25]),
     np.array([0.0, 1.0, 2.0]), np.array([True, False, True]), np.array([3, 7, -1])],
    ids=str,
)  # fmt: skip
def test_what_the_hint_says_makes_labels_of_texts_fractions_and_numbers(names: np.ndarray) -> None:
    order = np.arange(12) % len(np.unique(names))
    given = {"y_train": names[order], "y_test": names[order][:6]}
    with pytest.raises(InputError) as caught:
        check_arrays("mine.npz", **my_arrays(**given))
    hint = str(caught.value)
    if "astype" in hint:
        found = {name: y.astype(re.findall(r"astype\('(\w+)'\)", hint)[0]) for name, y in given.items()}
    else:
        (first, second) = re.search(r"(names = .*?), (y_train = .*?), and y_test alike", hint).groups()
        scope = {"np": np, **given}
        for line in (first, second, second.replace("y_train", "y_test")):
            exec(line, scope)
        found = {name: scope[name] for name in given}  # type: ignore[misc]
    arrays = check_arrays("mine.npz", **my_arrays(**found))
    # The same samples share a class, in both parts.
    for mine, theirs in ((arrays.y_train, given["y_train"]), (arrays.y_test, given["y_test"])):
        assert ((mine[:, None] == mine) == (theirs[:, None] == theirs)).all()
    assert (arrays.y_train[:6] == arrays.y_test).all()


def test_a_regressions_labels_are_told_what_to_do(work: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(400, 4)), np.linspace(0, 1, 400)
    with pytest.raises(InputError, match=r"regression is not trained here.*np\.digitize"):
        check_arrays("mine.npz", x, y, x[:9], y[:9])


# ---------------------------------------------------------------- npz


def save(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, cache and home, and no $BENCH_DATA."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return tmp_path / "work"


def test_an_npz_is_loaded_after_a_trip_between_processes(work: Path) -> None:
    save(work / "mine.npz", **my_arrays())
    arrays = load(pickle.loads(pickle.dumps(locate(DataRequest("npz", path="mine.npz")))))
    np.testing.assert_array_equal(arrays.x_train[:, 0], my_arrays()["x_train"])
    assert arrays.num_classes == 3


def test_an_npz_beside_the_spec_comes_before_one_in_the_current_directory(work: Path, tmp_path: Path) -> None:
    save(work / "mine.npz", **my_arrays())
    assert locate(DataRequest("npz", path="mine.npz"), spec_dir=tmp_path / "specs").path == str(
        work / "mine.npz"
    )
    save(tmp_path / "specs" / "mine.npz", **my_arrays())
    found = locate(DataRequest("npz", path="mine.npz"), spec_dir=tmp_path / "specs")
    assert found.path == str(tmp_path / "specs" / "mine.npz")
    assert not found.stand_in


def test_an_npz_that_is_nowhere_names_both_places(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        locate(DataRequest("npz", path="mine.npz"), spec_dir=tmp_path / "specs")
    assert str(tmp_path / "specs" / "mine.npz") in str(caught.value)
    assert str(work / "mine.npz") in str(caught.value)


def test_an_npz_that_lacks_arrays_says_what_it_has(work: Path) -> None:
    save(work / "mine.npz", x_train=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(InputError, match="lacks y_train, x_test, y_test; it has x_train, labels"):
        load(locate(DataRequest("npz", path="mine.npz")))


class Trap:
    """Unpickling this would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_a_pickle_in_an_npz_is_never_run(work: Path) -> None:
    save(work / "mine.npz", **my_arrays(y_train=np.array([Trap()] * 12, dtype=object)))
    with pytest.raises(InputError, match=r"y_train holds Python objects.*np\.unique"):
        load(locate(DataRequest("npz", path="mine.npz")))
    (work / "plain.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="cannot be read"):
        load(locate(DataRequest("npz", path="plain.npz")))
    assert not (work / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 3, 200, 0.5, 0.99])
def test_a_damaged_npz_is_refused(work: Path, kept: float) -> None:
    content = save(work / "mine.npz", **my_arrays()).read_bytes()
    (work / "mine.npz").write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(InputError, match=r"data\.path: .*mine\.npz: cannot be read"):
        load(locate(DataRequest("npz", path="mine.npz")))


def header(shape: str, kind: str = "<f4") -> bytes:
    """Return the beginning of an array's file that claims a shape."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            header("(4398046511104,)") + bytes(48),
            r"x_train claims float32 of shape \(4398046511104,\), which are 16",
        ),
        (header("(4, 1099511627776)"), "16.0 TiB"),
        (header("(-3, 2)") + bytes(24), r"x_train claims the shape \(-3, 2\), which no array has"),
        (header("(9223372036854775807, 9223372036854775807)"), "x_train claims float32"),
        (header("(nan,)"), "cannot be read"),
        (header("(3.0,)") + bytes(12), "cannot be read"),
        (header("(12, 2)") + bytes(95), "and the file holds 95 B of it"),
        (header("(12, 2)") + bytes(97), "and the file holds 97 B of it"),
        (header("(2,)", "<U400000000") + bytes(8), "x_train claims"),
        (b"\x93NUMPY\x03\x00" + header("(2,)")[8:], "version"),
        (b"no array", "cannot be read"),
    ],
)
def test_an_npz_that_claims_what_it_does_not_hold_is_a_damaged_file(
    work: Path, content: bytes, said: str, packing: int
) -> None:
    save(work / "mine.npz", **{name: part for name, part in my_arrays().items() if name != "x_train"})
    with zipfile.ZipFile(work / "mine.npz", "a", packing) as archive:
        archive.writestr("x_train.npy", content)
    with pytest.raises(InputError, match=r"data\.path: .*mine\.npz: cannot be read; ") as caught:
        load(locate(DataRequest("npz", path="mine.npz")))
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_single_array_that_claims_16_tib_is_no_npz(work: Path) -> None:
    (work / "one.npy").write_bytes(header("(4398046511104,)"))
    with pytest.raises(InputError, match="holds a single array"):
        load(locate(DataRequest("npz", path="one.npy")))


def test_a_packed_npz_is_loaded(work: Path) -> None:
    np.savez_compressed(work / "packed.npz", **my_arrays())
    np.savez_compressed(work / "wide.npz", x=np.zeros(10_000_000, np.uint8))
    np.testing.assert_array_equal(
        load(locate(DataRequest("npz", path="packed.npz"))).y_train, my_arrays()["y_train"]
    )
    check_claims(work / "wide.npz", ["x"])


def test_a_single_array_is_no_npz(work: Path) -> None:
    np.save(work / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="holds a single array"):
        load(locate(DataRequest("npz", path="one.npy")))


# ---------------------------------------------------------------- factories


@pytest.fixture
def factory_module(work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a person's own, with functions that return data sets of several forms."""
    save(work / "mine.npz", **my_arrays())
    (work / "my_own_data.py").write_text(
        "from collections import namedtuple\n"
        "import numpy as np\n"
        "Four = namedtuple('Four', 'x_train y_train x_test y_test')\n"
        "def as_mapping(path='mine.npz'): return dict(np.load(path))\n"
        "def as_tuple(): return Four(**as_mapping())\n"
        "def incomplete(): return {'x_train': 1}\n"
        "def number(): return 3\n"
        "def bad_labels(): return {**as_mapping(), 'y_train': np.arange(12) - 1}\n"
    )
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.delitem(sys.modules, "my_own_data", raising=False)
    return "my_own_data"


@pytest.mark.parametrize(("function", "options"), [("as_mapping", {"path": "mine.npz"}), ("as_tuple", {})])
def test_a_factorys_arrays_are_loaded(factory_module: str, function: str, options: dict[str, Any]) -> None:
    source = locate(DataRequest(None, factory=f"{factory_module}:{function}", options=options))
    assert source.name == f"{factory_module}:{function}"
    assert not source.stand_in
    np.testing.assert_array_equal(load(source).x_test[:, 0], my_arrays()["x_test"])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("incomplete", "lacks y_train, x_test, y_test; it has x_train"),
        ("number", "is a int; known: a mapping or a tuple"),
        ("bad_labels", r"my_own_data:bad_labels returned: y_train\[0\] is -1"),
    ],
)
def test_what_a_factory_returns_is_checked(factory_module: str, function: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(locate(DataRequest(None, factory=f"{factory_module}:{function}")))


def test_a_factory_that_is_not_there_is_refused_where_it_is_loaded(factory_module: str) -> None:
    source = locate(DataRequest(None, factory=f"{factory_module}:as_tupel"))
    with pytest.raises(InputError, match=r"data\.factory.*as_tuple"):
        load(source)


def test_a_factory_is_not_run_to_be_located(work: Path) -> None:
    (work / "my_trap.py").write_text("raise AssertionError('it was run')\n")
    assert locate(DataRequest(None, factory="my_trap:make"), spec_dir=work).is_factory
    assert "my_trap" not in sys.modules


# ---------------------------------------------------------------- by name


def test_every_name_of_the_catalog_has_a_loader() -> None:
    assert set(datasets._LOADERS) == set(DATASETS)


def test_digits_are_scikit_learns_with_a_stratified_fifth_for_the_test() -> None:
    arrays = load(locate(DataRequest("digits")))
    images, labels = load_digits(return_X_y=True)
    assert (len(arrays.y_train), len(arrays.y_test)) == (1438, 359)
    assert np.all(np.abs(np.bincount(arrays.y_test) - 0.2 * np.bincount(labels)) < 1.1)
    together = np.concatenate([arrays.x_train, arrays.x_test]).reshape(1797, 64)
    assert together.dtype == np.uint8
    assert sorted(map(bytes, together)) == sorted(map(bytes, (images * 15).astype(np.uint8)))
    assert arrays.num_classes == 10
    assert arrays.x_train.tobytes() == load(locate(DataRequest("digits"))).x_train.tobytes()


def test_a_generated_set_is_loaded_with_its_seed() -> None:
    arrays = load(locate(DataRequest("spirals", seed=5)))
    np.testing.assert_array_equal(arrays.x_train, generate("spirals", seed=5)[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "cifra10"}, r"data\.name: unknown 'cifra10'.*Did you mean 'cifar10'"),
        ({"name": "cifar10", "stand_in": "cifar-like"}, r"data\.stand_in: unknown"),
        ({"name": "digits", "stand_in": "mnist-like"}, "only cifar10 takes one; digits needs no download"),
        ({"name": "npz"}, r"data\.path: npz needs it"),
        ({"name": "digits", "path": "a.npz"}, "nothing else takes it"),
        ({"name": "digits", "options": {"sides": 3}}, "digits takes no sides"),
        ({"name": None}, "needs either a name or a factory"),
        ({"name": "digits", "factory": "a:b"}, "needs either a name or a factory"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        locate(DataRequest(**arguments))


def test_cifar10_that_is_here_is_no_stand_in(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = cifar10.Release("http://a.invalid", 1, "", rows_per_file=10)
    monkeypatch.setattr(cifar10.read_cifar10, "__defaults__", (small,))
    monkeypatch.setattr(cifar10, "obtain_cifar10", lambda **_options: cifar10.find_cifar10())
    folder = work / "data" / cifar10.FOLDER
    folder.mkdir(parents=True)
    table = np.zeros((10, 3073), np.uint8)
    table[:, 0] = np.arange(10)
    for name in cifar10.FILES:
        table.tofile(folder / name)
    source = locate(DataRequest("cifar10", stand_in="cifar10-like"))
    assert (source.name, source.path, source.announcement()) == ("cifar10", str(folder), None)
    arrays = load(source)
    assert (arrays.x_train.shape, arrays.num_classes) == ((50, 3, 32, 32), 10)


def test_a_stand_in_is_announced_with_its_reason(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, *_arguments: object, **_options: object) -> Path:
        raise DownloadError(url, "no connection: Name or service not known", "Check the network")

    monkeypatch.setattr(cifar10, "download", fail)
    source = locate(DataRequest("cifar10", stand_in="cifar10-like", seed=4))
    assert (source.name, source.wanted, source.stand_in, source.options) == (
        "cifar10-like", "cifar10", True, {"seed": 4},
    )  # fmt: skip
    said = source.announcement()
    assert said is not None
    assert said.startswith("cifar10 is not on this machine (looked in data, ")
    assert "cannot be downloaded (no connection: Name or service not known)" in said
    assert "its stand-in cifar10-like is used (generated: " in said
    assert said.endswith("Accuracies are not those of cifar10.")


def test_a_reason_that_others_read_names_no_home(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(work))
    monkeypatch.setenv("BENCH_DATA", str(work / "my data"))
    source = locate(DataRequest("cifar10", stand_in="cifar10-like"), allow_download=False)
    said = source.announcement()
    assert said is not None
    assert "looked in ~/my data, data, " in said
    assert str(work) not in said


def test_without_a_stand_in_the_error_says_where_to_put_the_file(work: Path) -> None:
    with pytest.raises(InputError) as caught:
        locate(DataRequest("cifar10"), allow_download=False)
    for part in (
        "looked in data, ",
        cifar10.PUBLISHED.url,
        "may not be downloaded",
        "`stand_in: cifar10-like`",
    ):
        assert part in str(caught.value)


def test_a_damaged_copy_is_an_error_and_not_a_stand_in(work: Path) -> None:
    (work / "data" / cifar10.FOLDER).mkdir(parents=True)
    with pytest.raises(InputError, match=r"data_batch_1\.bin: is missing"):
        locate(DataRequest("cifar10", stand_in="cifar10-like"), allow_download=False)


def test_the_real_thing_needs_no_announcement() -> None:
    assert Source("spirals", "spirals").announcement() is None


def test_importing_the_module_does_not_import_torch_or_scikit_learn() -> None:
    code = "import sys, fusetune.bench.workloads.datasets; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
