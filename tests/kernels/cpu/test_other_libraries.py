"""Kernels that others wrote for GPUs, unchanged: Liger-Kernel's and flash-linear-attention's, values and gradients.

`make libraries` installs both and runs this. The first is compared with PyTorch in float64, the second with the plain
loops over time that it ships for each of its functions.
"""

# Other people's functions have no types.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, ignore-errors=True
from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triton.runtime.autotuner import Autotuner

pytestmark = [pytest.mark.libraries, pytest.mark.usefixtures("cpu_driver", "first_config")]
Function = Callable[..., Any]


@pytest.fixture
def first_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune nothing: a dozen configurations of each kernel would compile alike."""
    run = Autotuner.run

    def run_first(self: Autotuner, *arguments: Any, **options: Any) -> Any:
        self.configs = self.configs[:1]
        return run(self, *arguments, **options)

    monkeypatch.setattr(Autotuner, "run", run_first)


def values_and_gradients(function: Function, inputs: list[Tensor]) -> list[Tensor]:
    """What a function returns, and the gradients of one weighted sum of it."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    outputs = [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    total = sum((y * w).sum() for y, w in zip(outputs, weights, strict=True))
    return [*(y.detach() for y in outputs), *torch.autograd.grad(total, leaves)]


def assert_alike(ours: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Each tensor is right to a share of its largest value."""
    assert len(ours) == len(wanted)
    for mine, other in zip(ours, wanted, strict=True):
        assert (mine.double() - other.double()).abs().max() <= tolerance * other.double().abs().max()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ROWS, COLUMNS, CLASSES = 35, 100, 501
X, Y = normal(5, 7, COLUMNS), normal(5, 7, COLUMNS, seed=1)
WEIGHT, BIAS = normal(COLUMNS, seed=2), normal(COLUMNS, seed=3)
LOGITS, MATRIX = normal(ROWS, CLASSES), 0.1 * normal(CLASSES, COLUMNS, seed=4)
TARGET = torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(0)).index_fill_(
    0, torch.tensor(3), -100
)
ANGLES = torch.outer(torch.arange(9.0), 10000 ** (-torch.arange(16.0) / 16)).repeat(1, 2)
P, Q = (normal(20, 77, seed=seed).log_softmax(-1) for seed in (5, 6))


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, 1e-6)


def sparsemax(x: Tensor) -> Tensor:
    ordered = x.sort(-1, descending=True).values
    sums = ordered.cumsum(-1)
    count = (1 + torch.arange(1, x.shape[-1] + 1) * ordered > sums).sum(-1, keepdim=True)
    return (x - (sums.gather(-1, count - 1) - 1) / count).clamp(min=0)


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * ANGLES.to(x.dtype).cos() + torch.cat([-second, first], -1) * ANGLES.to(x.dtype).sin()


def jensen_shannon(log_q: Tensor) -> Tensor:
    log_p = P.to(log_q.dtype)
    middle = ((log_p.exp() + log_q.exp()) / 2).log()
    return sum(F.kl_div(middle, side, reduction="batchmean", log_target=True) for side in (log_p, log_q)) / 2


def liger(module: str, name: str, *options: Any, pick: int | None = None) -> Function:
    """One of Liger's functions, with the arguments behind its tensors."""

    def call(*tensors: Tensor) -> Any:
        result = getattr(importlib.import_module(f"liger_kernel.ops.{module}"), name).apply(
            *tensors, *options
        )
        return result if pick is None else result[pick]

    return call


LIGER: dict[str, tuple[Function, Function, list[Tensor]]] = {
    "rms_norm": (
        liger("rms_norm", "LigerRMSNormFunction", 1e-6, 0.0, "llama", False, None),
        rms_norm,
        [X, WEIGHT],
    ),
    "add_rms_norm": (
        liger("fused_add_rms_norm", "LigerFusedAddRMSNormFunction", 1e-6, 0.0, "llama", False),
        lambda x, y, weight: (rms_norm(x + y, weight), x + y),
        [X, Y, WEIGHT],
    ),
    "layer_norm": (
        liger("layer_norm", "LigerLayerNormFunction", 1e-5),
        lambda x, weight, bias: F.layer_norm(x, (COLUMNS,), weight, bias),
        [X, WEIGHT, BIAS],
    ),
    "group_norm": (
        liger("group_norm", "LigerGroupNormFunction", 12, 4, 1e-5),
        lambda x, weight, bias: F.group_norm(x, 4, weight, bias),
        [normal(3, 12, 40), normal(12, seed=1), normal(12, seed=2)],
    ),
    "swiglu": (liger("swiglu", "LigerSiLUMulFunction"), lambda a, b: F.silu(a) * b, [X, Y]),
    "geglu": (
        liger("geglu", "LigerGELUMulFunction"),
        lambda a, b: F.gelu(a, approximate="tanh") * b,
        [X, Y],
    ),
    "relu_squared": (
        liger("relu_squared", "LigerReLUSquaredFunction"),
        lambda x: F.relu(x).square(),
        [X],
    ),
    "softmax": (liger("softmax", "LigerSoftmaxFunction"), lambda x: x.softmax(-1), [X]),
    "sparsemax": (liger("sparsemax", "LigerSparsemaxFunction", -1), sparsemax, [X.view(ROWS, COLUMNS)]),
    "rope": (
        lambda q, k: importlib.import_module("liger_kernel.ops.rope").LigerRopeFunction.apply(
            q, k, ANGLES.cos()[None], ANGLES.sin()[None]
        ),
        lambda q, k: (rotated(q), rotated(k)),
        [normal(2, 4, 9, 32), normal(2, 2, 9, 32, seed=1)],
    ),
    "cross_entropy": (
        liger(
            "cross_entropy", "LigerCrossEntropyFunction", TARGET, None, -100, 0.0, 0.1, "mean", None, pick=0
        ),
        lambda x: F.cross_entropy(x, TARGET, label_smoothing=0.1),
        [LOGITS],
    ),
    "linear_cross_entropy": (
        liger("fused_linear_cross_entropy", "LigerFusedLinearCrossEntropyFunction", TARGET, pick=0),
        lambda x, weight: F.cross_entropy(x @ weight.T, TARGET),
        [X.view(ROWS, COLUMNS), MATRIX],
    ),
    "kl_div": (
        liger("kl_div", "LigerKLDivLossFunction", Q.exp(), "batchmean", False, 1e-10),
        lambda x: F.kl_div(x, Q.to(x.dtype).exp(), reduction="batchmean"),
        [P],
    ),
    "jsd": (liger("jsd", "LigerJSDFunction", P, None, 0.5, -100), jensen_shannon, [Q]),
    "tvd": (
        liger("tvd", "LigerTVDLossFunction", Q.exp(), None, "batchmean", -100),
        lambda x: (x - Q.to(x.dtype).exp()).abs().sum() / 2 / len(Q),
        [P.exp()],
    ),
}


@pytest.mark.parametrize("name", LIGER)
def test_liger(name: str) -> None:
    pytest.importorskip("liger_kernel")
    ours, wanted, inputs = LIGER[name]
    exact = values_and_gradients(wanted, [x.double() for x in inputs])
    assert_alike(values_and_gradients(ours, inputs), exact, 2e-6)


TIME, HEADS, WIDTH = 70, 2, 32
QUERY, KEY, VALUE = (normal(1, TIME, HEADS, WIDTH, seed=seed) for seed in range(3))
UNIT_KEY = F.normalize(KEY, dim=-1)
GATES = F.logsigmoid(normal(1, TIME, HEADS, WIDTH, seed=3))
GATE, BETA = F.logsigmoid(normal(1, TIME, HEADS, seed=4)), normal(1, TIME, HEADS, seed=5).sigmoid()
SLOTS, SLOT_GATES = normal(1, TIME, HEADS, 16, seed=6), F.logsigmoid(normal(1, TIME, HEADS, 16, seed=7))
NARROW = [QUERY[..., :16].contiguous(), KEY[..., :16].contiguous(), VALUE]
RNN = [normal(2, TIME, 64, seed=8), F.logsigmoid(normal(2, TIME, 64, seed=9))]


@dataclass(frozen=True)
class Recurrence:
    """A function of flash-linear-attention, and the plain loop that it ships for it.

    Args:
        function, loop: below `fla.ops`.
        inputs: of the function, in its order.
        order: where the loop's arguments stand among them.
        heads_first: the loop has heads before time.
    """

    function: str
    loop: str
    inputs: list[Tensor]
    order: tuple[int, ...] = ()
    heads_first: bool = False


_GLA, _SIMPLE_GLA = "gla.naive.naive_recurrent_gla", "simple_gla.naive.naive_recurrent_simple_gla"
_RETENTION, _DELTA = "retention.naive.naive_retention", "delta_rule.naive.delta_rule_recurrence"
_GATED_DELTA = "gated_delta_rule.naive.naive_recurrent_gated_delta_rule"
_PLAIN = [QUERY, KEY, VALUE]
_UNIT = [QUERY, UNIT_KEY, VALUE]
RECURRENCES = {
    "gla": Recurrence("gla.fused_recurrent_gla", _GLA, [*_PLAIN, GATES]),
    "gla in chunks": Recurrence("gla.chunk_gla", _GLA, [*_PLAIN, GATES]),
    "simple gla in chunks": Recurrence("simple_gla.chunk_simple_gla", _SIMPLE_GLA, [*_PLAIN, GATE]),
    "simple gla in parallel": Recurrence("simple_gla.parallel_simple_gla", _SIMPLE_GLA, [*_PLAIN, GATE]),
    "retention in chunks": Recurrence("retention.chunk_retention", _RETENTION, _PLAIN, heads_first=True),
    "retention in parallel": Recurrence("retention.parallel_retention", _RETENTION, _PLAIN, heads_first=True),
    "delta rule": Recurrence(
        "delta_rule.fused_recurrent_delta_rule", _DELTA, [*_UNIT, BETA], heads_first=True
    ),
    "delta rule in chunks, bf16": Recurrence(
        "delta_rule.chunk_delta_rule", _DELTA, [*_UNIT, BETA], heads_first=True
    ),
    "gated delta rule in chunks, bf16": Recurrence(
        "gated_delta_rule.chunk_gated_delta_rule", _GATED_DELTA, [*_UNIT, GATE, BETA], order=(0, 1, 2, 4, 3)
    ),
    "kda in chunks, bf16": Recurrence(
        "kda.chunk_kda", "kda.naive.naive_recurrent_kda", [*_UNIT, GATES, BETA]
    ),
    "slots in chunks": Recurrence(
        "gsa.chunk_gsa", "gsa.naive.naive_recurrent_gsa", [*_PLAIN, SLOTS, SLOT_GATES]
    ),
    "based": Recurrence("based.parallel_based", "based.naive.naive_parallel_based", NARROW, heads_first=True),
    "hgrn in chunks": Recurrence("hgrn.chunk_hgrn", "hgrn.naive.naive_recurrent_hgrn", RNN),
    "forgetting": Recurrence(
        "forgetting_attn.parallel_forgetting_attn",
        "forgetting_attn.naive.naive_forgetting_attn",
        [*_PLAIN, GATE],
    ),
    "stickbreaking": Recurrence(
        "stickbreaking_attn.parallel_stickbreaking_attn",
        "stickbreaking_attn.naive.naive_stickbreaking_attn",
        _PLAIN,
    ),
}


def first(result: Any) -> Tensor:
    """The output, of what may be a tuple with a state."""
    return result[0] if isinstance(result, tuple) else result


def named(path: str) -> Function:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"fla.ops.{module}"), name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RECURRENCES)
def test_flash_linear_attention(name: str) -> None:
    pytest.importorskip("fla.ops.gla")
    case = RECURRENCES[name]
    function, plain = named(case.function), named(case.loop)

    def wanted(*tensors: Tensor) -> Tensor:
        arranged = [tensors[place] for place in case.order] if case.order else list(tensors)
        if case.heads_first:
            return first(plain(*(x.transpose(1, 2) for x in arranged))).transpose(1, 2)
        return first(plain(*arranged))

    dtype, tolerance = (torch.bfloat16, 0.02) if name.endswith("bf16") else (torch.float32, 1e-5)
    inputs = [x.to(dtype) for x in case.inputs]
    exact = values_and_gradients(wanted, [x.float() for x in inputs])
    assert_alike(values_and_gradients(lambda *x: first(function(*x)), inputs), exact, tolerance)
