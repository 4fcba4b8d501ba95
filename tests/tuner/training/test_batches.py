from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from fusetune.tuner.training.batches import Augment, Batches, ChannelStatistics, channel_statistics
from fusetune.tuner.training.evaluation import evaluate


def _images(count: int = 32, channels: int = 3, height: int = 8, width: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=generator).to(torch.uint8)


def _labels(count: int = 32) -> torch.Tensor:
    return torch.arange(count)


def _epoch(batches: Batches, index: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    xs, ys = zip(*batches.epoch(index), strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_an_epoch_is_a_permutation_that_leaves_out_what_does_not_fill_a_batch() -> None:
    x = torch.arange(10.0)[:, None]
    batches = Batches(x, torch.arange(10), 4)
    drawn, labels = _epoch(batches)
    assert len(batches) == 2
    assert len(set(labels.tolist())) == 8
    assert torch.equal(drawn[:, 0].long(), labels)


def test_epochs_leave_out_different_samples() -> None:
    batches = Batches(torch.arange(10.0)[:, None], torch.arange(10), 8)
    left_out = [frozenset(range(10)) - set(_epoch(batches, index)[1].tolist()) for index in range(8)]
    assert len(set(left_out)) > 1


def test_order_and_augmentation_depend_on_seed_and_epoch_alone() -> None:
    def make(seed: int) -> Batches:
        return Batches(_images(), _labels(), 8, seed=seed, augment=Augment(flip=True, translate=2, cutout=3))

    used = make(3)
    _epoch(used, 0)
    torch.manual_seed(99)
    again = _epoch(make(3), 1)
    assert all(torch.equal(a, b) for a, b in zip(_epoch(used, 1), again, strict=True))
    assert not torch.equal(_epoch(make(4), 1)[1], again[1])
    assert not torch.equal(_epoch(make(3), 0)[1], again[1])


def test_torchs_own_random_state_is_not_touched() -> None:
    before = torch.random.get_rng_state()
    _epoch(Batches(_images(), _labels(), 8, augment=Augment(flip=True, translate=1, cutout=1)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_in_order_yields_everything_once_and_unchanged() -> None:
    x = torch.randn(10, 3)
    parts = list(Batches(x, torch.arange(10), 4, augment=None).in_order())
    assert [len(y) for _, y in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part for part, _ in parts]), x)


def test_in_order_never_augments() -> None:
    plain = Batches(_images(), _labels(), 8)
    augmented = Batches(_images(), _labels(), 8, augment=Augment(flip=True, translate=2, cutout=3))
    for (expected, _), (x, _) in zip(plain.in_order(), augmented.in_order(), strict=True):
        assert torch.equal(expected, x)


def test_uint8_is_scaled_to_one_and_normalised_per_channel() -> None:
    x, mean, std = _images(), [0.5, 0.4, 0.3], [0.25, 0.2, 0.1]
    got = torch.cat(
        [part for part, _ in Batches(x, _labels(), 8, statistics=ChannelStatistics(mean, std)).in_order()]
    )
    shape = (1, 3, 1, 1)
    expected = (x.double() / 255 - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_uint8_without_statistics_lies_between_0_and_1() -> None:
    x = torch.tensor([[0], [51], [255]], dtype=torch.uint8)
    ((got, _),) = Batches(x, torch.arange(3), 3).in_order()
    torch.testing.assert_close(got, torch.tensor([[0.0], [0.2], [1.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floating_data_keep_their_dtype_and_the_callers_tensor_is_left_alone(dtype: torch.dtype) -> None:
    x = torch.randn(6, 2, dtype=dtype)
    before = x.clone()
    ((got, _),) = Batches(
        x, torch.arange(6), 6, statistics=ChannelStatistics([1.0, 2.0], [2.0, 4.0])
    ).in_order()
    assert got.dtype == dtype
    assert torch.equal(x, before)
    torch.testing.assert_close(
        got, (before - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0]), check_dtype=False
    )


def test_cutout_does_not_reach_the_data_themselves() -> None:
    x = torch.ones(8, 1, 6, 6)
    _epoch(Batches(x, torch.arange(8), 8, augment=Augment(cutout=4)))
    assert x.eq(1).all()


def test_numpy_arrays_are_taken_too() -> None:
    batches = Batches(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1], np.uint8), 2)
    assert {y.dtype for _, y in batches.epoch(0)} == {torch.int64}


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest() -> None:
    x = _images(400)
    got, labels = _epoch(Batches(x, _labels(400), 100, augment=Augment(flip=True)))
    original = x[labels].float() / 255
    kept = (got - original).abs().amax((1, 2, 3)) < 1e-6
    mirrored = (got - original.flip(3)).abs().amax((1, 2, 3)) < 1e-6
    assert (kept ^ mirrored).all()
    # Binomial(400, 1/2): 160..240 is four standard deviations.
    assert 160 <= int(mirrored.sum()) <= 240


def test_translate_is_a_window_of_the_reflected_image_and_reaches_every_shift() -> None:
    reach, x = 2, _images(400)
    got, labels = _epoch(Batches(x, _labels(400), 100, augment=Augment(translate=reach)))
    padded = functional.pad(x[labels].float() / 255, (reach,) * 4, mode="reflect")
    height, width = x.shape[2:]
    seen = torch.zeros(2 * reach + 1, 2 * reach + 1)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            window = padded[:, :, down : down + height, right : right + width]
            seen[down, right] = ((got - window).abs().amax((1, 2, 3)) < 1e-6).sum()
    assert seen.sum() == 400
    assert (seen > 0).all()


def test_cutout_sets_one_square_inside_each_image_to_the_mean() -> None:
    size, x = 3, _images(64)
    got, labels = _epoch(Batches(x, _labels(64), 32, augment=Augment(cutout=size)))
    hole = got.eq(0)
    assert torch.equal(hole[:, 0], hole[:, 1])
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)
    assert hole[:, 0].sum((1, 2)).eq(size * size).all()
    assert rows.sum(1).eq(size).all()
    assert columns.sum(1).eq(size).all()
    kept = ~hole
    torch.testing.assert_close(got[kept], (x[labels].float() / 255)[kept])
    assert len({tuple(row.tolist()) for row in rows}) == 8 - size + 1


def test_cutout_of_the_whole_image_and_translation_by_all_but_one_pixel_are_possible() -> None:
    got, _ = _epoch(Batches(_images(), _labels(), 8, augment=Augment(translate=7, cutout=8)))
    assert got.eq(0).sum() == 32 * 3 * 64


def test_memory_format_is_that_of_every_batch() -> None:
    for x in (_images(), _images().float()):
        batches = Batches(x, _labels(), 8, memory_format=torch.channels_last, augment=Augment(flip=True))
        for source in (batches.epoch(0), batches.in_order()):
            assert all(part.is_contiguous(memory_format=torch.channels_last) for part, _ in source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4)}, "neither"),
        ({"x": torch.zeros(4, 2, dtype=torch.int64)}, "neither uint8 nor floating"),
        ({"y": torch.zeros(4)}, "integer class labels"),
        ({"y": torch.zeros(4, 1, dtype=torch.int64)}, "integer class labels"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "4 samples and 3 labels"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"statistics": ChannelStatistics([0.0], [1.0])}, "1 and 1 numbers for 2 channels"),
        ({"statistics": ChannelStatistics([0.0, 0.0], [1.0, 0.0])}, "std above 0"),
        ({"statistics": ChannelStatistics([0.0, float("nan")], [1.0, 1.0])}, "finite"),
        ({"augment": Augment(flip=True)}, "needs images"),
        ({"augment": Augment(cutout=1)}, "needs images"),
        ({"x": torch.zeros(4, 1, 8, 5), "augment": Augment(translate=5)}, "shorter edge, 5 pixels"),
        ({"x": torch.zeros(4, 1, 8, 5), "augment": Augment(cutout=6)}, "shorter edge, 5 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    arguments = {"x": torch.zeros(4, 2), "y": torch.zeros(4, dtype=torch.int64), "batch_size": 2}
    with pytest.raises(ValueError, match=message):
        Batches(**(arguments | change))


@pytest.mark.parametrize("arguments", [{"translate": -1}, {"cutout": 1.5}])
def test_pixels_are_whole_numbers(arguments: dict) -> None:
    with pytest.raises(ValueError, match="whole number of pixels"):
        Augment(**arguments)


def test_features_may_have_an_augmentation_that_does_nothing() -> None:
    assert len(Batches(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), 2, augment=Augment())) == 2


