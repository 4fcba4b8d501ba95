"""Random Triton kernels: expressions over dtypes, masks, shapes, reductions, scans, loops and branches.

A kernel is a function of its seed. Values made by correctly rounded operations alone are exact: compiled and
interpreted results agree in every bit, and only they decide branches, comparisons and conversions. Sums and functions
of the C library are inexact: they go to outputs, by further arithmetic at most.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

DTYPES = {"f": "float32", "h": "float16", "i": "int32", "l": "int64", "b": "int8"}
_TL = {"f": "tl.float32", "h": "tl.float16", "i": "tl.int32", "l": "tl.int64", "b": "tl.int8"}
_INTEGERS = "ilb"
_SHAPES = ((64,), (128,), (1,), (16, 8), (8, 16), (4, 32), (2, 4, 8))
# The interpreter hands NaN on even where the kernel does not ask for it.
_NO_NAN = "tl.{}(tl.where({{a}} == {{a}}, {{a}}, 0.25), tl.where({{b}} == {{b}}, {{b}}, 0.5))"
_FLOAT_FORMS = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} / {b}",
    _NO_NAN.format("maximum"),
    _NO_NAN.format("minimum"),
    "tl.maximum({a}, {b}, propagate_nan=tl.PropagateNan.ALL)",
    "tl.clamp({a}, -1.5, 2.5, propagate_nan=tl.PropagateNan.ALL)",
    "tl.abs({a})",
    "-{a}",
    "tl.sqrt(tl.abs({a}.to(tl.float32)))",
    "{a} * 0.3 + {b}",
)
_INTEGER_FORMS = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} & {b}",
    "{a} | {b}",
    "{a} ^ {b}",
    "-{a}",
    "~{a}",
    "{a} << ({b} & 7)",
    "{a} >> ({b} & 7)",
    "{a} // (({b} & 31) + 1)",
    "{a} % (({b} & 31) + 1)",
    "{a} // 7",
    "{a} % 5",
    "{a} * 3 + 7",
    "tl.maximum({a}, {b})",
    "tl.minimum({a}, {b})",
)
_SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -3e-39, 6e-8, 65504.0, 1.0)


@dataclass(frozen=True)
class RandomKernel:
    """A kernel's source, and what it takes.

    Args:
        source: Python code that defines `kernel`.
        shape: of its tile; the tensors have `length` elements in several tiles.
        inputs: letter of DTYPES of each input.
        outputs: letter and exactness of each output.
        length: elements; the last tile is cut short.
    """

    source: str
    shape: tuple[int, ...]
    inputs: str
    outputs: tuple[tuple[str, bool], ...]
    length: int

    @property
    def tile(self) -> int:
        return int(np.prod(self.shape))

    @property
    def grid(self) -> int:
        return -(-self.length // self.tile)


@dataclass(frozen=True)
class _Variable:
    name: str
    letter: str
    exact: bool


class _Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.shape = self.random.choice(_SHAPES)
        self.lines: list[str] = []
        self.variables: list[_Variable] = []
        self.count = 0
        self.indent = "    "

    def put(self, letter: str, expression: str, exact: bool = True) -> _Variable:
        """Add a statement that makes a tile of a dtype."""
        self.count += 1
        variable = _Variable(f"v{self.count}", letter, exact)
        self.lines.append(f"{self.indent}{variable.name} = ({expression}).to({_TL[letter]})")
        self.variables.append(variable)
        return variable

    def pick(self, letters: str, exact: bool | None = True) -> _Variable | None:
        found = [v for v in self.variables if v.letter in letters and (exact is None or v.exact)]
        return self.random.choice(found) if found else None

    def statement(self) -> None:
        """Add one random statement, if its operands are there."""
        choices = [
            self.float_arithmetic,
            self.float_arithmetic,
            self.integer_arithmetic,
            self.integer_arithmetic,
            self.choice_by_mask,
            self.conversion,
            self.function,
            self.reduction,
            self.scan,
            self.movement,
        ]
        self.random.choice(choices)()

    def float_arithmetic(self) -> None:
        a = self.pick("fh", None)
        b = a and self.pick(a.letter, None)
        if a is None or b is None:
            return
        form = self.random.choice(_FLOAT_FORMS)
        exact = a.exact and (b.exact or "{b}" not in form)
        if not exact and ("/" in form or "aximum" in form or "inimum" in form or "clamp" in form):
            return  # an inexact value near 0 or near a bound makes any difference
        self.put(a.letter, form.format(a=a.name, b=b.name), exact)

    def integer_arithmetic(self) -> None:
        a = self.pick(_INTEGERS)
        b = a and self.pick(a.letter)
        if a is None or b is None:
            return
        form = self.random.choice(_INTEGER_FORMS)
        self.put(a.letter, form.format(a=a.name, b=b.name))

    def choice_by_mask(self) -> None:
        c = self.pick("fhilb")
        d = c and self.pick(c.letter)
        a = self.pick("fhilb", None)
        b = a and self.pick(a.letter, None)
        if not (a and b and c and d):
            return
        comparison = self.random.choice(["<", "<=", ">", ">=", "==", "!="])
        condition = f"{c.name} {comparison} {d.name}"
        if self.random.random() < 0.3:
            condition = f"({condition}) & keep"
        self.put(a.letter, f"tl.where({condition}, {a.name}, {b.name})", a.exact and b.exact)

    def conversion(self) -> None:
        a = self.pick("fhilb")
        if a is None:
            return
        letter = self.random.choice("fhilb")
        if a.letter in "fh" and letter in _INTEGERS:
            self.put(letter, f"tl.where(tl.abs({a.name}) < 100.0, {a.name}, 0.0)")
        elif a.letter == "f" and letter == "i" and self.random.random() < 0.5:
            self.put("i", f"{a.name}.to(tl.int32, bitcast=True) & 0x7f7fffff")
        else:
            self.put(letter, a.name)

    def function(self) -> None:
        a = self.pick("f")
        if a is None:
            return
        form = self.random.choice(["tl.exp({a})", "tl.sin({a})", "tl.exp2({a})", "tl.log(tl.abs({a}) + 0.5)"])
        near = f"tl.where(tl.abs({a.name}) < 20.0, {a.name}, 0.5)"
        self.put("f", form.format(a=near), False)

    def reduction(self) -> None:
        a = self.pick("fil")
        if a is None:
            return
        axis = self.random.randrange(len(self.shape))
        exact_form = self.random.choice(["tl.max({a}, {n})", "tl.min({a}, {n})"])
        if a.letter == "f":
            source = f"tl.where(tl.abs({a.name}) < 1e6, {a.name}, 1.0)"
            form, exact = self.random.choice([("tl.sum({a}, {n})", False), (exact_form, True)])
        else:
            source = a.name
            form, exact = (
                self.random.choice(
                    ["tl.sum({a}, {n})", exact_form, "tl.xor_sum({a}, {n})", "tl.argmax({a}, {n})"]
                ),
                True,
            )
        reduced = form.format(a=source, n=axis)
        if len(self.shape) > 1:
            reduced = f"tl.expand_dims({reduced}, {axis})"
        zero = self.pick("i")
        letter = "i" if "arg" in form else a.letter
        if zero is not None:
            self.put(
                letter,
                f"{reduced} + {zero.name} * 0" if letter != "f" else f"{reduced} + position * 0",
                exact,
            )

    def scan(self) -> None:
        a = self.pick("il")
        if a is not None:
            axis = self.random.randrange(len(self.shape))
            self.put(a.letter, f"tl.cumsum({a.name}, {axis}, reverse={self.random.random() < 0.5})")

    def movement(self) -> None:
        a = self.pick("fil", None)
        if a is None:
            return
        if len(self.shape) == 1:
            if self.shape[0] > 1:
                rows = f"tl.reshape({a.name}, (2, {self.shape[0] // 2}))"
                self.put(a.letter, f"tl.reshape(tl.trans({rows}), ({self.shape[0]},))", a.exact)
        elif len(self.shape) == 2 and self.shape[0] != self.shape[1]:
            self.put(a.letter, f"tl.reshape(tl.trans({a.name}), ({self.shape[0]}, {self.shape[1]}))", a.exact)

    def loop(self) -> None:
        """A tile carried through a loop, with a branch inside now and then."""
        a, b = self.pick("i"), self.pick("il")
        if a is None or b is None:
            return
        carried = self.put(b.letter, b.name)
        start = len(self.variables)
        self.lines.append(f"{self.indent}for turn in range({self.random.randrange(3)}, bound):")
        self.indent += "    "
        for _ in range(2):
            self.integer_arithmetic()
        update = f"{carried.name} = ({carried.name} * 3 + {a.name} + turn).to({_TL[b.letter]})"
        if self.random.random() < 0.5:
            self.lines.append(f"{self.indent}if turn > 2:")
            self.lines.append(f"{self.indent}    {update}")
        else:
            self.lines.append(f"{self.indent}{update}")
        self.indent = self.indent[4:]
        del self.variables[start:]


def random_kernel(seed: int) -> RandomKernel:
    """Write the kernel of a seed."""
    w = _Writer(seed)
    shape, tile = w.shape, int(np.prod(w.shape))
    inputs = "".join(w.random.choice("fhilb") for _ in range(3)) + "fi"
    head = [f"    flat = tl.arange(0, {tile})"]
    if len(shape) > 1:
        head.append(f"    flat = tl.reshape(flat, {shape})" if w.random.random() < 0.3 else _index(shape))
    head.append(f"    position = tl.program_id(0) * {tile} + flat")
    head.append("    keep = position < n")
    for place, letter in enumerate(inputs):
        other = w.random.choice(["", ", other=1"])
        w.put(letter, f"tl.load(in{place} + position, mask=keep{other or ', other=0'})")
    w.put("i", "position")
    for _ in range(w.random.randrange(6, 16)):
        w.loop() if w.random.random() < 0.1 else w.statement()
    chosen = w.variables[-5:]
    stores = [f"    tl.store(out{place} + position, {v.name}, mask=keep)" for place, v in enumerate(chosen)]
    names = [f"in{i}" for i in range(len(inputs))] + [f"out{i}" for i in range(len(chosen))]
    lines = ["import triton", "import triton.language as tl", "", "@triton.jit"]
    lines += [f"def kernel({', '.join(names)}, n, bound):", *head, *w.lines, *stores]
    return RandomKernel(
        source="\n".join(lines) + "\n",
        shape=shape,
        inputs=inputs,
        outputs=tuple((v.letter, v.exact) for v in chosen),
        length=tile * 2 + w.random.randrange(1, tile + 1),
    )


def _index(shape: tuple[int, ...]) -> str:
    """The row-major place of each element, from one range a dimension."""
    terms, stride = [], 1
    for axis in reversed(range(len(shape))):
        subscript = ", ".join(":" if other == axis else "None" for other in range(len(shape)))
        terms.append(f"tl.arange(0, {shape[axis]})[{subscript}] * {stride}")
        stride *= shape[axis]
    return f"    flat = {' + '.join(terms)}"


def make_inputs(kernel: RandomKernel, seed: int) -> list[np.ndarray]:
    """Random inputs; floats with NaN, infinities, subnormals and both zeros among them."""
    generator = np.random.default_rng(seed)
    arrays = []
    for letter in kernel.inputs:
        dtype = np.dtype(DTYPES[letter])
        if dtype.kind == "f":
            values = generator.normal(size=kernel.length) * 10.0 ** generator.integers(-3, 3)
            special = generator.random(kernel.length) < 0.1
            values[special] = generator.choice(_SPECIAL, special.sum())
            with np.errstate(over="ignore"):
                arrays.append(values.astype(dtype))
        else:
            most = np.iinfo(dtype).max
            values = generator.integers(-most - 1, most, kernel.length, dtype=dtype)
            small = generator.random(kernel.length) < 0.5
            values[small] = generator.integers(-20, 20, small.sum())
            arrays.append(values)
    return arrays
