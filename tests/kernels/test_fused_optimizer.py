"""What a training script relies on, for every fused optimizer beside the class it replaces."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton

from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD
from fusetune.kernels.static.recorder import record_launches
from tests.kernels.profiled import profile
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
    ours[0] = wide.clone()[:, ::2].requires_grad_()  # type: ignore[call-overload]
    theirs = copies(ours)
    optimizers = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step in range(4):
        set_gradients(step, ours, theirs)
        ours[3].grad = ours[3].grad.to(memory_format=torch.channels_last)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "more"),
    [
        *itertools.product([torch.float32, torch.float64, torch.bfloat16], [{}, {"master_weights": True}]),
        (torch.bfloat16, {"stochastic_rounding": True}),  # which is of bf16 alone
    ],
)
@pairs
def test_a_negation_that_torch_puts_off_is_read_and_written(
    fused_class: Any, torch_class: Any, options: Any, dtype: torch.dtype, more: Any
) -> None:
    wide = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours = [torch.nn.Parameter(torch._neg_view(row.clone())) for row in wide[:2]]
    ours.append(torch.nn.Parameter(wide[2].clone()))
    memories = [p.data._neg_view() for p in ours[:2]]
    theirs = [torch.nn.Parameter(p.detach().double().clone()) for p in ours]
    optimizers = [fused_class(ours, **options, **more), torch_class(theirs, **options)]
    for step in range(5):
        set_gradients(step, ours, theirs)
        for p, q in zip(ours[1:], theirs[1:], strict=True):
            q.grad = p.grad.double()
            p.grad = torch._neg_view(-p.grad)
        for optimizer in optimizers:
            optimizer.step()
    assert [p.is_neg() for p in ours] == [True, True, False]
    for p, memory in zip(ours, memories, strict=False):
        assert not memory.is_neg()
        assert torch.equal(p, -memory)
    eps = torch.finfo(dtype).eps
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.double(), q, rtol=20 * eps, atol=20 * eps + 1e-6)


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
    with record_launches():
        return counted(optimizer.step)


@pairs
def test_a_step_calls_few_functions_for_each_parameter(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    def calls(tensors: int) -> int:
        params = [torch.nn.Parameter(torch.zeros(4, 8)) for _ in range(tensors)]
        set_gradients(0, params)
        return calls_of_a_step(fused_class(params, **options))

    assert (calls(128) - calls(8)) / 120 <= 10


@pytest.mark.parametrize("cpu_path", ["triton-cpu"], indirect=True)
@pairs
def test_a_repeated_step_of_one_tensor_calls_few_functions(
    fused_class: Any, torch_class: Any, options: Any, cpu_path: str
) -> None:
    def calls(cls: Any, **more: Any) -> int:
        p = torch.nn.Parameter(torch.zeros(100))
        p.grad = torch.ones(100)
        optimizer = cls([p], **options, **more)
        return counted(optimizer.step)

    # Each goes through torch's wrapper of a step, whose calls differ by torch's release.
    wrapper = calls(Idle)
    assert calls(fused_class) - wrapper <= min(70, calls(torch_class, fused=True) - wrapper)


class Idle(torch.optim.Optimizer):
    """An optimizer whose step does nothing."""

    def __init__(self, params: Any, **_: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        pass


def counted(step: Callable[[], object]) -> int:
    """Count the functions that Python code calls in the third of three steps."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    step()
    step()
    profile(step, count)
    return calls


@pytest.mark.parametrize("cpu_path", ["triton-cpu"], indirect=True)
@pairs
def test_whoever_listens_to_launches_is_told_of_repeated_ones(
    fused_class: Any, torch_class: Any, options: Any, cpu_path: str
) -> None:
    params = parameters(torch.float32)
    optimizer = fused_class(params, **options)
    run(optimizer, params, 3)
    told: list[str] = []

    def hear(metadata: Any) -> None:
        told.append(metadata.get()["name"])

    triton.knobs.runtime.launch_enter_hook.add(hear)
    try:
        optimizer.step()
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(hear)
    optimizer.step()
    assert told == [optimizer._kernel.__name__]


