"""What a training script relies on, for every fused optimizer beside the class it replaces."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import sys
from typing import Any

import pytest
import torch

from kernels import FusedAdam, FusedAdamW, FusedSGD
from kernels.recorder import record_launches
from tests.kernels.trajectories import copies, largest_error, parameters, set_gradients

pytestmark = pytest.mark.usefixtures("cpu_path")

PAIRS = [
    pytest.param(FusedSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, id="sgd"),
    pytest.param(FusedAdam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True}, id="adam"),
    pytest.param(FusedAdamW, torch.optim.AdamW, {"lr": 0.01}, id="adamw"),
]
pairs = pytest.mark.parametrize(("fused_class", "torch_class", "options"), PAIRS)
SCHEDULERS = [
    lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
    lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
]


def run(optimizer: Any, params: Any, steps: int, begin: int = 0) -> None:
    """Take `steps` steps on the gradients that `set_gradients` gives from step `begin` on."""
    for step in range(begin, begin + steps):
        set_gradients(step, params)
        optimizer.step()


@pairs
def test_constructor_has_torchs_names_and_defaults(fused_class: Any, torch_class: Any, options: Any) -> None:
    def signature(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]

    ours, theirs = signature(fused_class.__init__), signature(torch_class.__init__)
    assert ours[: len(theirs)] == theirs
    assert ours[len(theirs) :] == [
        ("master_weights", False, inspect.Parameter.KEYWORD_ONLY),
        ("stochastic_rounding", False, inspect.Parameter.KEYWORD_ONLY),
    ]
    assert issubclass(fused_class, torch_class)


@pairs
def test_checkpoint_moves_in_both_directions(fused_class: Any, torch_class: Any, options: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    run(optimizers[0], ours, 3)
    run(optimizers[1], theirs, 3)
    assert optimizers[0].state_dict().keys() == optimizers[1].state_dict().keys()
    for found, expected in zip(*(o.state_dict()["state"].values() for o in optimizers), strict=True):
        assert {k: v.dtype for k, v in found.items()} == {k: v.dtype for k, v in expected.items()}
    taken_over = [fused_class(theirs, **options), torch_class(ours, **options)]
    taken_over[0].load_state_dict(optimizers[1].state_dict())
    taken_over[1].load_state_dict(optimizers[0].state_dict())
    run(taken_over[0], theirs, 3, begin=3)
    run(taken_over[1], ours, 3, begin=3)
    assert largest_error(ours, theirs) < 1e-5


@pairs
def test_copies_and_pickles_go_on_alike(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.float32)
    optimizer = fused_class(params, **options)
    run(optimizer, params, 2)
    copied_params, copied = copy.deepcopy((params, optimizer))
    loaded_params, loaded = pickle.loads(pickle.dumps((params, optimizer)))
    for each, its in ((optimizer, params), (copied, copied_params), (loaded, loaded_params)):
        run(each, its, 2, begin=2)
    assert largest_error(params, copied_params) == largest_error(params, loaded_params) == 0


@pairs
def test_state_dict_survives_torch_save(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.bfloat16)
    optimizer = fused_class(params, **options)
    run(optimizer, params, 2)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = fused_class(params, **options)
    again.load_state_dict(torch.load(file, weights_only=True))
    for p in params:
        for name, value in optimizer.state[p].items():
            assert torch.equal(again.state[p][name], value)


@pairs
def test_groups_have_their_own_options(fused_class: Any, torch_class: Any, options: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = []
    for cls, params in ((fused_class, ours), (torch_class, theirs)):
        optimizer = cls([{"params": params[:3]}, {"params": params[3:5], "weight_decay": 0.1}], **options)
        optimizer.add_param_group({"params": params[5:], "lr": 0.001, "maximize": True})
        run(optimizer, params, 4)
        optimizers.append(optimizer)
    assert largest_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pairs
def test_schedulers_steer_it(fused_class: Any, torch_class: Any, options: Any, scheduler: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    for cls, params in ((fused_class, ours), (torch_class, theirs)):
        optimizer = cls(params, **options)
        schedule = scheduler(optimizer)
        for step in range(5):
            run(optimizer, params, 1, begin=step)
            schedule.step()
    assert largest_error(ours, theirs) < 1e-5


@pairs
def test_lr_may_be_a_tensor(fused_class: Any, torch_class: Any, options: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    lr = torch.tensor(0.01, dtype=torch.float64)
    for cls, params, given in ((fused_class, ours, lr), (torch_class, theirs, 0.01)):
        run(cls(params, **{**options, "lr": given}), params, 3)
    assert largest_error(ours, theirs) < 1e-6


@pairs
def test_any_layout_is_updated_right(fused_class: Any, torch_class: Any, options: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(6, 10, generator=generator)
    image = torch.randn(2, 3, 4, 5, generator=generator)
    values = [wide[:, ::2], wide.t(), image.to(memory_format=torch.channels_last), image]
    ours = [torch.nn.Parameter(value) for value in values]
    ours[0] = wide.clone()[:, ::2].requires_grad_()
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step in range(4):
        set_gradients(step, ours, theirs)
        ours[3].grad = ours[3].grad.to(memory_format=torch.channels_last)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5


@pairs
def test_closure_is_called_with_autograd_on_and_its_loss_returned(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = fused_class([p], **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert p.max() < 1


@pairs
def test_hooks_run_around_the_step(fused_class: Any, torch_class: Any, options: Any) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = fused_class([p], **options)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(p[0].item()))
    optimizer.register_step_post_hook(lambda *_: seen.append(p[0].item()))
    optimizer.step()
    assert len(seen) == 2
    assert seen[0] == 1.0 > seen[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pairs
def test_autograd_notices_the_write_and_gradients_stay(
    fused_class: Any, torch_class: Any, options: Any, dtype: torch.dtype
) -> None:
    p = torch.nn.Parameter(torch.ones(64, dtype=dtype))
    optimizer = fused_class([p], **options)
    gradient = torch.full((64,), 0.5, dtype=dtype)
    p.grad = gradient.clone()
    graph = (p * p).sum()
    optimizer.step()
    assert torch.equal(p.grad, gradient)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        graph.backward()


@pairs
def test_grad_scaler_gives_the_unscaled_update_and_skips_infinities(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(5):
        set_gradients(step, ours, theirs)
        scale = scaler.scale(torch.ones(())).item()
        for p in ours:
            p.grad *= scale
        if step == 2:
            ours[-1].grad[0] = float("inf")
        before = [p.grad.clone() for p in ours]
        scaler.step(optimizers[0])
        scaler.update()
        assert all(torch.equal(p.grad, g) for p, g in zip(ours, before, strict=True))
        if step != 2:
            optimizers[1].step()
    assert scaler.get_scale() == 512.0
    assert largest_error(ours, theirs) < 1e-5


@pairs
def test_sparse_gradients_are_refused(fused_class: Any, torch_class: Any, options: Any) -> None:
    p = torch.nn.Parameter(torch.ones(4, 2))
    p.grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(TypeError, match="sparse gradient"):
        fused_class([p], **options).step()


@pairs
def test_complex_parameters_are_refused(fused_class: Any, torch_class: Any, options: Any) -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match="complex64"):
        fused_class([p], **options).step()


@pytest.mark.parametrize("argument", ["foreach", "fused", "differentiable"])
@pairs
def test_arguments_that_cannot_be_honoured_are_refused(
    fused_class: Any, torch_class: Any, options: Any, argument: str
) -> None:
    with pytest.raises(ValueError, match=f"{fused_class.__name__}: {argument}=True"):
        fused_class(parameters(torch.float32), **options, **{argument: True})


@pairs
def test_path_says_whether_kernels_run(
    fused_class: Any, torch_class: Any, options: Any, cpu_path: str
) -> None:
    assert fused_class(parameters(torch.float32), **options).path == cpu_path


@pairs
def test_nothing_happens_without_gradients(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.float32)
    fused_class(params, **options).step()
    assert largest_error(params, parameters(torch.float32)) == 0


@pairs
def test_replaced_data_is_followed(fused_class: Any, torch_class: Any, options: Any) -> None:
    p = torch.nn.Parameter(torch.zeros(8))
    optimizer = fused_class([p], **options)
    p.grad = torch.ones(8)
    optimizer.step()
    p.data = torch.full((8,), 5.0)
    optimizer.step()
    assert p.max() < 5
    assert p.min() > 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pairs
def test_with_masters_a_narrow_parameter_is_the_rounded_fp32_one(
    fused_class: Any, torch_class: Any, options: Any, dtype: torch.dtype
) -> None:
    ours = parameters(dtype)
    theirs = copies(ours, torch.float32)
    optimizers = [fused_class(ours, **options, master_weights=True), torch_class(theirs, **options)]
    for step in range(20):
        set_gradients(step, ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
    masters = [optimizers[0].state[p]["master"] for p in ours]
    assert largest_error(masters, theirs) < 1e-5
    assert all(torch.equal(p, master.to(dtype)) for p, master in zip(ours, masters, strict=True))
    states = [value for p in ours for value in optimizers[0].state[p].values()]
    assert {value.dtype for value in states} == {torch.float32}


@pairs
def test_fp32_parameters_have_no_master(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.float32)
    optimizer = fused_class(params, **options, master_weights=True)
    run(optimizer, params, 1)
    assert all("master" not in optimizer.state[p] for p in params)


@pairs
def test_masters_go_through_checkpoints_and_copies_unrounded(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    params = parameters(torch.bfloat16)
    optimizer = fused_class(params, **options, master_weights=True)
    run(optimizer, params, 3)
    loaded_params = copies(params)
    loaded = fused_class(loaded_params, **options, master_weights=True)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied_params, copied = copy.deepcopy((params, optimizer))
    for each, its in ((optimizer, params), (loaded, loaded_params), (copied, copied_params)):
        run(each, its, 3, begin=3)
    for p, *others in zip(params, loaded_params, copied_params, strict=True):
        for each, other in zip((loaded, copied), others, strict=True):
            for name, value in optimizer.state[p].items():
                assert torch.equal(each.state[other][name], value)


@pairs
def test_checkpoints_with_masters_move_in_both_directions(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    params = parameters(torch.bfloat16)
    optimizer = fused_class(params, **options, master_weights=True)
    run(optimizer, params, 3)
    theirs = torch_class(params, **options)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(theirs, params, 30, begin=3)
    # torch left the masters of thirty steps ago in its state; they must count no more than none at all.
    saved = copy.deepcopy(theirs.state_dict())
    none = copy.deepcopy(saved)
    for state in none["state"].values():
        del state["master"]
    others = copies(params)
    back = fused_class(params, **options, master_weights=True)
    back.load_state_dict(saved)
    fresh = fused_class(others, **options, master_weights=True)
    fresh.load_state_dict(none)
    run(back, params, 1, begin=33)
    run(fresh, others, 1, begin=33)
    for p, other in zip(params, others, strict=True):
        torch.testing.assert_close(
            back.state[p]["master"], fresh.state[other]["master"], rtol=2**-7, atol=1e-6
        )
    without = fused_class(params, **options)
    without.load_state_dict(copy.deepcopy(back.state_dict()))
    assert all("master" not in without.state[p] for p in params)
    run(without, params, 1, begin=34)


@pairs
def test_a_parameter_written_by_hand_wins_over_its_master(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    p = torch.nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
    optimizer = fused_class([p], **options, master_weights=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    with torch.no_grad():
        p[:4] = 5.0
    optimizer.step()
    assert p[:4].min() > 4
    assert p[4:].max() < 0
    assert optimizer.state[p]["master"][:4].min() > 4


def calls_of_a_step(optimizer: Any) -> int:
    """Count the functions that Python code calls in a step, the third, which launches on a stand-in."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with record_launches():
        optimizer.step()
        optimizer.step()
        sys.setprofile(count)
        try:
            optimizer.step()
        finally:
            sys.setprofile(None)
    return calls


@pairs
def test_a_step_calls_few_functions_for_each_parameter(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    def calls(tensors: int) -> int:
        params = [torch.nn.Parameter(torch.zeros(4, 8)) for _ in range(tensors)]
        set_gradients(0, params)
        return calls_of_a_step(fused_class(params, **options))

    assert (calls(128) - calls(8)) / 120 <= 10


@pairs
def test_gradients_that_move_are_followed(fused_class: Any, torch_class: Any, options: Any) -> None:
    params = parameters(torch.float32)
    optimizer = fused_class(params, **options)
    with record_launches():
        for step in range(3):
            set_gradients(step, params)
            optimizer.step()
            (table,) = optimizer._tables.values()
            assert table._records[:, 1].tolist() == [p.grad.data_ptr() for p in params]
