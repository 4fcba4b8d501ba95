"""The math dialect and libdevice's functions, by the C library. They vectorise where glibc's libmvec is there."""

from __future__ import annotations

from collections.abc import Sequence

from fusetune.closest_name import closest
from fusetune.kernels.cpu.diagnostics import unsupported
from fusetune.kernels.cpu.ir_tree import Operation
from fusetune.kernels.cpu.lowering.libdevice import EXPRESSIONS, functions_for
from fusetune.kernels.cpu.lowering.rule import Rule, narrowed, widened
from fusetune.kernels.cpu.toolchain import has_vector_math

_MATH = {
    "math.exp": "exp",
    "math.exp2": "exp2",
    "math.log": "log",
    "math.log2": "log2",
    "math.log10": "log10",
    "math.log1p": "log1p",
    "math.expm1": "expm1",
    "math.sin": "sin",
    "math.cos": "cos",
    "math.tan": "tan",
    "math.tanh": "tanh",
    "math.erf": "erf",
    "math.floor": "floor",
    "math.ceil": "ceil",
    "math.trunc": "trunc",
    "math.sqrt": "sqrt",
    "math.absf": "fabs",
    "math.fma": "fma",
    "math.powf": "pow",
    "math.atan2": "atan2",
    "tt.precise_sqrt": "sqrt",
    "arith.remf": "fmod",
}
# libdevice's __nv_<name> (double) and __nv_<name>f (float), where C has the same function by the same name.
# fmt: off
_LIBDEVICE = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos",
    "cosh", "erf", "erfc", "exp", "exp10", "exp2", "expm1", "fabs", "fdim", "floor", "fma",
    "fmax", "fmin", "fmod", "hypot", "log", "log10", "log1p", "log2", "nearbyint",
    "nextafter", "pow", "remainder", "rint", "round", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh",
    "trunc",
)
# fmt: on
_NOT_IN_C = {"rsqrt"}
_BY_BUILTIN = {"floor", "ceil", "trunc", "sqrt", "fabs", "fma", "rint", "nearbyint", "copysign"}
_TWO_OPERANDS = {"pow", "atan2", "hypot"}


# Masked lanes of a softmax are -inf, for which libmvec takes a scalar path: twice the time of a row that is 3/4 full.
_POWERS = """
#define POWER(function, type, bits, t)                                 \\
  INLINE type masked_##function(type x) {                              \\
    bits kept = -(bits)(x != -(type)INFINITY);                         \\
    return t##_of_bits(bits_of_##t(function(t##_of_bits(bits_of_##t(x) & kept))) & kept); \\
  }
POWER(exp, double, uint64_t, f64)
POWER(expf, float, uint32_t, f32)
POWER(exp2, double, uint64_t, f64)
POWER(exp2f, float, uint32_t, f32)
"""


def _call(function: str) -> Rule:
    def rule(operation: Operation, args: Sequence[str]) -> str:
        element = operation.result.type.element
        called = function if element == "f64" else f"{function}f"
        if function in ("exp", "exp2"):
            called = f"masked_{called}"
        return narrowed(f"{called}({', '.join(widened(arg, element) for arg in args)})", element)

    return rule


def _fused_multiply_add(operation: Operation, args: Sequence[str]) -> str:
    """Products of fp16 and bf16 are exact in double, and sums are exact except for the last bit."""
    element = operation.result.type.element
    if element in ("f32", "f64"):
        return _call("fma")(operation, args)
    a, b, c = (f"(double){widened(arg, element)}" for arg in args)
    return f"{element}_of_f32(odd_f32_of_f64({a} * {b} + {c}))"


def _reciprocal_root(operation: Operation, args: Sequence[str]) -> str:
    element = operation.result.type.element
    one, root = ("1.0", "sqrt") if element == "f64" else ("1.0f", "sqrtf")
    return narrowed(f"({one} / {root}({widened(args[0], element)}))", element)


def _absolute_integer(operation: Operation, args: Sequence[str]) -> str:
    c = operation.result.type.c
    return f"({c})({args[0]} < 0 ? -{args[0]} : {args[0]})"


def _extern(operation: Operation, args: Sequence[str]) -> str:
    """A function of libdevice, by its counterpart in C."""
    symbol = operation.handle.get_str_attr("symbol")
    name = symbol.removeprefix("__nv_").removesuffix("f") if symbol != "__nv_erf" else "erf"
    if symbol in EXPRESSIONS:
        return f"({EXPRESSIONS[symbol].format(*args)})"
    element = operation.result.type.element
    if symbol == f"__nv_{name}{'f' if element == 'f32' else ''}" and name in _LIBDEVICE:
        return _reciprocal_root(operation, args) if name == "rsqrt" else _call(name)(operation, args)
    raise unsupported(
        operation,
        f"the function {symbol} is not known; the closest known one is "
        f"{closest(symbol, known_symbols(), cutoff=0.0)}",
    )


def known_symbols() -> list[str]:
    """The symbols of libdevice that are known."""
    return sorted({*EXPRESSIONS, *(f"__nv_{each}{suffix}" for each in _LIBDEVICE for suffix in ("", "f"))})


def declarations(code: str) -> str:
    """The declarations of libmvec's functions, by which loops over lanes vectorise, and of functions built on them.

    Args:
        code: of the kernel itself. The functions that only libdevice has are included only where this calls them.
    """
    names = sorted({*_MATH.values(), *_LIBDEVICE} - _BY_BUILTIN - _NOT_IN_C)
    lines = []
    for name in names:
        for function, c in ((name, "double"), (f"{name}f", "float")):
            if has_vector_math(function):
                arguments = ", ".join([c] * (2 if name in _TWO_OPERANDS else 1))
                lines.append(f'__attribute__((simd("notinbranch"))) {c} {function}({arguments});')
    return "\n".join([*lines, _POWERS, functions_for(code)])


RULES: dict[str, Rule] = {
    **{operation: _call(function) for operation, function in _MATH.items()},
    "math.fma": _fused_multiply_add,
    "math.rsqrt": _reciprocal_root,
    "math.absi": _absolute_integer,
    "tt.extern_elementwise": _extern,
}
