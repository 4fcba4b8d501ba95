"""torch.compile through the CPU backend: what Inductor makes of PyTorch's functions, against eager PyTorch in float64.

`torch._inductor.config.cpu_backend = "triton"` has Inductor write Triton kernels for CPU tensors.
"""

# Cases are lambdas over PyTorch's functions, which have no types here.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, ignore-errors=True
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

pytestmark = pytest.mark.libraries


@pytest.fixture(autouse=True)
def inductor(cpu_driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inductor writes Triton, compiles in this process, and keeps nothing."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with config.patch(cpu_backend="triton", compile_threads=1, force_disable_caches=True):
        yield
    torch._dynamo.reset()


def through_triton(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the compiled function returns, where Inductor wrote at least one Triton kernel and no C++ one."""
    result, codes = run_and_get_code(torch.compile(function, fullgraph=True, **options), *arguments)
    code = "\n".join(codes)
    assert "@triton.jit" in code
    assert "cpp_pybinding" not in code
    return result


def flat(result: Any) -> list[Tensor]:
    return [each for each in (result if isinstance(result, (tuple, list)) else (result,)) if each is not None]


def assert_alike(ours: Any, wanted: Any, tolerance: float) -> None:
    """Each tensor is right to a share of its largest value. Integers and truth values are equal."""
    mine, theirs = flat(ours), flat(wanted)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        if not b.is_floating_point():
            assert torch.equal(a.to(b.dtype), b)
            continue
        a, b = a.detach().double(), b.detach().double()
        assert torch.equal(a.isnan(), b.isnan())
        infinite = b.isinf()
        assert torch.equal(a[infinite], b[infinite])
        finite = b.isfinite()
        if finite.any():
            assert (a - b)[finite].abs().max() <= tolerance * b[finite].abs().max().clamp_min(1e-30)


def wide(value: Any) -> Any:
    """A float tensor in double. Anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int, seed: int = 0, low: int = 0, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@dataclass(frozen=True)
class Case:
    """A function and its inputs.

    Args:
        tolerance: of each result, as a share of its largest value.
        backward: gradients with respect to all float inputs are compared too.
    """

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    tolerance: float = 1e-5
    backward: bool = False


X, Y, POSITIVE = normal(17, 40), normal(17, 40, seed=1), uniform(17, 40) + 0.1
WIDE, ROW = normal(5, 700), normal(40, seed=2)
IMAGE, CHANNELS = normal(2, 6, 10, 12), normal(6, seed=3)
WORDS = integers(50, 4, 9)
INT, INT2 = integers(1000, 17, 40, low=-1000), integers(60, 17, 40, low=1, seed=1)

POINTWISE = {
    "arithmetic": Case(lambda x, y: (x + y) * x - y / (x * x + 1), (X, Y), backward=True),
    "gelu": Case(F.gelu, (X,), backward=True),
    "gelu tanh": Case(lambda x: F.gelu(x, approximate="tanh"), (X,), backward=True),
    "silu and mish": Case(lambda x: F.silu(x) + F.mish(x), (X,), backward=True),
    "elu and softplus": Case(lambda x: F.elu(x) * F.softplus(x), (X,), backward=True),
    "hardswish and relu6": Case(lambda x: F.hardswish(3 * x) + F.relu6(4 * x), (X,), backward=True),
    "exponentials": Case(lambda x: x.exp() + x.exp2() + x.expm1() + x.sigmoid().tanh(), (X,)),
    "logarithms": Case(
        lambda x: x.log() + x.log2() + x.log10() + x.log1p() + x.sqrt() + x.rsqrt(), (POSITIVE,)
    ),
    "trigonometry": Case(
        lambda x, y: x.sin() + x.cos() * y.atan() + torch.atan2(x, y) + (x / 4).tan(), (X, Y)
    ),
    "hyperbolic": Case(lambda x: x.sinh() + x.cosh() + x.asinh() + (x.abs() + 1).acosh(), (X,)),
    "inverse trigonometry": Case(
        lambda x: (x - 0.6).acos() + (x - 0.6).asin() + (x - 0.6).atanh(), (POSITIVE,)
    ),
    "error functions": Case(lambda x: torch.erf(x) + torch.erfc(x) + torch.erfinv(x.tanh()), (X,)),
    "bessel functions": Case(
        lambda x: torch.special.bessel_j0(x) + torch.special.bessel_j1(x) + torch.special.i0(x), (X,)
    ),
    "more bessel functions": Case(
        lambda x: torch.special.bessel_y0(x) + torch.special.bessel_y1(x) + torch.special.i1(x), (POSITIVE,)
    ),
    "scaled error function": Case(lambda x: torch.special.erfcx(x) + torch.special.ndtri(x / 2), (POSITIVE,)),
    "gamma": Case(lambda x: torch.lgamma(x + 2), (POSITIVE,)),
    "powers": Case(lambda x, y: x**y + x**3 + x**0.5 + 2**y, (POSITIVE, Y), backward=True),
    "clamp and where": Case(
        lambda x, y: torch.where(x > y, x.clamp(-1, 1), y.clamp(min=0)), (X, Y), backward=True
    ),
    "rounding": Case(lambda x: (3 * x).floor() + (3 * x).ceil() + (3 * x).round() + (3 * x).trunc(), (X,)),
    "remainders": Case(lambda x, y: torch.fmod(x, y.abs() + 1) + torch.remainder(x, y.abs() + 1), (X, Y)),
    "minimum and maximum": Case(lambda x, y: torch.minimum(x, y) + torch.maximum(x, y.square()), (X, Y)),
    "signs": Case(lambda x, y: x.sign() * y.abs() + torch.copysign(x, y) + x.signbit(), (X, Y)),
    "not finite": Case(
        lambda x: (x.isnan(), x.isinf(), torch.nan_to_num(x, 1, 2, -3), torch.relu(x)),
        (torch.tensor([[0.0, -0.0, 1, -1, float("inf"), float("-inf"), float("nan"), 2]]).repeat(3, 1),),
    ),
    "comparisons": Case(lambda x, y: ((x < y) & (x != 0), (x >= y) | (y > 1), ~(x == y)), (X, Y)),
    "lerp and addcmul": Case(lambda x, y: torch.lerp(x, y, 0.3) + torch.addcmul(x, x, y, value=0.5), (X, Y)),
    "broadcast": Case(lambda x, row: x * row + row.sin(), (X, ROW), backward=True),
    "integers": Case(
        lambda a, b: (a * b + a - b, a // b, a % b, torch.div(a, b, rounding_mode="trunc")), (INT, INT2)
    ),
    "bits": Case(lambda a, b: ((a & b) | 5, a ^ b, ~a, a << (b % 5), a >> (b % 5)), (INT, INT2)),
    "true division of integers": Case(lambda a, b: a / b, (INT, INT2)),
}
DTYPES = {
    "fp16": Case(lambda x, y: F.silu(x) * y + 1, (X.half(), Y.half()), 2e-3),
    "bf16": Case(lambda x, y: F.silu(x) * y + 1, (X.bfloat16(), Y.bfloat16()), 2e-2),
    "fp64": Case(lambda x, y: (x.exp() + y.sin()).sum(1), (X.double(), Y.double()), 1e-14, backward=True),
    "bf16 softmax": Case(lambda x: x.softmax(-1), (WIDE.bfloat16(),), 2e-2),
    "fp16 sum": Case(lambda x: x.sum(1), (WIDE.half(),), 2e-3),
    "int8": Case(
        lambda a: (a + 100, a * 3, a.abs().sum(1)), (integers(100, 9, 40, low=-100, dtype=torch.int8),)
    ),
    "uint8": Case(lambda a: (a + 100, a // 3, a.sum(1)), (integers(256, 9, 40, dtype=torch.uint8),)),
    "int16 and int32": Case(lambda a, b: a * b + a, (INT.short(), INT2.int())),
    "truth values": Case(lambda a: (a.any(1), a.all(0), a.sum(1), a ^ a[:1]), (X > 1,)),
    "conversions": Case(
        lambda x: ((10 * x).int(), (10 * x).long().float() / 3, x.half().float(), x > 0), (X,), 1e-3
    ),
    "promotion": Case(lambda x, a: x + a * 2.5 + (a > 3), (X, INT)),
}
REDUCTIONS = {
    "sum of rows": Case(lambda x: x.sum(1), (WIDE,), backward=True),
    "sum of columns": Case(lambda x: x.sum(0), (normal(300, 37),)),
    "sum of all": Case(lambda x: x.square().sum(), (normal(61, 127),), backward=True),
    "mean and variance": Case(lambda x: (x.mean(1), x.var(1), x.std(0)), (WIDE,)),
    "var_mean": Case(lambda x: torch.var_mean(x, (0, 2), keepdim=True), (normal(5, 6, 70),)),
    "extremes": Case(lambda x: (x.amax(1), x.amin(0), x.max(), x.min()), (WIDE,)),
    "extremes with places": Case(lambda x: (*x.max(1), *x.min(1), x.argmax(), x.argmin(0)), (WIDE,)),
    "product": Case(lambda x: x.prod(1), (POSITIVE,)),
    "logsumexp": Case(lambda x: torch.logsumexp(x, 1), (WIDE,), backward=True),
    "vector norms": Case(lambda x: (x.norm(dim=1), x.abs().sum(0), x.norm(p=3, dim=1)), (WIDE,)),
    "any, all, count": Case(lambda x: ((x > 3).any(1), (x < 3).all(1), (x > 0).sum(0)), (WIDE,)),
    "three dimensions": Case(lambda x: (x.sum((0, 2)), x.amax(1), x.mean((1, 2))), (normal(7, 9, 33),)),
    "cumulative sum": Case(lambda x: x.cumsum(1), (X,), backward=True),
    "cumulative product": Case(lambda x: (x * 1.0).cumprod(1), (POSITIVE,)),
    "cumulative logsumexp": Case(lambda x: torch.logcumsumexp(x, 1), (X,)),
    "sum, then what needs it": Case(lambda x: x / x.abs().sum(1, keepdim=True), (WIDE,), backward=True),
}
NORMS = {
    "layer norm": Case(lambda x, w, b: F.layer_norm(x, (40,), w, b), (X, ROW, normal(40)), backward=True),
    "rms norm": Case(lambda x, w: F.rms_norm(x, (40,), w, 1e-6), (X, ROW), backward=True),
    "group norm": Case(lambda x, w, b: F.group_norm(x, 3, w, b), (IMAGE, CHANNELS, normal(6)), backward=True),
    "batch norm": Case(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        (IMAGE, CHANNELS, normal(6)),
        backward=True,
    ),
    "batch norm of running statistics": Case(
        lambda x, m, v, w: F.batch_norm(x, m, v, w), (IMAGE, normal(6), uniform(6) + 0.5, CHANNELS)
    ),
    "instance norm": Case(lambda x: F.instance_norm(x), (IMAGE,), backward=True),
    "softmax": Case(lambda x: x.softmax(-1), (WIDE,), backward=True),
    "log_softmax": Case(lambda x: x.log_softmax(0), (X,), backward=True),
    "masked softmax": Case(lambda x, m: x.masked_fill(m, float("-inf")).softmax(-1), (X, Y > 0.5)),
    "cross entropy": Case(lambda x, t: F.cross_entropy(x, t), (X, integers(40, 17)), backward=True),
    "smoothed cross entropy": Case(
        lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), (X, integers(40, 17)), backward=True
    ),
    "mse and huber": Case(lambda x, y: F.mse_loss(x, y) + F.huber_loss(x, y), (X, Y), backward=True),
    "normalize": Case(lambda x: F.normalize(x, dim=1), (X,), backward=True),
}
ORDER = {
    "sort": Case(lambda x: (x * 2).sort(1), (normal(5, 64),)),
    "sort downwards": Case(lambda x: (x * 2).sort(1, descending=True), (normal(5, 64),)),
    "stable sort of integers": Case(lambda a: torch.sort(a + 1, stable=True, dim=1), (integers(4, 5, 16),)),
    "argsort": Case(lambda x: (x * 2).argsort(1), (normal(5, 64),)),
    "topk": Case(lambda x: (x * 2).topk(3, 1), (X,)),
    "median": Case(lambda x: (x * 2).median(1), (X,)),
    "topk and median": Case(lambda x: (*(x * 2).topk(5, 1), *(x + 1).median(1)), (normal(9, 100),)),
    "bucketize": Case(lambda x: torch.bucketize(x, torch.linspace(-2, 2, 9, dtype=x.dtype)), (X,)),
}
LAYOUTS = {
    "transposed": Case(lambda x, y: x.t() + y.t().sin(), (X, Y), backward=True),
    "permuted": Case(lambda x: x.permute(0, 2, 3, 1).contiguous() * 2, (IMAGE,), backward=True),
    "reshaped": Case(lambda x: (x + 1).reshape(17 * 8, 5).sum(1), (X,), backward=True),
    "expanded": Case(lambda row: row[None, :].expand(6, 40) * torch.arange(6)[:, None], (ROW,)),
    "sliced": Case(lambda x: x[2:15:3, 5:] * x[1:14:3, :-5], (X,), backward=True),
    "flipped and rolled": Case(lambda x: x.flip(1) + x.roll(3, 0), (X,), backward=True),
    "unfolded": Case(lambda x: x.unfold(1, 6, 2).sum(-1), (X,)),
    "triangles": Case(lambda x: x.tril(1) + 2 * x.triu(-2), (X,), backward=True),
    "stacked": Case(lambda x, y: torch.stack([x, y * 2, x + y], 1), (X, Y), backward=True),
    "concatenated": Case(lambda x, y: torch.cat([x * 2, y[:5], x.sin()], 0), (X, Y), backward=True),
    "concatenated along rows": Case(lambda x, y: torch.cat([x, y + 1, x[:, :7]], 1), (X, Y), backward=True),
    "split": Case(lambda x: [part * place for place, part in enumerate(x.split(9, 1))], (X,)),
    "padded": Case(lambda x: F.pad(x, (1, 2, 3, 4), value=0.5) * 2, (X,), backward=True),
    "reflected": Case(lambda x: F.pad(x, (2, 3), mode="reflect") * 2, (X,), backward=True),
    "pixel shuffle": Case(lambda x: F.pixel_shuffle(x, 2) + 1, (normal(2, 8, 5, 6),)),
    "constants": Case(lambda x: x + torch.arange(40) + torch.full((17, 1), 3.0) + torch.eye(17, 40), (X,)),
}
INDEXING = {
    "rows by number": Case(lambda x, i: x[i] * 2, (X, integers(17, 9)), backward=True),
    "elements by number": Case(lambda x, i, j: x[i, j] + 1, (X, integers(17, 9), integers(40, 9, seed=1))),
    "negative numbers": Case(lambda x, i: x[i] * 2, (X, integers(17, 9, low=-17))),
    "gather": Case(lambda x, i: x.gather(1, i) * 2, (X, integers(40, 17, 7)), backward=True),
    "scatter": Case(lambda x, i, y: x.scatter(1, i, y[:, :3]) * 2, (X, torch.arange(3).repeat(17, 1) * 7, Y)),
    "scatter_add": Case(
        lambda x, i, y: x.scatter_add(1, i, y) * 2, (X, integers(40, 17, 40), Y), backward=True
    ),
    "scatter_reduce": Case(
        lambda x, i, y: x.scatter_reduce(1, i, y, "amax") * 2, (X, integers(40, 17, 40), Y)
    ),
    "index_put": Case(lambda x, i, y: x.index_put((i,), y[:3]) * 2, (X, torch.tensor([4, 0, 9]), Y)),
    "accumulated": Case(
        lambda x, i, y: x.index_put((i,), y[:9], accumulate=True) * 2, (X, integers(5, 9), Y), backward=True
    ),
    "index_add": Case(lambda x, i, y: x.index_add(0, i, y[:9]) * 2, (X, integers(5, 9), Y)),
    "masked_fill": Case(lambda x, m: x.masked_fill(m, 7.0) * 2, (X, Y > 0), backward=True),
    "embedding": Case(lambda w, i: F.embedding(i, w) * 2, (normal(50, 12), WORDS), backward=True),
    "one hot": Case(lambda i: F.one_hot(i, 50) * 2, (WORDS,)),
}
MATRIX, BIAS, KERNEL = normal(40, 24, seed=4), normal(24, seed=5), normal(8, 6, 3, 3, seed=6)
QUERY = normal(2, 3, 11, 8)
PRODUCTS = {
    "linear and relu": Case(lambda x, w, b: torch.relu(x @ w + b), (X, MATRIX, BIAS), backward=True),
    "two layers": Case(lambda x, w, b: F.gelu(x @ w + b) @ w.t(), (X, MATRIX, BIAS), backward=True),
    "batched product": Case(lambda q, k: (q @ k.transpose(-1, -2) / 3).softmax(-1), (QUERY, QUERY + 1)),
    "attention": Case(lambda q, k: F.scaled_dot_product_attention(q, k, k.sin()) * 2, (QUERY, QUERY + 1)),
    "convolution and relu": Case(lambda x, w: torch.relu(F.conv2d(x, w)), (IMAGE, KERNEL), backward=True),
    "convolution, norm, silu": Case(
        lambda x, w: F.silu(F.group_norm(F.conv2d(x, w, padding=1), 2)), (IMAGE, KERNEL), backward=True
    ),
    "convolution in one dimension": Case(
        lambda x, w: F.conv1d(x, w).tanh(), (normal(2, 6, 30), normal(4, 6, 3))
    ),
    "average pooling": Case(lambda x: F.avg_pool2d(x, 2) * 2, (IMAGE,), backward=True),
    "largest of windows": Case(lambda x: F.max_pool2d(x, 2) * 2, (IMAGE,), backward=True),
    "adaptive pooling": Case(lambda x: F.adaptive_avg_pool2d(x, (5, 4)) * 2, (IMAGE,)),
    "upsampled": Case(lambda x: F.interpolate(x, scale_factor=2) + 1, (IMAGE,), backward=True),
    "upsampled bilinearly": Case(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear") + 1, (IMAGE,)),
}
CASES = {**POINTWISE, **DTYPES, **REDUCTIONS, **NORMS, **ORDER, **LAYOUTS, **INDEXING, **PRODUCTS}


def gradients(result: Any, leaves: list[Tensor]) -> list[Tensor]:
    """Of one weighted sum of the results."""
    total = sum((y.double() * normal(*y.shape, seed=9).double()).sum() for y in flat(result))
    return list(torch.autograd.grad(total, leaves))


def leaves_of(inputs: tuple[Any, ...]) -> list[Any]:
    return [
        x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
    ]


@pytest.mark.parametrize("name", CASES)
def test_function(name: str) -> None:
    case = CASES[name]
    exact = tuple(map(wide, case.inputs))
    if not case.backward:
        assert_alike(through_triton(case.function, *case.inputs), case.function(*exact), case.tolerance)
        return
    ours, theirs = leaves_of(case.inputs), leaves_of(exact)
    got, wanted = through_triton(case.function, *ours), case.function(*theirs)
    assert_alike(got, wanted, case.tolerance)
    floats = [[x for x in leaves if isinstance(x, Tensor) and x.requires_grad] for leaves in (ours, theirs)]
    assert_alike(gradients(got, floats[0]), gradients(wanted, floats[1]), 4 * case.tolerance)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.silu(x) * 2,
        lambda x: x.sum(-1),
        lambda x: x.softmax(-1),
        lambda x: torch.cat([x, x * 2], 0),
        lambda x: x.t().contiguous() + 1,
    ],
    ids=["pointwise", "sum", "softmax", "cat", "transposed"],
)
def test_one_kernel_for_many_shapes(function: Callable[[Tensor], Tensor]) -> None:
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    for rows, columns in ((7, 33), (8, 64), (3, 130), (20, 5)):
        x = normal(rows, columns)
        assert_alike(compiled(x), function(x.double()), 1e-5)


def test_inputs_changed_in_place() -> None:
    def change(x: Tensor, y: Tensor) -> Tensor:
        x.add_(y).mul_(2)
        y[2:5] = x[:3] * 3
        return x.sum(1)

    ours, theirs = [X.clone(), Y.clone()], [X.double(), Y.double()]
    assert_alike(through_triton(change, *ours), change(*theirs), 1e-5)
    assert_alike(ours, theirs, 1e-5)


def test_running_statistics_move() -> None:
    ours, theirs = (nn.BatchNorm2d(6).to(dtype) for dtype in (torch.float32, torch.float64))
    got, wanted = through_triton(lambda x: ours(x) * 2, IMAGE), theirs(IMAGE.double()) * 2
    assert_alike(got, wanted, 1e-5)
    assert_alike([ours.running_mean, ours.running_var], [theirs.running_mean, theirs.running_var], 1e-5)


def test_random_numbers_follow_the_seed() -> None:
    def draw(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rand_like(x) + x, torch.randn_like(x) + x

    zeros = torch.zeros(200, 200)
    torch.manual_seed(3)
    first = through_triton(draw, zeros)
    compiled = torch.compile(draw)
    torch.manual_seed(3)
    again, other = compiled(zeros), compiled(zeros)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(again[0], other[0])
    even, bell = again
    # 40,000 draws: the mean is off by more than 5 standard errors once in two million times.
    assert even.min() >= 0
    assert even.max() < 1
    assert abs(even.mean().item() - 0.5) < 5 / 12**0.5 / 200
    assert abs(bell.mean().item()) < 5 / 200
    assert abs(bell.var().item() - 1) < 5 * 2**0.5 / 200


def test_dropout_keeps_its_share_and_its_gradient() -> None:
    x = torch.ones(200, 200, requires_grad=True)
    torch.manual_seed(0)
    y = through_triton(lambda x: F.dropout(x, 0.25) * 3, x)
    kept = y != 0
    assert torch.equal(y[kept], torch.full_like(y[kept], 4.0))
    assert abs(kept.double().mean().item() - 0.75) < 5 * (0.75 * 0.25) ** 0.5 / 200
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope, y.detach())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 10))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(40, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
    return nn.Sequential(nn.Unflatten(0, (1, -1)), layer, nn.Flatten(0, 1), nn.Linear(40, 10))


def cnn() -> nn.Module:
    body = [
        nn.Unflatten(1, (1, 5, 8)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(48, 10))


@pytest.mark.parametrize("build", [mlp, transformer, cnn])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_training_steps(build: Callable[[], nn.Module], optimizer: Any) -> None:
    """Five steps: the losses and the last parameters are those of eager training in double."""
    torch.manual_seed(0)
    ours = build()
    theirs = build().double()
    theirs.load_state_dict(ours.state_dict())
    target = integers(10, 17)
    losses: list[list[float]] = [[], []]
    compiled = torch.compile(ours, fullgraph=True)
    for place, (model, x) in enumerate([(compiled, X), (theirs, X.double())]):
        steps = optimizer(model.parameters(), lr=0.01)
        for _ in range(5):
            loss = F.cross_entropy(model(x), target)
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses[place].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


def test_an_optimizer_step_is_compiled() -> None:
    ours, theirs = (
        [p.clone().to(dtype).requires_grad_() for p in (X, ROW)] for dtype in (torch.float32, torch.float64)
    )
    optimizers = [torch.optim.AdamW(parameters, lr=0.1, foreach=True) for parameters in (ours, theirs)]
    steps = [torch.compile(optimizers[0].step), optimizers[1].step]
    for seed in range(3):
        for parameters, step in zip((ours, theirs), steps, strict=True):
            for p in parameters:
                p.grad = normal(*p.shape, seed=seed).to(p.dtype)
            step()
    assert_alike(ours, theirs, 1e-5)
