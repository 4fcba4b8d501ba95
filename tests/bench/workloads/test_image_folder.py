"""A person's own pictures: classes, labels, sizes and modes, and every fault in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusetune.bench.errors import InputError
from fusetune.bench.workloads.datasets import DataRequest, load, locate, split


def picture(
    path: Path, value: Any = 0, *, mode: str = "L", size: tuple[int, int] = (4, 3), **options: Any
) -> None:
    """Save a picture of one value. `size` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, beside that of the spec."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "spec").mkdir()
    return tmp_path / "spec"


def loaded(work: Path, **keys: Any) -> Any:
    return load(locate(DataRequest("folder", path="mine", **keys), spec_dir=work))


def values(x: np.ndarray) -> list[Any]:
    """What the pixels of each picture, all alike, are: a number or a tuple of its channels."""
    assert (x == x[:, :, :1, :1]).all()
    return [tuple(row) if len(row) > 1 else row[0] for row in x[:, :, 0, 0].tolist()]


def test_class_folders_become_numbers_in_the_order_of_their_names(work: Path) -> None:
    for index, name in enumerate(("zebra", "Ant", "cat")):
        for k in range(5):
            picture(work / "mine" / name / f"deep/{k}.png", 10 * index + k)
    (work / "mine" / "cat" / "notes.txt").write_text("passed over")
    (work / "mine" / ".hidden").mkdir()
    source = locate(DataRequest("folder", path="mine"), spec_dir=work)
    assert source.classes == ("Ant", "cat", "zebra")  # torchvision's order: that of text, capitals first
    arrays = load(source)
    assert arrays.x_train.shape == (12, 1, 3, 4)
    assert arrays.x_train.dtype == np.uint8
    x, y = np.concatenate([arrays.x_train, arrays.x_test]), np.concatenate([arrays.y_train, arrays.y_test])
    assert sorted(zip(values(x), y.tolist(), strict=True)) == sorted(
        (10 * index + k, number) for index, number in ((0, 2), (1, 0), (2, 1)) for k in range(5)
    )
    assert np.bincount(arrays.y_test).tolist() == [1, 1, 1]  # a stratified fifth
    assert load(source).x_train.tobytes() == arrays.x_train.tobytes()
    assert len(split(arrays, validation=3).y_train) == 9


def test_folders_train_and_test_hold_the_classes(work: Path) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for number, name in enumerate(("a", "b")):
            for k in range(count):
                picture(work / "mine" / part / name / f"{k}.png", 100 * (part == "test") + number)
    arrays = loaded(work)
    assert values(arrays.x_test) == [100, 101]
    assert arrays.y_train.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_csv_file_names_files_labels_and_splits(work: Path) -> None:
    rows = [
        ("a.png", "10", "train"),
        ("sub/b.png", "9", "train"),
        ("c, d.png", "9", "test"),
        ("e.png", "10", "train"),
    ]
    for value, (name, _, _) in enumerate(rows):
        picture(work / "mine" / name, value)
    picture(work / "mine" / "unlabelled.png", 99)
    quoted = "".join(f'"{name}", {label} ,{part}\r\n\r\n' for name, label, part in rows)
    (work / "labels.csv").write_bytes(b"\xef\xbb\xbffile,label , split\r\n" + quoted.encode())
    source = locate(DataRequest("folder", path="mine", labels="labels.csv"), spec_dir=work)
    assert source.classes == ("9", "10")  # whole numbers stand in their own order
    arrays = load(source)
    assert (values(arrays.x_train), arrays.y_train.tolist()) == ([0, 1, 3], [1, 0, 1])
    assert (values(arrays.x_test), arrays.y_test.tolist()) == ([2], [0])
    (work / "labels.csv").rename(work / "mine" / "labels.csv")
    assert locate(DataRequest("folder", path="mine", labels="labels.csv"), spec_dir=work).classes == (
        "9",
        "10",
    )


def test_grey_stays_grey_and_anything_else_makes_all_rgb(work: Path) -> None:
    grey = {"1": 1, "L": 7, "LA": (9, 3)}
    for k, (mode, value) in enumerate(grey.items()):
        for copy in range(2):
            picture(work / "mine" / "ab"[copy] / f"{k}.png", value, mode=mode)
    assert sorted(values(np.concatenate([(a := loaded(work)).x_train, a.x_test]))) == [7, 7, 9, 9, 255, 255]
    picture(work / "mine" / "a" / "rgb.png", (1, 2, 3), mode="RGB")
    picture(work / "mine" / "a" / "rgba.png", (4, 5, 6, 0), mode="RGBA")
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(work / "mine" / "a" / "palette.png", transparency=1)
    picture(work / "mine" / "b" / "cmyk.tif", (255, 0, 0, 0), mode="CMYK")
    found = values(np.concatenate([(a := loaded(work)).x_train, a.x_test]))
    assert sorted(found) == sorted(
        [(7,) * 3, (9,) * 3, (255,) * 3] * 2 + [(1, 2, 3), (4, 5, 6), (10, 20, 30), (0, 255, 255)]
    )


