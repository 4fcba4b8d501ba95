"""Stochastic rounding of bf16 parameters: its law in plain PyTorch, and what it does for an optimizer."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD
from fusetune.kernels.optimizers.rounding import RandomSource, stochastically_rounded
from fusetune.kernels.static.recorder import record_launches
from tests.kernels import rounding_laws
from tests.kernels.trajectories import copies, largest_error, parameters, set_gradients

pytestmark = pytest.mark.usefixtures("cpu_path")

PAIRS = [
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, id="sgd"),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True}, id="adam"),
    pytest.param(FusedAdamW, torch.optim.AdamW, {"lr": 0.01}, id="adamw"),
]
pairs = pytest.mark.parametrize(("fused_class", "torch_class", "options"), PAIRS)


def stochastic(cls: Any, params: Any, seed: int = 0, **options: Any) -> Any:
    """Make an optimizer that rounds stochastically, by this seed."""
    torch.manual_seed(seed)
    return cls(params, **options, stochastic_rounding=True)


def run(optimizer: Any, params: Any, steps: int, begin: int = 0) -> None:
    """Take `steps` steps on the gradients that `set_gradients` gives from step `begin` on."""
    for step in range(begin, begin + steps):
        set_gradients(step, params)
        optimizer.step()


@pytest.mark.parametrize(
    "law",
    [
        rounding_laws.assert_neighbours_with_the_right_frequency,
        rounding_laws.assert_exact_values_stay,
        rounding_laws.assert_only_infinities_become_infinite,
        rounding_laws.assert_elements_are_independent,
    ],
)
def test_plain_pytorch_obeys_the_law(law: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    law(lambda x: stochastically_rounded(x, generator))


def test_any_layout_keeps_its_places() -> None:
    x = torch.randn(6, 10).to(torch.bfloat16).float()
    generator = torch.Generator().manual_seed(0)
    for view in (x.t(), x[:, ::2], x[0, 0], x[:0]):
        assert torch.equal(stochastically_rounded(view, generator).float(), view)


@pytest.mark.parametrize("cls", [FusedSGD, FusedAdam, FusedAdamW])
def test_small_updates_move_a_weight_on_average_where_rounding_to_nearest_is_stuck(cls: Any) -> None:
    steps, change, elements = 64, 2.0**-12, 4096

    def moved(**options: Any) -> Tensor:
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.ones(elements, dtype=torch.bfloat16))
        p.grad = torch.ones_like(p)
        rest = {} if cls is FusedSGD else {"weight_decay": 0.0}
        optimizer = cls([p], lr=change, **rest, **options)
        for _ in range(steps):
            optimizer.step()
        return 1 - p.detach().double()

    assert float(moved().abs().max()) == 0
    # Below 1 neighbours are 2**-8 apart; a step goes down with a chance of 1/16, and its variance adds up.
    deviation = 2**-8 * (steps * 15 / 256 / elements) ** 0.5
    # bf16 moments of a constant gradient settle a little off it: 0.4% of the change.
    allowed = 5 * deviation + (0 if cls is FusedSGD else 0.01 * steps * change)
    assert abs(float(moved(stochastic_rounding=True).mean()) - steps * change) <= allowed


def half_way(optimizer_options: Any = None) -> tuple[list[Tensor], Any]:
    """Make two parameters that a step takes to half-way between neighbours, so that every draw shows."""
    params = [torch.nn.Parameter(torch.ones(2048, dtype=torch.bfloat16)) for _ in range(2)]
    for p in params:
        p.grad = torch.full_like(p, -(2.0**-8))
    return params, stochastic(FusedSGD, params, lr=1.0, **(optimizer_options or {}))  # type: ignore[return-value]


def test_steps_parameters_and_seeds_have_bits_of_their_own() -> None:
    params, optimizer = half_way()
    draws = []
    for _ in range(2):
        for p in params:
            p.data.fill_(1)
        optimizer.step()
        draws += [(p.detach() > 1).clone() for p in params]
    torch.manual_seed(1)
    other = FusedSGD(params, lr=1.0, stochastic_rounding=True)
    params[0].data.fill_(1)
    other.step()
    draws.append(params[0].detach() > 1)
    for i, one in enumerate(draws):
        for another in draws[:i]:
            assert abs(float((one == another).double().mean()) - 0.5) < 5 * 0.5 / 2048**0.5


@pairs
def test_same_seed_and_same_steps_give_the_same_numbers(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    results = []
    for seed in (0, 0, 1):
        params = parameters(torch.bfloat16)
        run(stochastic(fused_class, params, seed, **options), params, 3)
        results.append(params)
    assert largest_error(results[0], results[1]) == 0
    assert largest_error(results[0], results[2]) > 0


@pairs
def test_other_dtypes_and_states_are_rounded_to_nearest(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    ours = [p for dtype in dtypes for p in parameters(dtype)]
    theirs = copies(ours)
    optimizers = [stochastic(fused_class, ours, **options), fused_class(theirs, **options)]
    for optimizer, params in zip(optimizers, (ours, theirs), strict=True):
        run(optimizer, params, 1)
    for p, q in zip(ours, theirs, strict=True):
        states = [optimizer.state[x] for optimizer, x in zip(optimizers, (p, q), strict=True)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert torch.equal(p, q) or p.dtype == torch.bfloat16
    assert largest_error(ours, theirs) > 0


@pairs
def test_copies_pickles_and_checkpoints_go_on_alike(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.bfloat16)
    optimizer = stochastic(fused_class, params, **options)
    run(optimizer, params, 2)
    copied_params, copied = copy.deepcopy((params, optimizer))
    pickled_params, pickled = pickle.loads(pickle.dumps((params, optimizer)))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded_params = copies(params)
    loaded = stochastic(fused_class, loaded_params, seed=7, **options)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    all_params = (params, copied_params, pickled_params, loaded_params)
    for each, its in zip((optimizer, copied, pickled, loaded), all_params, strict=True):
        run(each, its, 2, begin=2)
    assert [largest_error(params, others) for others in all_params] == [0] * 4


@pairs
def test_checkpoints_move_to_torch_and_back(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.bfloat16)
    optimizer = stochastic(fused_class, params, **options)
    run(optimizer, params, 2)
    theirs = torch_class(params, **options)
    theirs.load_state_dict(optimizer.state_dict())
    run(theirs, params, 1, begin=2)
    before = optimizer.state_dict()["stochastic_rounding"]["seed"]
    optimizer.load_state_dict(theirs.state_dict())
    run(optimizer, params, 1, begin=3)
    assert optimizer.state_dict()["stochastic_rounding"]["seed"] == before
    plain = fused_class(params, **options)
    plain.load_state_dict(optimizer.state_dict())
    assert plain.state_dict().keys() == theirs.state_dict().keys()


def test_a_step_that_the_scaler_skips_changes_nothing() -> None:
    params, optimizer = half_way({"momentum": 0.9})
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(1.0)
    optimizer.step()
    assert all(bool((p == 1).all()) for p in params)


def test_it_is_refused_beside_masters_and_where_nothing_is_bf16() -> None:
    with pytest.raises(ValueError, match="FusedSGD: stochastic_rounding=True beside master_weights=True"):
        FusedSGD(parameters(torch.bfloat16), stochastic_rounding=True, master_weights=True)
    with pytest.raises(ValueError, match=r"rounds bfloat16 parameters only; these are torch.float16"):
        FusedAdamW(parameters(torch.float16), stochastic_rounding=True)


def test_a_kernels_launches_are_counted_where_they_run() -> None:
    params, optimizer = half_way()
    with record_launches() as recording:
        for step in range(20):
            optimizer.param_groups[0]["lr"] = 1 / (1 + step)
            optimizer.step()
            count = optimizer._random_source.count(params[0].device)
            assert count.tolist() == [optimizer._random_source.seed, step + 1]
    assert len(recording.launches) == 20
    assert recording.compilations == ["sgd_kernel"]


def test_a_loaded_count_keeps_the_address_that_a_graph_has() -> None:
    cpu = torch.device("cpu")
    source, other = RandomSource(3), RandomSource(4)
    count = other.count(cpu)
    source.count(cpu)
    source.advance(cpu)
    other.load_state_dict(source.state_dict())
    assert other.count(cpu) is count
    assert count.tolist() == [3, 1]


def test_devices_that_a_checkpoint_knows_are_kept_for_later() -> None:
    saved = {"seed": 5, "launches": {"cuda:1": 9}, "generators": {}}
    source = RandomSource(4)
    source.load_state_dict(saved)
    assert source.state_dict() == saved


def test_a_scalar_parameter_may_count_its_steps_on_the_device() -> None:
    p = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))
    optimizer = stochastic(FusedAdam, [p], lr=0.5, capturable=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.item() == pytest.approx(0.5, abs=2**-8)