def test_an_epoch_of_batches_larger_than_the_data_is_refused() -> None:
    batches = Batches(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), 5)
    with pytest.raises(ValueError, match="5 is more than the 4 samples"):
        next(batches.epoch(0))


def test_channel_statistics_are_numpys() -> None:
    pixels = _images()
    mean, std = channel_statistics(pixels)
    expected = pixels.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, expected.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, expected.std((0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_has_a_std_of_one() -> None:
    assert channel_statistics(torch.full((3, 1), 0.1))[1] == [1.0]


class Counting(torch.nn.Module):
    """A linear model with dropout and batch normalisation, one module of it frozen in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.BatchNorm1d(4).eval()
        self.dropout = torch.nn.Dropout(0.5)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return self.linear(self.dropout(self.frozen(x)))


def test_evaluation_is_the_mean_over_all_samples_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    model = Counting()
    x, y = torch.randn(50, 4), torch.randint(0, 3, (50,))
    loss, accuracy = evaluate(model, Batches(x, y, 16))
    with torch.no_grad():
        logits = model.linear(x / (1 + 1e-5) ** 0.5).double()
    assert loss == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == y).double().mean().item()


def test_evaluation_gives_every_module_its_own_mode_back() -> None:
    model = Counting()
    model.train()
    model.frozen.eval()
    evaluate(model, Batches(torch.randn(4, 4), torch.zeros(4, dtype=torch.int64), 4))
    assert (model.training, model.dropout.training, model.frozen.training) == (True, True, False)


def test_evaluation_restores_modes_when_the_model_fails() -> None:
    model = Counting()
    with pytest.raises(RuntimeError, match=r"shape|size|running_mean"):
        evaluate(model, Batches(torch.randn(4, 5), torch.zeros(4, dtype=torch.int64), 4))
    assert model.training