def test_images_are_resized_where_a_size_is_given(work: Path) -> None:
    for number, name in enumerate(("a", "b")):
        for k in range(3):
            picture(work / "mine" / name / f"{k}.png", 50 * number, size=(4 + k, 3))
    with pytest.raises(
        InputError, match=r"mine/a/1\.png: is 3x5 .* where 2 of 6 images are 3x4.*size: \[3, 4\]"
    ):
        loaded(work)
    arrays = loaded(work, size=[2, 5])
    assert arrays.x_train.shape[1:] == (1, 2, 5)
    assert set(values(arrays.x_train)) == {0, 50}
    # The mean of a left half and a right one, by the definition of a bilinear filter that covers both alike.
    half = np.zeros((3, 4), np.uint8)
    half[:, 2:] = 200
    Image.fromarray(half).save(work / "mine" / "a" / "0.png")
    x = loaded(work, size=[1, 1]).x_train
    assert 100 in x.ravel().tolist() or 100 in loaded(work, size=[1, 1]).x_test.ravel().tolist()


def test_a_photograph_is_turned_as_its_exif_orientation_says(work: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    for number, name in enumerate(("a", "b")):
        for k in range(3):
            picture(work / "mine" / name / f"{k}.jpg", 99 * number, size=(16, 8), exif=exif)
    assert loaded(work).x_train.shape[1:] == (1, 16, 8)


def of_two_classes(folder: Path) -> None:
    for name in ("a", "b"):
        for k in range(3):
            picture(folder / name / f"{k}.png")


def cut(path: Path) -> None:
    """Save half of a picture."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FOLDER_FAULTS: dict[str, tuple[Any, str]] = {
    "truncated": (lambda mine: cut(mine / "a/1.png"), r"mine/a/1\.png: cannot be read as an image"),
    "no image": (lambda mine: (mine / "a/1.png").write_text("x"), r"a/1\.png: is no image that Pillow knows"),
    "empty": (lambda mine: (mine / "a/1.png").write_bytes(b""), r"a/1\.png: is no image"),
    "16 bits": (
        lambda mine: picture(mine / "a/1.png", 9, mode="I;16"),
        r"a/1\.png: has mode I;16; known: 8 bits",
    ),
    "empty class": (lambda mine: (mine / "c").mkdir(), "the folder 'c' holds no images"),
    "one class": (lambda mine: (mine / "b").rename(mine / "a/b"), "has one class only, 'a'"),
    "no classes": (lambda mine: [(mine / n).rename(mine.parent / n) for n in "ab"], "no class folders"),
    "validation": (
        lambda mine: [(mine / "a").rename(mine / "train"), (mine / "b").rename(mine / "val")],
        "train, val;",
    ),
    "lone image": (
        lambda mine: (
            [(mine / f"a/{k}.png").unlink() for k in (1, 2)]
            + [picture(mine / f"b/{k}.png") for k in range(9)]  # type: ignore[func-returns-value]
        ),
        "",
    ),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_what_is_wrong_with_a_folder_is_one_sentence(work: Path, fault: str) -> None:
    of_two_classes(work / "mine")
    change, message = FOLDER_FAULTS[fault]
    change(work / "mine")
    if not message:
        assert loaded(work).y_train.tolist().count(0) == 1
        return
    with pytest.raises(InputError, match=message) as caught:
        loaded(work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'file'"),
        ("file,lable\na/0.png,1\n", r"unknown 'lable'; known: file, label, split\. Did you mean 'label'"),
        ("file,file\n", "'file' twice"),
        ("file;label\na/0.png;1\n", "separates its columns by ';'"),
        ("file\na/0.png\n", "lacks the column 'label'"),
        ("file,label\n", "has no rows"),
        ("file,label\na/0.png,x\na/7.png,y\n", r"labels\.csv:3: no file 'a/7\.png' in .*Did you mean"),
        ("file,label\na/0.png,x\n./a/0.png,y\n", r"labels\.csv:3: './a/0\.png' is in line 2 already"),
        ("file,label\na/0.png\n", r"labels\.csv:2: has 1 values for 2 columns"),
        ("file,label\na/0.png,\n", r"labels\.csv:2: has no label"),
        ("file,label,split\na/0.png,x,val\n", "unknown split 'val'; known: train, test.*data.validation"),
        ("file,label,split\na/0.png,x,train\nb/0.png,y,train\n", "has no test images"),
        ("file,label,split\na/0.png,x,train\na/1.png,x,train\nb/0.png,y,test\n", "class 'y' is in the test set alone"),
        ("file,label\na/0.png,x\na/1.png,x\n", "has one class only, 'x'"),
        ('file,label\n"a/0.png,x\n', "cannot be read"),
        ("file,label\na/0.png,\xe9\n".encode("latin-1"), "cannot be read.*UTF-8"),
        ("file,label\na/0.png,x\nb/0.png,y\n", "has 2 images; a fifth is held for the test"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_csv_file_is_one_sentence(work: Path, text: str | bytes, message: str) -> None:
    of_two_classes(work / "mine")
    (work / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        loaded(work, labels="labels.csv")
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said_with_where_it_was_looked_for(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"data\.path: no folder 'mine'; looked for .*spec/mine and .*here/mine"
    ):
        loaded(work)
    of_two_classes(work / "mine")
    with pytest.raises(InputError, match=r"data\.labels: no file 'l\.csv'; looked for .*spec/l\.csv"):
        loaded(work, labels="l.csv")
    source = locate(DataRequest("folder", path="mine"), spec_dir=work)
    (work / "mine" / "a" / "0.png").unlink()
    assert load(source).num_classes == 2
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        InputError, match=r"Pillow, which is not installed\. Run: python -m pip install Pillow"
    ):
        loaded(work)
