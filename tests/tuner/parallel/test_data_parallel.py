"""Several processes train as one does: the same mathematics, no sample twice, the same decisions in each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fusetune.tuner.parallel.sharding import blocks
from tests.tuner.parallel import battery

Found = dict[str, Any]
slow = pytest.mark.slow
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


@pytest.fixture(scope="module")
def alone() -> Found:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return battery.alone()
    finally:
        torch.set_num_threads(threads)


def launched(processes: int, *, everything: bool) -> list[Found]:
    """Return what each of some processes has found."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="battery",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(),
    )
    found = elastic_launch(config, battery.as_rank)(everything)
    return [found[rank] for rank in range(processes)]


@pytest.fixture(scope="module")
def two() -> list[Found]:
    return launched(2, everything=True)


@pytest.fixture(scope="module")
def four() -> list[Found]:
    return launched(4, everything=False)


@pytest.fixture(params=["two", "four"])
def together(request: pytest.FixtureRequest) -> list[Found]:
    """What each of two, and of four, processes has found."""
    found: list[Found] = request.getfixturevalue(request.param)
    return found


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of two models' weights and buffers."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@slow
def test_weights_after_100_steps_agree_to_the_rounding_of_sums(
    alone: Found, together: list[Found], dtype: str
) -> None:
    """Softmax regression is convex, so a step of size up to 2/L brings two sets of weights no further apart.

    After T steps they differ by at most T (lr e + r): e bounds the difference of two roundings of one gradient, and r
    that of an update. An entry of the gradient is a mean of B products of a feature and a difference of
    probabilities, at most 1. Its rounding error is at most k u max|x|, for k operations in a row: B products and sums,
    the F + 1 of a logit, the C of the softmax, and some 10 of exp, logarithm and divisions. Two roundings of it
    differ by twice that. There are (F + 1) C entries, and the distance is at most the Euclidean one.
    """
    x, _ = battery.vectors(torch.float64)
    lr, entries = 0.1, (battery.FEATURES + 1) * battery.CLASSES
    assert lr <= 2 / (0.5 * float((x.square().sum(1) + 1).max()))  # L <= max |(x, 1)|^2 / 2
    in_a_row = battery.BATCH + battery.FEATURES + battery.CLASSES + 10
    found = alone[f"linear {dtype}"]["weights"]
    largest = max(float(w.abs().max()) for w in found.values())
    gradient = 2 * in_a_row * UNIT[dtype] * float(x.abs().max())
    bound = battery.STEPS * entries**0.5 * (lr * gradient + 2 * UNIT[dtype] * largest)
    assert alone[f"linear {dtype}"]["steps"] == battery.STEPS
    for rank in together:
        assert distance(rank[f"linear {dtype}"]["weights"], found) <= bound
    # The same bound holds for each against the exact weights, which float64 gives to 1e-12.
    exact = alone["linear float64"]["weights"]
    assert distance(together[0][f"linear {dtype}"]["weights"], exact) <= bound + 1e-12


@slow
def test_clipping_accumulation_smoothing_and_adam_are_those_of_one_process(
    alone: Found, two: list[Found]
) -> None:
    """In float64 the weights agree to 1e-9. In float32 they are as near to those as one process's are, times 16."""
    exact = alone["perceptron float64"]["weights"]
    one = distance(alone["perceptron float32"]["weights"], exact)
    for rank in two:
        assert distance(rank["perceptron float64"]["weights"], exact) < 1e-9
        assert distance(rank["perceptron float32"]["weights"], exact) < max(16 * one, 1e-5)
        assert rank["perceptron float64"]["curve"] == [
            pytest.approx(entry, rel=1e-9, abs=1e-12) for entry in alone["perceptron float64"]["curve"]
        ]


@slow
def test_sharded_parameters_train_alike(alone: Found, two: list[Found]) -> None:
    for rank in two:
        assert distance(rank["sharded"]["weights"], alone["perceptron float64"]["weights"]) < 1e-9
        assert rank["sharded"]["curve"] == [
            pytest.approx(entry, rel=1e-9, abs=1e-12) for entry in alone["sharded"]["curve"]
        ]


@slow
def test_synchronised_batch_normalisation_works_over_the_whole_batch(alone: Found, two: list[Found]) -> None:
    for rank in two:
        assert distance(rank["normalised"]["weights"], alone["normalised"]["weights"]) < 1e-4
        # Of shares it is another training.
        assert distance(rank["shares normalised"]["weights"], alone["normalised"]["weights"]) > 1e-3


@slow
def test_every_process_ends_with_the_same_weights_and_curve(together: list[Found]) -> None:
    for name, found in together[0].items():
        if name == "communication":
            continue
        for rank in together[1:]:
            assert rank[name]["curve"] == found["curve"]
            for weight, tensor in rank[name]["weights"].items():
                assert torch.equal(tensor.nan_to_num(), found["weights"][weight].nan_to_num())


@slow
def test_no_sample_is_trained_on_twice_and_none_is_lost(alone: Found, together: list[Found]) -> None:
    """The shares together are the batches of one process. The first numbers are those of looks before training."""
    steps = 2 * 3
    share = battery.BATCH // len(together)
    one = alone["noted"]["trained"][-steps * battery.BATCH :]
    others = [rank["noted"]["trained"][-steps * share :] for rank in together]
    for step in range(steps):
        whole = [number for other in others for number in other[step * share : (step + 1) * share]]
        assert whole == one[step * battery.BATCH : (step + 1) * battery.BATCH]
    for epoch in (one[: len(one) // 2], one[len(one) // 2 :]):
        assert max(Counter(epoch).values()) == 1


@slow
def test_evaluations_count_each_sample_once(alone: Found, together: list[Found]) -> None:
    """Also where a batch has fewer samples than there are processes: then one looks at a sample that does not count."""
    for rank in together:
        assert rank["noted"]["curve"] == [
            pytest.approx(entry, rel=1e-12, abs=1e-14) for entry in alone["noted"]["curve"]
        ]


@pytest.mark.parametrize("name", ["broken", "late", "early"])
@slow
def test_all_processes_end_at_the_same_step(alone: Found, two: list[Found], name: str) -> None:
    ends = {(rank[name]["steps"], rank[name]["ended"]) for rank in two}
    assert len(ends) == 1
    steps, reason = ends.pop()
    assert reason
    if name == "broken":
        assert "the training loss was inf" in reason or "nan" in reason or "not finite" in reason
        assert alone[name]["steps"] <= steps <= 20  # noticed by the end of the epoch at the latest
    if name == "early":
        assert (steps, reason) == (alone[name]["steps"], alone[name]["ended"])


@slow
def test_communication_is_measured(together: list[Found]) -> None:
    measured = together[0]["communication"]
    assert measured.seconds > 0
    assert 0 <= measured.overlapped <= 1
    assert measured.bytes_per_step == 8 * (battery.FEATURES + 1) * battery.CLASSES


def test_blocks_leave_out_shared_parameters_and_modules_that_are_not_called() -> None:
    hidden, tied, last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    last.weight = tied.weight
    model = nn.Sequential(nn.Sequential(hidden, nn.ReLU()), tied, last)
    assert blocks(model, set(model.modules())) == [hidden]
    assert blocks(model, set()) == []