@pytest.mark.parametrize("cpu_path", ["triton-cpu"], indirect=True)
@pytest.mark.parametrize(("elements", "expected"), [(10_000, 1), (40_000, 2)])
@pairs
def test_a_small_step_wakes_no_thread(
    fused_class: Any,
    torch_class: Any,
    options: Any,
    elements: int,
    expected: int,
    cpu_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = torch.nn.Parameter(torch.zeros(elements))
    p.grad = torch.ones(elements)
    optimizer = fused_class([p], **options)
    optimizer.step()
    (table,) = optimizer._tables.values()
    compiled = table._launch._compiled
    threads: list[int] = []

    def function(x: int, y: int, z: int, count: int, packed: bytes) -> None:
        threads.append(count)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(compiled, "function", function)
        optimizer.step()
    finally:
        torch.set_num_threads(before)
    assert threads == [expected]


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


Change = Callable[[Any, Any], None]


def _each_state(optimizer: Any, name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace one kind of state of every parameter."""
    for state in optimizer.state.values():
        if name in state:
            state[name] = function(state[name])


def _swap_data(optimizer: Any, params: Any) -> None:
    for p in params:
        p.data = p.data.flip(-1).clone() if p.dim() else p.data + 1


def _transpose_in_place(optimizer: Any, params: Any) -> None:
    params[4].data = params[4].data.t().contiguous().t()


def _widen(optimizer: Any, params: Any) -> None:
    for p in params:
        p.data, p.grad = p.data.double(), None
        for name, value in optimizer.state[p].items():
            optimizer.state[p][name] = value if name == "step" else value.double()


def _widen_one_where_it_lies(optimizer: Any, params: Any) -> None:
    p = params[3]
    p.grad = None
    for tensor in (p, *(value for name, value in optimizer.state[p].items() if name != "step")):
        tensor.data = tensor.data.double()


def _negate_lazily(optimizer: Any, params: Any) -> None:
    """Give the same values another way: parameters and states with torch's negative bit."""
    for tensor in (
        params[3],
        *(value for name, value in optimizer.state[params[4]].items() if name != "step"),
    ):
        tensor.data = torch._neg_view(-tensor.data)
        assert tensor.is_neg()


def _load(optimizer: Any, params: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _load_half_as_many_steps(optimizer: Any, params: Any) -> None:
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        if "step" in state:
            state["step"] = state["step"] / 2
    optimizer.load_state_dict(saved)


def _copy_states(optimizer: Any, params: Any) -> None:
    for state in optimizer.state.values():
        for name, value in state.items():
            state[name] = value.clone()


def _swap_states_of_two(optimizer: Any, params: Any) -> None:
    params[3].data, params[4].data = params[3].data[:1].clone(), params[4].data
    optimizer.state[params[3]], optimizer.state[params[2]] = (
        optimizer.state[params[2]],
        optimizer.state[params[3]],
    )
    for name, value in optimizer.state[params[2]].items():
        if name != "step":
            optimizer.state[params[2]][name] = value[:1].clone()


def _swap_data_of_states(optimizer: Any, params: Any) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            value.data = value.data * 2


def _forget_a_state(optimizer: Any, params: Any) -> None:
    optimizer.state.pop(params[3])


def _count_on_in_place(optimizer: Any, params: Any) -> None:
    _each_state(optimizer, "step", lambda step: step.add_(7))


def _count_one_on_in_place(optimizer: Any, params: Any) -> None:
    optimizer.state[params[3]].get("step", torch.zeros(())).add_(7)


def _count_in_fp64(optimizer: Any, params: Any) -> None:
    _each_state(optimizer, "step", torch.Tensor.double)


def _count_elsewhere(optimizer: Any, params: Any) -> None:
    _each_state(optimizer, "step", lambda step: step + 3)


def _add_a_group(optimizer: Any, params: Any) -> None:
    params.append(torch.nn.Parameter(torch.linspace(-1, 1, 50)))
    optimizer.add_param_group({"params": [params[-1]], "lr": 0.003})


def _regroup(optimizer: Any, params: Any) -> None:
    first, second = optimizer.param_groups
    second["params"].insert(0, first["params"].pop())


def _empty_a_group(optimizer: Any, params: Any) -> None:
    optimizer.param_groups[0]["params"].clear()


def _remove_a_group(optimizer: Any, params: Any) -> None:
    optimizer.param_groups.pop(0)


def _new_hyperparameters(optimizer: Any, params: Any) -> None:
    for group in optimizer.param_groups:
        group.update(lr=0.02, weight_decay=0.1, maximize=True)
        group.update({"betas": (0.8, 0.95), "eps": 1e-3} if "betas" in group else {"dampening": 0.5})


def _lr_as_tensor(optimizer: Any, params: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.004, dtype=torch.float64).float()


def _another_algorithm(optimizer: Any, params: Any) -> None:
    """Let Adam's first group begin to keep a maximum, and SGD's do without its buffers."""
    group = optimizer.param_groups[0]
    group.update({"amsgrad": True} if "amsgrad" in group else {"momentum": 0.0})
    if "amsgrad" in group:  # torch begins to keep it in a first step only
        for p in group["params"]:
            optimizer.state[p].setdefault("max_exp_avg_sq", torch.zeros_like(p))


@pytest.mark.parametrize(
    "change",
    [
        _swap_data,
        _transpose_in_place,
        _negate_lazily,
        _widen,
        _widen_one_where_it_lies,
        _load,
        _load_half_as_many_steps,
        _copy_states,
        _swap_states_of_two,
        _swap_data_of_states,
        _forget_a_state,
        _count_on_in_place,
        _count_one_on_in_place,
        _count_in_fp64,
        _count_elsewhere,
        _add_a_group,
        _regroup,
        _empty_a_group,
        _remove_a_group,
        _new_hyperparameters,
        _lr_as_tensor,
        _another_algorithm,
    ],
)
@pairs
def test_whatever_changes_between_steps_is_followed(
    fused_class: Any, torch_class: Any, options: Any, change: Change, cpu_path: str
) -> None:
    ours = parameters(torch.float32)
    both = [ours, copies(ours)]
    optimizers: list[Any] = [
        cls([{"params": params[:3]}, {"params": params[3:], "lr": 0.005}], **options)
        for cls, params in zip((fused_class, torch_class), both, strict=True)
    ]

    def steps(begin: int, end: int) -> None:
        for step in range(begin, end):
            set_gradients(step, *both)
            for optimizer in optimizers:
                optimizer.step()

    steps(0, 3)
    assert (optimizers[0]._single_launch is not None) == (cpu_path == "triton-cpu")
    for optimizer, params in zip(optimizers, both, strict=True):
        change(optimizer, params)
    steps(3, 6)
    assert largest_error(*both) < 2e-5
    assert not any(torch.equal(p, q) for p, q in zip(ours[3:], parameters(torch.float32)[3:], strict=False))


def _in_place(step: int, params: Any) -> None:
    for p in params:
        p.grad *= -0.5


def _some_missing(step: int, params: Any) -> None:
    for p in params[step % 2 :: 2]:
        p.grad = None


def _all_missing_once(step: int, params: Any) -> None:
    for p in params if step == 3 else ():
        p.grad = None


def _another_layout(step: int, params: Any) -> None:
    params[4].grad = params[4].grad.t().contiguous().t()


def _expanded(step: int, params: Any) -> None:
    params[5].grad = params[5].grad[:1].expand_as(params[5])


def _misaligned(step: int, params: Any) -> None:
    params[5].grad = torch.cat([params[5].grad[:1], params[5].grad])[1:]


def _negated_lazily(step: int, params: Any) -> None:
    for p in params[step % 2 :: 2]:
        p.grad = torch._neg_view(p.grad)


def _negated_lazily_with_gaps(step: int, params: Any) -> None:
    params[5].grad = torch._neg_view(torch.stack([params[5].grad] * 2, dim=-1)[..., 0])


def _zeros_without_memory(step: int, params: Any) -> None:
    params[3].grad = torch._efficientzerotensor(params[3].shape)


@pytest.mark.parametrize(
    "gradients",
    [
        _in_place,
        _some_missing,
        _all_missing_once,
        _another_layout,
        _expanded,
        _misaligned,
        _negated_lazily,
        _negated_lazily_with_gaps,
        _zeros_without_memory,
    ],
)
@pairs
def test_whatever_gradients_turn_into_is_followed(
    fused_class: Any, torch_class: Any, options: Any, gradients: Callable[[int, Any], None]
) -> None:
    ours = parameters(torch.float32)
    both = [ours, copies(ours)]
    optimizers = [
        cls(params, **options) for cls, params in zip((fused_class, torch_class), both, strict=True)
    ]
    for step in range(8):
        if step < 3 or step == 6 or gradients is not _in_place:
            set_gradients(step, *both)
        for optimizer, params in zip(optimizers, both, strict=True):
            if step >= 3:
                gradients(step, params)
            optimizer.step()
    assert largest_error(*both) < 2e-5


@pairs
def test_a_scaler_may_come_and_go(fused_class: Any, torch_class: Any, options: Any) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    optimizers: list[Any] = [fused_class(ours, **options), torch_class(theirs, **options)]
    for step in range(8):
        set_gradients(step, ours, theirs)
        scaled, skipped = step in (3, 5), step == 5
        if scaled:
            optimizers[0].grad_scale, optimizers[0].found_inf = (
                torch.tensor(4.0),
                torch.tensor(float(skipped)),
            )
            for p in ours:
                p.grad *= 4
        optimizers[0].step()
        if scaled:
            del optimizers[0].grad_scale, optimizers[0].found_inf
        if not skipped:
            optimizers[1].step()
    assert largest_error(ours, theirs) < 2e-5


@pairs
def test_a_learning_rate_tensor_is_read_at_every_step(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    ours = parameters(torch.float32)
    theirs = copies(ours)
    lr = torch.tensor(0.01, dtype=torch.float64)
    optimizers: list[Any] = [fused_class(ours, **{**options, "lr": lr}), torch_class(theirs, **options)]
    for step in range(6):
        set_gradients(step, ours, theirs)
        lr.fill_(0.01 * (step + 1))
        optimizers[1].param_groups[0]["lr"] = 0.01 * (step + 1)
        for optimizer in optimizers:
            optimizer.step()
    assert largest_error(ours, theirs) < 2e-5


@pairs
def test_gradients_and_states_that_were_dropped_are_freed(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    params = [torch.nn.Parameter(torch.ones(8)) for _ in range(2)]
    optimizer = fused_class(params, **options)
    for step in range(3):
        set_gradients(step, params)
        optimizer.step()
    dropped = [weakref.ref(p.grad) for p in params]
    dropped += [weakref.ref(v) for p in params for k, v in optimizer.state[p].items() if k != "step"]
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    assert [ref() for ref in dropped] == [None] * len(dropped)


@pairs
def test_memory_that_empty_tensors_gave_back_is_not_written(
    fused_class: Any, torch_class: Any, options: Any
) -> None:
    p: Any = torch.nn.Parameter(torch.ones(8))
    optimizer = fused_class([p], **options)
    for _ in range(3):
        p.grad = torch.ones(8)
        optimizer.step()
    former = p.data
    p.data, p.grad = torch.empty(0), None
    optimizer.state.clear()
    p.grad = torch.empty(0)
    expected = former.clone()
    for _ in range(4):
        optimizer.step()
    assert torch.equal(former, expected)
