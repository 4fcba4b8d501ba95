"""What Triton's front end can emit: each operation is compiled, or refused by its name and line."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton._C.libtriton import ir, passes
from triton.compiler.errors import CompilationError
from triton.language.extra.cuda import gdc

from fusetune.kernels.cpu.lowering.elementwise import RULES
from fusetune.kernels.cpu.lowering.module import LOWERINGS
from fusetune.kernels.cpu.lowering.shape import VIEWS

KNOWN = {*RULES, *LOWERINGS, *VIEWS, "tt.splat", "tt.make_range", "tt.join"}
# What each method of Triton's builder makes, once Triton's own passes have run.
SUPPORTED = {
    "add": "arith.addi",
    "addptr": "tt.addptr",
    "and": "arith.andi",
    "approx_divf": "tt.approx_divf",
    "ashr": "arith.shrsi",
    "assert": "tt.assert",
    "assume": "llvm.intr.assume",
    "atomic_cas": "tt.atomic_cas",
    "atomic_load": "tt.atomic_load",
    "atomic_poll": "tt.atomic_poll",
    "atomic_rmw": "tt.atomic_rmw",
    "atomic_store": "tt.atomic_store",
    "barrier": "ttg.barrier",
    "bitcast": "tt.bitcast",
    "branch": "cf.br",
    "broadcast": "tt.broadcast",
    "cat": "tt.cat",
    "ceil": "math.ceil",
    "clampf": "tt.clampf",
    "cond_branch": "cf.cond_br",
    "condition_op": "scf.condition",
    "cos": "math.cos",
    "dot": "tt.dot",
    "erf": "math.erf",
    "exp": "math.exp",
    "exp2": "math.exp2",
    "expand_dims": "tt.expand_dims",
    "extern_elementwise": "tt.extern_elementwise",
    "fabs": "math.absf",
    "fadd": "arith.addf",
    **{
        f"fcmp{kind}": "arith.cmpf"
        for kind in ["OEQ", "OGE", "OGT", "OLE", "OLT", "ONE", "UEQ", "UGE", "UGT", "ULE", "ULT", "UNE"]
    },
    "fdiv": "arith.divf",
    "floor": "math.floor",
    "fma": "math.fma",
    "fmul": "arith.mulf",
    "fneg": "arith.negf",
    "for_op": "scf.for",
    "fp_ext": "arith.extf",
    "fp_to_fp": "tt.fp_to_fp",
    "fp_to_si": "arith.fptosi",
    "fp_to_ui": "arith.fptoui",
    "fp_trunc": "arith.truncf",
    "frem": "arith.remf",
    "fsub": "arith.subf",
    "gather": "tt.gather",
    "get_num_programs": "tt.get_num_programs",
    "get_program_id": "tt.get_program_id",
    "grid_dependency_launch_dependents": "tt.grid_dependency_launch_dependents",
    "grid_dependency_wait": "tt.grid_dependency_wait",
    "histogram": "tt.histogram",
    "iabs": "math.absi",
    **{
        f"icmp{kind}": "arith.cmpi"
        for kind in ["EQ", "NE", "SGE", "SGT", "SLE", "SLT", "UGE", "UGT", "ULE", "ULT"]
    },
    "if_op": "scf.if",
    "int_cast": "arith.extsi",
    "int_to_ptr": "tt.int_to_ptr",
    "join": "tt.join",
    "load": "tt.load",
    "log": "math.log",
    "log2": "math.log2",
    "lshr": "arith.shrui",
    "make_range": "tt.make_range",
    "masked_load": "tt.load",
    "masked_store": "tt.store",
    "maximumf": "arith.maximumf",
    "maxnumf": "arith.maxnumf",
    "maxsi": "arith.maxsi",
    "maxui": "arith.maxui",
    "minimumf": "arith.minimumf",
    "minnumf": "arith.minnumf",
    "minsi": "arith.minsi",
    "minui": "arith.minui",
    "mul": "arith.muli",
    "or": "arith.ori",
    "poison": "ub.poison",
    "precise_divf": "tt.precise_divf",
    "precise_sqrt": "tt.precise_sqrt",
    "print": "tt.print",
    "ptr_to_int": "tt.ptr_to_int",
    "reduce": "tt.reduce",
    "reduce_ret": "tt.reduce.return",
    "reshape": "tt.reshape",
    "rsqrt": "math.rsqrt",
    "scan": "tt.scan",
    "scan_ret": "tt.scan.return",
    "sdiv": "arith.divsi",
    "select": "arith.select",
    "shl": "arith.shli",
    "si_to_fp": "arith.sitofp",
    "sin": "math.sin",
    "splat": "tt.splat",
    "split": "tt.split",
    "sqrt": "math.sqrt",
    "srem": "arith.remsi",
    "store": "tt.store",
    "sub": "arith.subi",
    "trans": "tt.trans",
    "udiv": "arith.divui",
    "ui_to_fp": "arith.uitofp",
    "umulhi": "tt.mulhiui",
    "unsplat": "tt.unsplat",
    "urem": "arith.remui",
    "while_op": "scf.while",
    "xor": "arith.xori",
    "yield_op": "scf.yield",
}
REFUSED = {
    "dot_scaled": "tt.dot_scaled",
    "inline_asm": "tt.elementwise_inline_asm",
    "map_elementwise": "tt.map_elementwise",
    "map_elementwise_ret": "tt.map_elementwise.return",
}
# Triton's passes turn these into pointers before the lowering sees them.
REWRITTEN = {
    "advance",
    "descriptor_gather",
    "descriptor_load",
    "descriptor_reduce",
    "descriptor_scatter",
    "descriptor_store",
    "make_block_ptr",
    "make_tensor_descriptor",
    "tensor_pointer_load",
    "tensor_pointer_store",
}
NO_OPERATIONS = {"block", "block_with_parent", "loc", "module", "name_loc", "tensor_descriptor_type"}


def test_every_operation_of_the_front_end_is_known_or_refused() -> None:
    methods = {name.removeprefix("create_") for name in dir(ir.builder) if name.startswith("create_")}
    assert methods - {*SUPPORTED, *REFUSED, *REWRITTEN, *NO_OPERATIONS} == set()
    assert set(SUPPORTED.values()) - KNOWN == set()
    assert set(REFUSED.values()) & KNOWN == set()


@triton.jit
def doubled(x):
    return x * 2


@triton.jit
def refused_map(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, tl.map_elementwise(doubled, tl.load(x_ptr + i)))


@triton.jit
def refused_scaled(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    x = tl.load(x_ptr + i).to(tl.bfloat16)
    tl.store(x_ptr + i, tl.dot_scaled(x, None, "bf16", x, None, "bf16"))


@triton.jit
def refused_assembly(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [tl.load(x_ptr + i)], tl.float32, True, 1)
    tl.store(x_ptr + i, x)


@tl.core.extern
def unknown_function(x, _semantic=None):
    names = {(tl.float32,): ("__nv_cyl_bessel_i2f", tl.float32)}
    return tl.core.extern_elementwise("", "", [x], names, is_pure=True, _semantic=_semantic)


@triton.jit
def refused_function(x_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x_ptr + i, unknown_function(tl.load(x_ptr + i)))


@pytest.mark.parametrize(
    ("kernel", "line", "operation"),
    [
        (refused_map, 3, "tt.map_elementwise"),
        (refused_scaled, 4, "tt.dot_scaled"),
        (refused_assembly, 3, "tt.elementwise_inline_asm"),
        (refused_function, 3, "tt.extern_elementwise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_names_the_operation_and_the_line(
    kernel: triton.JITFunction, line: int, operation: str
) -> None:
    place = f"test_operations.py:{kernel.starting_line_number + line}"
    with pytest.raises(CompilationError, match=rf"{place}: {operation} cannot be compiled for the CPU"):
        kernel[(1,)](torch.zeros(1024), SIZE=32)


def test_a_function_that_is_not_known_is_named_with_the_closest_one() -> None:
    with pytest.raises(CompilationError) as caught:
        refused_function[(1,)](torch.zeros(1024), SIZE=32)
    place = f"test_operations.py:{refused_function.starting_line_number + 3}"
    said = str(caught.value)[str(caught.value).index(place) :]
    assert said == (
        f"{place}: tt.extern_elementwise cannot be compiled for the CPU: the function __nv_cyl_bessel_i2f is not "
        "known; the closest known one is __nv_cyl_bessel_i1f."
    )


@triton.jit
def refused_bytes(x_ptr, y_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(y_ptr + i, tl.load(x_ptr + i).to(tl.float32))


def test_floats_of_8_bits_are_refused() -> None:
    with pytest.raises(CompilationError, match="fp8e5 not supported"):
        refused_bytes[(1,)](torch.zeros(32, dtype=torch.float8_e5m2), torch.zeros(32), SIZE=32)


@triton.jit
def by_descriptors(x_ptr, y_ptr, rows_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [ROWS, COLUMNS], [COLUMNS, 1], [4, 8])
    y = tl.make_tensor_descriptor(y_ptr, [ROWS, COLUMNS], [COLUMNS, 1], [4, 8])
    for row in range(0, ROWS, 4):
        for column in range(0, COLUMNS, 8):
            y.store([row, column], x.load([row, column]) + 1)
    y.atomic_add([0, 8], x.load([0, 8]))
    gathered = tl.make_tensor_descriptor(x_ptr, [ROWS, COLUMNS], [COLUMNS, 1], [1, 8])
    place = tl.arange(0, 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
    tl.store(rows_ptr + place, gathered.gather(7 - tl.arange(0, 8), 4))


def test_descriptors_of_tensors() -> None:
    x, y = torch.randn(7, 12), torch.zeros(7, 12)
    rows = torch.empty(8, 8)
    by_descriptors[(1,)](x, y, rows, ROWS=7, COLUMNS=12)
    wanted = x + 1
    wanted[:4, 8:] += x[:4, 8:]
    torch.testing.assert_close(y, wanted)
    assert torch.equal(rows[1:], x.flip(0)[:, 4:])
    assert rows[0].tolist() == [0.0] * 8


@triton.jit
def by_block_pointers(x_ptr, y_ptr):
    x = tl.make_block_ptr(x_ptr, (7, 9), (9, 1), (0, 0), (4, 16), (1, 0))
    y = tl.make_block_ptr(y_ptr, (7, 9), (9, 1), (0, 0), (4, 16), (1, 0))
    for _ in range(2):
        tl.store(y, tl.load(x, boundary_check=(0, 1)) * 2, boundary_check=(0, 1))
        x = tl.advance(x, (4, 0))
        y = tl.advance(y, (4, 0))


@pytest.mark.skipif(not hasattr(passes.ttir, "add_rewrite_tensor_pointer"), reason="this Triton has none")
@pytest.mark.filterwarnings("ignore:tl.make_block_ptr is deprecated")
def test_block_pointers() -> None:
    x, y = torch.randn(7, 9), torch.zeros(7, 9)
    by_block_pointers[(1,)](x, y)
    assert torch.equal(y, 2 * x)


@triton.jit
def towards_zero(x_ptr, half_ptr, bfloat_ptr, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.store(half_ptr + i, x.to(tl.float16, fp_downcast_rounding="rtz"))
    tl.store(bfloat_ptr + i, x.to(tl.bfloat16, fp_downcast_rounding="rtz"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_towards_zero(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2**14, generator=generator, dtype=dtype)
    x *= 10.0 ** torch.randint(-9, 6, x.shape, generator=generator)
    x[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, 65535.0])
    half, bfloat = torch.empty(len(x), dtype=torch.float16), torch.empty(len(x), dtype=torch.bfloat16)
    towards_zero[(16,)](x, half, bfloat, SIZE=1024)
    for short, unit in ((half, 2.0**-10), (bfloat, 2.0**-7)):
        got, exact = short.double(), x.double()
        assert (got.abs() <= exact.abs()).all()
        # The next float further from zero would be beyond the exact value.
        largest = torch.finfo(short.dtype).max
        above = torch.maximum(got.abs() * unit, torch.tensor(2.0**-24 if short is half else 0.0)) + got.abs()
        assert ((above > exact.abs()) | torch.isinf(exact) | (got.abs() == largest) | (exact == 0)).all()
    assert half[:4].tolist() == [torch.inf, -torch.inf, 0.0, 65504.0]


@triton.jit
def looked_up_by_bytes(at_ptr, x_ptr, y_ptr, SIZE: tl.constexpr, BINS: tl.constexpr):
    at = tl.load(at_ptr + tl.arange(0, SIZE))
    x = tl.load(x_ptr + tl.arange(0, BINS))
    tl.store(y_ptr + tl.arange(0, SIZE), tl.gather(x, at, 0))


@triton.jit
def counted(at_ptr, counts_ptr, SIZE: tl.constexpr, BINS: tl.constexpr):
    at = tl.load(at_ptr + tl.arange(0, SIZE))
    tl.store(counts_ptr + tl.arange(0, BINS), tl.histogram(at, BINS))


def test_unsigned_bytes_count_beyond_127() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.randint(0, 256, (1024,), generator=generator, dtype=torch.uint8)
    x, y, counts = torch.randn(512), torch.empty(1024), torch.empty(512, dtype=torch.int32)
    looked_up_by_bytes[(1,)](at, x, y, SIZE=1024, BINS=512)
    assert torch.equal(y, x[at.long()])
    # Triton 3.9's front end counts integers of 32 bits alone.
    counted[(1,)](at.int() if hasattr(tl, "atomic_poll") else at, counts, SIZE=1024, BINS=512)
    assert torch.equal(counts, torch.bincount(at.long(), minlength=512).int())


@triton.jit
def added_with_care(x_ptr, y_ptr, n, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(y_ptr + i, tl.load(x_ptr + i) + n)


def test_overflow_is_found_where_it_is_looked_for() -> None:
    x, y = torch.arange(16, dtype=torch.int32), torch.empty(16, dtype=torch.int32)
    added_with_care[(1,)](x, y, 2**31 - 16, SIZE=16, debug=True)
    with pytest.raises(AssertionError, match="int32 overflow detected for operation add"):
        added_with_care[(1,)](x, y, 2**31 - 15, SIZE=16, debug=True)
    added_with_care[(1,)](x, y, 2**31 - 15, SIZE=16)
    assert y[-1].item() == -(2**31)


@triton.jit
def updated(x_ptr, y_ptr, SIZE: tl.constexpr, BINS: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    tl.atomic_max(y_ptr + i % BINS, x)
    tl.atomic_min(y_ptr + BINS + i % BINS, x)
    tl.atomic_add(y_ptr + 2 * BINS + i % BINS, x)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int32, torch.int64, torch.uint32], ids=str
)
def test_atomic_updates_of_every_type(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    least = 0 if dtype == torch.uint32 else -1000
    x = torch.randint(least, 1000, (4, 8), generator=generator).to(dtype)  # sums are exact
    y = torch.full((3, 8), 7).to(dtype)
    updated[(1,)](x, y, SIZE=32, BINS=8)
    each = x.numpy()
    assert np.array_equal(y[0].numpy(), np.maximum(7, each.max(0)))
    assert np.array_equal(y[1].numpy(), np.minimum(7, each.min(0)))
    assert np.array_equal(y[2].numpy(), 7 + each.sum(0, dtype=each.dtype))


@triton.jit
def wait_for(flag, gone_by):
    if tl.program_id(0) == 0:
        tl.atomic_xchg(flag, 1)
    else:
        while tl.load(flag, volatile=True) == 0:
            pass
        tl.store(gone_by, 1)


@triton.jit
def wait_for_all(flags, gone_by):
    i = tl.arange(0, 4)
    if tl.program_id(0) == 0:
        tl.atomic_add(flags + i, 1)
    else:
        while tl.sum(tl.load(flags + i, volatile=True), 0) < 4:
            pass
        tl.store(gone_by, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kernel", [wait_for, wait_for_all])
def test_a_volatile_load_sees_what_another_thread_stores(kernel: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(100):
            flags, gone_by = torch.zeros(4, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
            kernel[(2,)](flags, gone_by)
            assert gone_by.item() == 1
    finally:
        torch.set_num_threads(threads)


@triton.jit
def handed_over(x_ptr, y_ptr, first_ptr, n, SIZE: tl.constexpr):
    gdc.gdc_wait()
    i = tl.arange(0, SIZE)
    gdc.gdc_launch_dependents()
    tl.atomic_store(y_ptr + i, tl.atomic_load(x_ptr + i, mask=i < n), mask=i < n)
    tl.atomic_store(first_ptr, tl.atomic_load(x_ptr))


@triton.jit
def relayed(flags, seen, timeout, LANES: tl.constexpr):
    i = tl.arange(0, LANES)
    if tl.program_id(0) == 0:
        tl.atomic_store(flags + i, i + 1)
    else:
        tl.store(seen + i, tl.atomic_poll(flags + i, i + 1))
        tl.store(seen + LANES, tl.atomic_poll(flags, 1, timeout_ns=timeout))
        tl.store(seen + LANES + 1, tl.atomic_poll(flags, 9, timeout_ns=timeout))


@triton.jit
def approximate(x_ptr, y_ptr, q_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(q_ptr + i, tl.fdiv(tl.load(x_ptr + i), tl.load(y_ptr + i), approx=True))


since_triton_3_9 = pytest.mark.skipif(not hasattr(tl, "atomic_poll"), reason="Triton 3.9 brought them")


@since_triton_3_9
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool], ids=str
)
def test_atomic_loads_and_stores_of_every_type(dtype: torch.dtype) -> None:
    x, y, first = (
        (torch.arange(-20, 12) % 9).to(dtype),
        torch.zeros(32, dtype=dtype),
        torch.zeros(1).to(dtype),
    )
    handed_over[(1,)](x, y, first, 29, SIZE=32)
    assert torch.equal(y[:29], x[:29])
    assert not y[29:].any()
    assert first == x[0]


@since_triton_3_9
@pytest.mark.timeout(60)
def test_a_poll_waits_for_another_thread_or_until_its_time_is_up() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            flags, seen = torch.zeros(4, dtype=torch.int32), torch.zeros(6, dtype=torch.int32)
            relayed[(2,)](flags, seen, 1000, LANES=4)
            assert seen.tolist() == [1, 1, 1, 1, 1, 0]
    finally:
        torch.set_num_threads(threads)


@since_triton_3_9
def test_approximate_quotients_are_within_two_roundings() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1024, generator=generator) for _ in range(2))
    quotients = torch.empty(1024)
    approximate[(1,)](x, y, quotients, SIZE=1024)
    exact = x.double() / y.double()
    assert ((quotients.double() - exact).abs() <= 2 * exact.abs() * 2.0**-23).all()
