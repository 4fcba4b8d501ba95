"""What a step of the fused optimizers launches and does on the host, by the stand-in driver."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusetune.bench.kernels.model_shapes import MODELS, Shapes
from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD
from fusetune.kernels.optimizers import tables as multi_tensor
from fusetune.kernels.optimizers.adam import adam_row
from fusetune.kernels.static.recorder import record_launches

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, **rest: FusedSGD(params, lr=0.1, **rest),
    "momentum": lambda params, **rest: FusedSGD(params, lr=0.1, momentum=0.9, **rest),
    "adam": lambda params, **rest: FusedAdam(params, **rest),
    "adamw": lambda params, **rest: FusedAdamW(params, **rest),
    "adam-counting-on-device": lambda params, **rest: FusedAdam(params, capturable=True, **rest),
}


class CountOperations(TorchDispatchMode):
    """Count the tensor operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def parameters(shapes: Shapes, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Make parameters with gradients; nothing reads them, so their memory is never touched."""
    params = [torch.nn.Parameter(torch.empty(shape, dtype=dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.empty_like(param)
    return params


@pytest.mark.parametrize(
    ("model", "tensors", "count"),
    [("resnet50", 161, 25_557_032), ("vit_b_16", 152, 86_567_656), ("gpt2_124m", 148, 124_439_808)],
)
def test_shapes_are_those_of_the_published_models(model: str, tensors: int, count: int) -> None:
    assert len(MODELS[model]) == tensors
    assert sum(map(math.prod, MODELS[model])) == count


@pytest.mark.parametrize("name", ["momentum", "adamw"])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_is_one_launch_for_the_whole_model(model: str, name: str) -> None:
    params = parameters(MODELS[model], torch.bfloat16)
    optimizer = OPTIMIZERS[name](params)
    with record_launches() as recording:
        optimizer.step()
    (launch,) = recording.launches
    blocks = sum(-(-param.numel() // launch.constants["BLOCK_SIZE"]) for param in params)
    assert launch.programs == blocks
    assert recording.compilations == [launch.kernel]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_of_a_changing_learning_rate_compile_once(name: str) -> None:
    params = parameters([(64, 3, 3, 3), (64,), (10, 64), (10,)])
    optimizer = OPTIMIZERS[name](params)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    with record_launches() as recording:
        optimizer.step()
        compiled_first = list(recording.compilations)
        for _ in range(99):
            schedule.step()
            optimizer.zero_grad()
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step()
    assert len(recording.launches) == 100
    # Adam's first step has corrections of exactly 1: nothing of that kind may be compiled in.
    assert recording.compilations == compiled_first
    assert len({(launch.grid, launch.num_warps) for launch in recording.launches}) == 1


def test_groups_share_a_launch() -> None:
    decayed, plain = parameters([(64, 64), (128, 64)]), parameters([(64,), (128,)])
    optimizer = FusedAdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "lr": 1e-2}])
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 1


def test_each_combination_of_dtypes_is_a_launch() -> None:
    params = [*parameters([(64, 64)]), *parameters([(64, 64)], torch.bfloat16)]
    optimizer = FusedAdamW(params)
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 2


def test_one_misaligned_parameter_costs_no_launch() -> None:
    storage = torch.empty(65)
    odd = torch.nn.Parameter(storage[1:])
    odd.grad = torch.empty(64)
    optimizer = FusedAdamW([*parameters([(64, 64)]), odd])
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 1


def operations_of_a_step(name: str, tensors: int) -> int:
    """Count the tensor operations of a third step."""
    optimizer = OPTIMIZERS[name](parameters(tensors * [(32, 8)]))  # type: ignore[arg-type]
    with record_launches():
        optimizer.step()
        optimizer.step()
        with CountOperations() as operations:
            optimizer.step()
    return operations.count


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tensor_operations_of_a_step_do_not_grow_with_the_parameters(name: str) -> None:
    # On the device each of the nine scalars is a column of its own.
    limit = 30 if name == "adam-counting-on-device" else 20
    few, many = operations_of_a_step(name, 8), operations_of_a_step(name, 128)
    assert many == few
    assert many <= limit


def records_of(optimizer: Any) -> list[list[int]]:
    """Return the records of the only table: addresses of the streams, elements, aligned, row."""
    (table,) = optimizer._tables.values()
    return table._records.tolist()


def expected_records(optimizer: Any) -> list[list[int]]:
    """Describe the parameters with a gradient, read one by one from the optimizer."""
    expected = []
    for row, group in enumerate(optimizer.param_groups):
        for p in group["params"]:
            if p.grad is not None:
                states = [optimizer.state[p][name] for name in ("exp_avg", "exp_avg_sq")]
                addresses = [tensor.data_ptr() for tensor in (p, p.grad, *states)]
                aligned = all(address % 16 == 0 for address in addresses)
                expected.append([*addresses, 0, p.numel(), aligned, row])
    return expected


def replace_parameters(optimizer: Any, params: Any) -> None:
    params[1].data = params[1].data.clone()


def replace_gradients(optimizer: Any, params: Any) -> None:
    keep = [p.grad for p in params]  # or the new ones lie where these did
    for p in params:
        p.grad = torch.empty_like(p)
    params[0].former = keep


def misalign_a_gradient(optimizer: Any, params: Any) -> None:
    params[0].grad = torch.empty(params[0].numel() + 1)[1:].view_as(params[0])


def shrink_a_parameter_where_it_lies(optimizer: Any, params: Any) -> None:
    p = params[0]
    for tensor in (p, p.grad, optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]):
        tensor.data = tensor.data[:3]


def exchange_two_sizes(optimizer: Any, params: Any) -> None:
    p, q = params[0], params[1]
    for a, b in (
        (p, q),
        (p.grad, q.grad),
        *((optimizer.state[p][name], optimizer.state[q][name]) for name in ("exp_avg", "exp_avg_sq")),
    ):
        a.data, b.data = b.data, a.data


def take_gradients_away(optimizer: Any, params: Any) -> None:
    params[1].grad = None


def replace_a_state(optimizer: Any, params: Any) -> None:
    state = optimizer.state[params[2]]
    state["exp_avg_sq"] = state["exp_avg_sq"].clone()


def swap_a_states_data(optimizer: Any, params: Any) -> None:
    state = optimizer.state[params[2]]["exp_avg"]
    state.data = state.data.clone()


def load_a_checkpoint(optimizer: Any, params: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def add_a_group(optimizer: Any, params: Any) -> None:
    optimizer.add_param_group({"params": parameters([(6, 2)]), "lr": 0.5})


def move_a_parameter_to_another_group(optimizer: Any, params: Any) -> None:
    first, second = optimizer.param_groups
    second["params"].insert(0, first["params"].pop())


@pytest.mark.parametrize(
    "change",
    [
        replace_parameters,
        replace_gradients,
        misalign_a_gradient,
        shrink_a_parameter_where_it_lies,
        exchange_two_sizes,
        take_gradients_away,
        replace_a_state,
        swap_a_states_data,
        load_a_checkpoint,
        add_a_group,
        move_a_parameter_to_another_group,
    ],
)
def test_records_follow_whatever_changed_between_steps(change: Callable[[Any, Any], None]) -> None:
    params = parameters([(8, 4), (5,), (16,), (3, 7)])
    optimizer = FusedAdam([{"params": params[:2]}, {"params": params[2:], "lr": 0.01}])
    with record_launches():
        optimizer.step()
        optimizer.step()
        before = records_of(optimizer)
        assert before == expected_records(optimizer)
        change(optimizer, params)
        optimizer.step()
        assert records_of(optimizer) == expected_records(optimizer) != before
        optimizer.step()
        assert records_of(optimizer) == expected_records(optimizer)


def test_a_forgotten_state_begins_anew() -> None:
    params = parameters([(8,), (5,)])
    optimizer: Any = FusedAdam(params)
    with record_launches():
        optimizer.step()
        forgotten = optimizer.state.pop(params[0])
        optimizer.step()
    assert optimizer.state[params[0]]["exp_avg"] is not forgotten["exp_avg"]
    assert [optimizer.state[p]["step"].item() for p in params] == [1.0, 2.0]
    for record, expected in zip(records_of(optimizer), expected_records(optimizer), strict=True):
        assert record[:7] == expected[:7]


def test_a_copy_of_an_optimizer_has_records_of_its_own() -> None:
    optimizer = FusedAdam(parameters([(8,), (5,)]))
    with record_launches():
        optimizer.step()
        original = records_of(optimizer)
        twin = copy.deepcopy(optimizer)
        for p in twin.param_groups[0]["params"]:
            p.grad = torch.empty_like(p)
        twin.step()
    assert records_of(twin) == expected_records(twin)
    assert records_of(optimizer) == original == expected_records(optimizer)


def test_another_dtype_at_the_same_addresses_takes_another_kernel() -> None:
    p: Any = parameters([(8,)])[0]
    optimizer = FusedSGD([p])
    with record_launches() as recording:
        optimizer.step()
        addresses = [p.data_ptr(), p.grad.data_ptr()]
        for tensor in (p, p.grad):
            tensor.data = tensor.data.view(torch.bfloat16)
        assert [p.data_ptr(), p.grad.data_ptr()] == addresses
        optimizer.step()
    assert [str(launch.constants["P"]) for launch in recording.launches] == ["fp32", "bf16"]


@pytest.mark.parametrize("transposed", ["parameter", "gradient", "buffer"])
def test_another_layout_at_the_same_address_leaves_the_kernel(transposed: str) -> None:
    params = [torch.nn.Parameter(torch.arange(9.0).reshape(3, 3)) for _ in range(2)]
    optimizers: list[Any] = [
        FusedSGD(params[:1], lr=0.5, momentum=0.5),
        torch.optim.SGD(params[1:], lr=0.5, momentum=0.5),
    ]
    for p in params:
        p.grad = torch.eye(3) + torch.arange(3.0)
    for p, optimizer in zip(params, optimizers, strict=True):
        optimizer.step()  # on the CPU, so that both are alike
        buffer = optimizer.state[p]["momentum_buffer"]
        tensor = {"parameter": p, "gradient": p.grad, "buffer": buffer}[transposed]
        if p is params[0]:
            with record_launches() as recording:
                optimizer.step()
            assert len(recording.launches) == 1  # recorded, not run: nothing is written
        tensor.data = tensor.data.t()
        with record_launches() as recording:
            optimizer.step()
        assert recording.launches == []
    torch.testing.assert_close(params[0], params[1])


def test_fewer_elements_at_the_same_address_are_refused_as_torch_refuses_them() -> None:
    (p,) = parameters([(8,)])
    optimizer = FusedSGD([p])
    with record_launches() as recording:
        optimizer.step()
        p.data = p.data[:3]
        with pytest.raises(RuntimeError, match="size of tensor"):
            optimizer.step()
    assert len(recording.launches) == 1


def test_dtypes_and_missing_gradients_in_turn_keep_parameters_with_their_gradients() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16, torch.float32]
    params = [parameters([(8,)], dtype)[0] for dtype in dtypes]
    params[2].grad = None
    optimizer: Any = FusedSGD(params, master_weights=True)
    with record_launches() as recording:
        optimizer.step()
    assert len(recording.launches) == 2
    assert [p for p in params if "master" in optimizer.state[p]] == [params[1], params[3]]
    for (_, dtype, *_), table in optimizer._tables.items():
        own: list[Any] = [p for p in params if p.dtype == dtype and p.grad is not None]
        assert table._records[:, :2].tolist() == [[p.data_ptr(), p.grad.data_ptr()] for p in own]


def test_groups_that_count_on_the_device_and_on_the_host_find_their_rows_in_one_launch() -> None:
    optimizer: Any = FusedAdam(
        [
            {"params": parameters([(4,), (5,)]), "lr": 0.25, "capturable": True},
            {"params": parameters([(6,)]), "lr": 0.5},
            {"params": parameters([(7,)]), "lr": 1.0, "capturable": True},
        ]
    )
    with record_launches() as recording:
        for _ in range(3):
            optimizer.step()
    assert len(recording.launches) == 3
    (table,) = optimizer._tables.values()
    rows = table._rows[table._records[:, 7]]
    expected = torch.tensor([adam_row(3.0, lr) for lr in (0.25, 0.25, 0.5, 1.0)])
    torch.testing.assert_close(rows[:, : expected.shape[1]], expected)
    assert not rows[:, expected.shape[1] :].any()


def test_tables_that_a_graph_reads_outlive_the_steps_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (p,) = parameters([(8,)])
    optimizer: Any = FusedSGD([p])
    with record_launches():
        optimizer.step()
        (table,) = optimizer._tables.values()
        captured = [weakref.ref(each) for each in (table._records, table._chunks, table._rows)]
        table._reads_host = False  # as a GPU does not
        monkeypatch.setattr(multi_tensor, "is_being_captured", lambda device: True)
        optimizer.step()
        monkeypatch.undo()
        p.data, p.grad = torch.empty(16), None
        p.grad = torch.empty(16)
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()
    replaced = (table._records, table._chunks, table._rows)
    assert all(ref() is not None and ref() is not new for ref, new in zip(captured, replaced, strict=True))
