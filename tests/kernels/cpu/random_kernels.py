"""Random Triton kernels, with what they store: over dtypes, masks, shapes, halves, reductions, scans, loops, branches.

A kernel is a function of its seed. While its source is written, NumPy works out what every program holds (the first
dimension of an array is the program), so a statement can keep out of what Triton leaves undefined: integers out of a
float's range, shifts beyond the width, division by 0. Values made by correctly rounded operations alone are exact, in
every bit. Sums and functions of the C library carry a bound of their error; they are moved about, chosen between and
stored, and nothing is worked out from them.

Kernels of a third of the seeds keep to what Triton's interpreter does right, and are checked against it as well. It
has no rounding to bf16, hands NaN on where it should not, and compares, shifts and divides some integers wrongly.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.kernels.cpu.expressions import (
    COMPARISONS,
    FUNCTIONS,
    OF_POSITIVE,
    REDUCTIONS,
    SCANS,
    UPDATES,
    forms,
    remainder,
)
from tests.kernels.cpu.number_formats import FLOATS, FORMATS, INTEGERS, SIGNED, Array, convert

_PLAIN_LETTERS = "fhilb"
_SHAPES = ((64,), (128,), (1,), (2,), (16, 8), (8, 16), (4, 32), (1, 16), (2, 4, 8))
_SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -3e-39, 6e-8, 65504.0, 1.0)
_ULPS = 4  # what glibc promises of its vector functions
_PROGRAMS = 3
_HEAD = """\
import triton
import triton.language as tl


@triton.jit
def multiply(a, b):
    return a * b


@triton.jit
def either(a, b):
    return a | b


@triton.jit
def compose(a, x, b, y):
    return a * b, x * b + y


@triton.jit
def larger(a, i, b, j):
    take = (a > b) | ((a == b) & (i < j))
    return tl.where(take, a, b), tl.where(take, i, j)


@triton.jit
"""


@dataclass(frozen=True)
class RandomKernel:
    """A kernel's source, what it takes, and what it stores.

    Args:
        source: Python code that defines `kernel`.
        inputs: format (see `number_formats`) and values of each.
        outputs: what is stored, in order: format, values, and bounds of the error (None: exact).
        length: elements of each tensor; the last tile is cut short.
        programs: tiles.
        is_plain: the interpreter gets it right.
    """

    source: str
    inputs: tuple[tuple[str, Array], ...]
    outputs: tuple[tuple[str, Array, Array | None], ...]
    length: int
    programs: int
    is_plain: bool


@dataclass(frozen=True)
class Variable:
    """A tile of every program.

    Args:
        name, letter: in the kernel.
        values: of shape (programs, *shape).
        error: bounds of its error; None: exact.
    """

    name: str
    letter: str
    values: Array
    error: Array | None = None


class _Writer:
    """A kernel on its way: lines, and what each variable holds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.is_plain = seed % 3 == 0
        self.letters = _PLAIN_LETTERS if self.is_plain else "".join(FORMATS)
        self.shape = self.random.choice(_SHAPES)
        self.tile = int(np.prod(self.shape))
        self.length = (_PROGRAMS - 1) * self.tile + self.random.randrange(1, self.tile + 1)
        self.lines: list[str] = []
        self.indent = "    "
        self.variables: list[Variable] = []
        self.body: list[tuple[str, str, Callable[..., Array], list[str]]] | None = None
        self.keep: Array = np.array(False)
        self.position: Array = np.array(0)
        self.last_program = _PROGRAMS
        self.bins = np.zeros(16, np.int32)
        self.update: str | None = None
        self.early: list[tuple[str, Array, Array | None]] = []
        self.inputs: list[tuple[str, Array]] = []
        self._names = 0

    # What statements are made of.

    def name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def add(self, letter: str, values: Array, error: Array | None, text: str, name: str = "") -> Variable:
        """Add an assignment of known values."""
        variable = Variable(name or self.name(), letter, convert(values, letter), error)
        assert variable.values.shape == (_PROGRAMS, *self.shape), text
        self.line(f"{variable.name} = ({text}).to({FORMATS[letter].triton})")
        self.variables.append(variable)
        return variable

    def put(self, letter: str, text: str, function: Callable[..., Array], *operands: Variable) -> Variable:
        """Add an assignment of what a function makes of exact operands, given as {a}, {b}, ..."""
        names = {key: each.name for key, each in zip("abc", operands, strict=False)}
        with np.errstate(all="ignore"):
            values = function(*(each.values for each in operands))
        made = self.add(letter, values, None, text.format(**names))
        if self.body is not None:
            self.body.append((made.name, letter, function, [each.name for each in operands]))
        return made

    def move(self, text: str, function: Callable[[Array], Array], a: Variable) -> None:
        """Add an assignment that only moves elements."""
        error = None if a.error is None else function(a.error)
        self.add(a.letter, function(a.values), error, text.format(a=a.name))

    def pick(self, letters: str, exact: bool = True) -> Variable | None:
        found = [v for v in self.variables if v.letter in letters and (v.error is None or not exact)]
        return self.random.choice(found) if found else None

    def axis(self) -> int:
        return self.random.randrange(len(self.shape))

    # Statements.

    def statement(self) -> None:
        """Add one random statement, if its operands are there."""
        elementwise = (
            [self.arithmetic] * 5 + [self.conversion] * 2 + [self.comparison, self.choice, self.function]
        )
        across = [
            self.reduction,
            self.index_of_extreme,
            self.scan,
            self.recurrence,
            self.movement,
            self.rearrangement,
            self.product,
            self.halves,
            self.halves,
        ]
        control = [
            self.loop,
            self.turns,
            self.turns,
            self.walk,
            self.indexed_load,
            self.indexed_load,
            self.branch,
            self.while_loop,
            self.count,
            self.early_return,
        ]
        self.random.choice(elementwise * 3 + across * 2 + control)()

    def arithmetic(self, letters: str = "") -> None:
        a = self.pick(letters or self.letters)
        b = a and self.pick(a.letter)
        if a is None or b is None:
            return
        text, function, right = self.random.choice(forms(a.letter))
        if right or not self.is_plain:
            self.put(a.letter, text, function, *((a, b) if "{b}" in text else (a,)))

    def comparison(self) -> None:
        a = self.pick(self.letters)
        b = a and self.pick(a.letter)
        if a is None or b is None or a.letter == "m":
            return
        operator, function = self.random.choice(list(COMPARISONS.items()))
        if self.is_plain:
            self.put("i", f"({{a}} {operator} {{b}})", function, a, b)
        else:
            self.put("m", f"{{a}} {operator} {{b}}", function, a, b)

    def choice(self) -> None:
        c = self.pick(self.letters)
        a = self.pick(self.letters, exact=False)
        b = a and self.pick(a.letter, exact=False)
        if a is None or b is None or c is None:
            return
        condition = c.values != 0
        values = np.where(condition, a.values, b.values)
        error = None
        if a.error is not None or b.error is not None:
            errors = (np.zeros(a.values.shape) if each.error is None else each.error for each in (a, b))
            error = np.where(condition, *errors)
        self.add(a.letter, values, error, f"tl.where({c.name} != 0, {a.name}, {b.name})")

    def conversion(self) -> None:
        a = self.pick(self.letters)
        if a is None:
            return
        letter = self.random.choice(self.letters)
        if a.letter in FLOATS and letter in INTEGERS:
            least = 0 if letter not in SIGNED else -100

            def kept(x: Array) -> Array:
                return np.trunc(np.where((x > least) & (x < 100), x, 0).astype(np.float64))

            self.put(letter, f"tl.where(({{a}} > {least}) & ({{a}} < 100), {{a}}, 0)", kept, a)
        elif a.letter + letter in ("fi", "if", "dl", "ld", "fI", "If") and self.random.random() < 0.5:
            held = FORMATS[letter].held
            self.put(letter, f"{{a}}.to({FORMATS[letter].triton}, bitcast=True)", lambda x: x.view(held), a)
        else:
            self.put(letter, "{a}", lambda x: x, a)

    def function(self) -> None:
        a = self.pick("fd" if not self.is_plain else "f")
        if a is None:
            return
        near = f"tl.where(tl.abs({a.name}) < 20.0, {a.name}, 0.5)"
        with np.errstate(invalid="ignore"):
            argument = np.where(np.abs(a.values) < 20, a.values, 0.5).astype(a.values.dtype)
        if self.random.random() < 0.6:
            name, function = self.random.choice(list(FUNCTIONS.items()))
        else:
            name, function = self.random.choice(list(OF_POSITIVE.items()))
            near, argument = f"tl.abs({near}) + 0.5", np.abs(argument) + argument.dtype.type(0.5)
        values = function(argument.astype(np.longdouble)).astype(a.values.dtype)
        self.add(a.letter, values, _ULPS * np.spacing(np.abs(values)), f"tl.{name}({near})")

    def reduction(self) -> None:
        a, axis = self.pick(self.letters.replace("m", "")), self.axis()
        if a is None:
            return
        text, function = self.random.choice(list(REDUCTIONS.items()))
        source, values, error = a.name, a.values, None
        if a.letter in FLOATS:
            if "tl.max" in text or "tl.min" in text:
                function = np.fmax.reduce if "max" in text else np.fmin.reduce
                text = f"{text} + 0.0"
            elif a.letter == "h":
                return
            else:
                text, function = "tl.sum({a}, {axis})", lambda a, axis: a.sum(axis, dtype=np.longdouble)
        if a.letter in FLOATS and (self.is_plain or "sum" in text):
            source = f"tl.where(tl.abs({a.name}) < 1e6, {a.name}, 1.0)"
            with np.errstate(invalid="ignore"):
                values = convert(
                    np.where(np.abs(values) < convert(np.array(1e6), a.letter), values, 1), a.letter
                )
        with np.errstate(all="ignore"):
            reduced = np.expand_dims(function(values, axis + 1), axis + 1)
        if "sum" in text and a.letter in FLOATS:
            roundings = self.shape[axis] * 2.0 ** (1 - FORMATS[a.letter].precision)
            error = np.broadcast_to(roundings * np.abs(values).sum(axis + 1, keepdims=True), a.values.shape)
        elif a.letter in FLOATS:
            reduced = reduced + reduced.dtype.type(0)
        expression = text.format(a=source, axis=axis)
        self.add(a.letter, np.broadcast_to(reduced, a.values.shape), error, self.spread(expression, axis))

    def spread(self, expression: str, axis: int) -> str:
        """A reduced tile in its former shape."""
        if len(self.shape) > 1:
            expression = f"tl.expand_dims({expression}, {axis})"
        return f"tl.broadcast_to({expression}, {self.shape})"

    def index_of_extreme(self) -> None:
        """Ties go to the first; several values are reduced at once."""
        a, axis = self.pick(INTEGERS if not self.is_plain else "il"), self.axis()
        if a is None:
            return
        few = remainder(a.values, np.full_like(a.values, 4))
        kind = self.random.choice(["argmax", "argmin"] if self.is_plain else ["argmax", "argmin", "tuple"])
        found = (np.argmin if kind == "argmin" else np.argmax)(few, axis + 1)
        if kind == "tuple":
            best, text = (
                self.name(),
                f"({a.name} % 4, tl.broadcast_to({self.range_along(axis)}, {self.shape}))",
            )
            self.line(f"{best}, {best}i = tl.reduce({text}, {axis}, larger)")
            text = f"{best}i"
        else:
            text = f"tl.{kind}({a.name} % 4, {axis})"
        values = np.broadcast_to(np.expand_dims(found, axis + 1), a.values.shape)
        self.add("i", values, None, self.spread(text, axis))

    def range_along(self, axis: int) -> str:
        if len(self.shape) == 1:
            return f"tl.arange(0, {self.shape[0]})"
        subscript = ", ".join(":" if other == axis else "None" for other in range(len(self.shape)))
        return f"tl.arange(0, {self.shape[axis]})[{subscript}]"

    def scan(self) -> None:
        a, axis = self.pick(INTEGERS if not self.is_plain else "il"), self.axis()
        if a is None:
            return
        backwards = self.random.random() < 0.5
        text, function = self.random.choice(list(SCANS.items()))

        def scanned(x: Array) -> Array:
            turned = np.flip(x, axis + 1) if backwards else x
            result = function.accumulate(turned, axis + 1, dtype=x.dtype)
            return np.flip(result, axis + 1) if backwards else result

        self.put(a.letter, text.replace("{axis}", str(axis)).replace("{back}", str(backwards)), scanned, a)

    def recurrence(self) -> None:
        """A scan of pairs whose combination does not commute."""
        a = self.pick(INTEGERS)
        b = a and self.pick(a.letter)
        if a is None or b is None or self.is_plain:
            return
        axis, backwards = self.axis(), self.random.random() < 0.5
        factor, term = (
            np.moveaxis(np.flip(x, axis + 1) if backwards else x, axis + 1, 0) for x in (a.values, b.values)
        )
        results = [term[0]]
        for k in range(1, len(term)):
            results.append(results[-1] * factor[k] + term[k])
        values = np.moveaxis(np.stack(results), 0, axis + 1)
        name = self.name()
        self.line(
            f"{name}p, {name}q = tl.associative_scan(({a.name}, {b.name}), {axis}, compose, reverse={backwards})"
        )
        self.add(a.letter, np.flip(values, axis + 1) if backwards else values, None, f"{name}q")

    def movement(self) -> None:
        a = self.pick(self.letters, exact=False)
        if a is None or self.tile < 2:
            return
        half = self.tile // 2
        shape = a.values.shape
        kind = self.random.choice(["trans", "halves", "flip", "join", "three"])
        if kind == "flip" and not self.is_plain and self.shape[-1] > 1:
            self.move(f"tl.flip({{a}}, {len(self.shape) - 1})", lambda x: np.flip(x, -1), a)
        elif kind == "trans":
            rows = f"tl.reshape({{a}}, (2, {half}))"
            self.move(
                f"tl.reshape(tl.trans({rows}), {self.shape})",
                lambda x: x.reshape(-1, 2, half).swapaxes(1, 2).reshape(shape),
                a,
            )
        elif kind == "join":
            name = self.name()
            self.line(f"{name}a, {name}b = tl.split(tl.reshape({a.name}, ({half}, 2)))")
            self.move(
                f"tl.reshape(tl.join({name}b, {name}a), {self.shape})",
                lambda x: x.reshape(-1, half, 2)[..., ::-1].reshape(shape),
                a,
            )
        elif kind == "three" and self.tile >= 8:
            sizes = (2, self.tile // 8, 4)
            self.move(
                f"tl.reshape(tl.permute(tl.reshape({{a}}, {sizes}), (2, 0, 1)), {self.shape})",
                lambda x: x.reshape(-1, *sizes).transpose(0, 3, 1, 2).reshape(shape),
                a,
            )
        elif len(self.shape) == 2:
            self.move(
                f"tl.reshape(tl.trans({{a}}), {self.shape})",
                lambda x: x.swapaxes(1, 2).reshape(shape),
                a,
            )

    def halves(self) -> None:
        """Halves of a tile, or quarters, each worked on in its own way and order, then put together again."""
        a = self.pick("il" if self.is_plain else INTEGERS + FLOATS)
        if a is None or self.tile < 8:
            return
        kinds = ["columns", "rows", "middle"]
        parts = [(a.name, a.values.reshape(_PROGRAMS, self.tile))]
        for _ in range(self.random.choice([1, 1, 2])):
            parts = [
                half for part in parts for half in self.split(*part, self.random.choice(kinds), a.letter)
            ]
        order = self.random.sample(range(len(parts)), len(parts))
        for place in order:
            parts[place] = self.worked_on(*parts[place], a.letter)
        while len(parts) > 1:
            parts = [
                self.put_together(*parts[at], *parts[at + 1], a.letter) for at in range(0, len(parts), 2)
            ]
        ((name, values),) = parts
        self.add(a.letter, values.reshape(a.values.shape), None, f"tl.reshape({name}, {self.shape})")

    def split(self, source: str, values: Array, kind: str, letter: str) -> list[tuple[str, Array]]:
        """The halves of a tile, as tiles of one dimension. Mostly, what is split is worked out in its shape."""
        half, shaped, first, second = values.shape[1] // 2, self.name(), self.name(), self.name()
        shape = {"columns": (half, 2), "rows": (2, half), "middle": (2, 2, half // 2)}[kind]
        self.line(f"{shaped} = tl.reshape({source}, {shape})")
        if self.random.random() < 0.7:
            operation = "tl.abs({})" if letter in FLOATS else "({} ^ 5)"
            self.line(f"{shaped} = {operation.format(shaped)}")
            values = np.abs(values) if letter in FLOATS else values ^ values.dtype.type(5)
        turned = {"columns": "{}", "rows": "tl.trans({})", "middle": "tl.permute({}, (0, 2, 1))"}[kind]
        self.line(f"{first}, {second} = tl.split({turned.format(shaped)})")
        axis = {"columns": 2, "rows": 1, "middle": 2}[kind]
        left, right = (each.reshape(-1, half) for each in np.moveaxis(values.reshape(-1, *shape), axis, 0))
        if kind == "middle":
            self.line(f"{first} = tl.reshape({first}, ({half},))")
            self.line(f"{second} = tl.reshape({second}, ({half},))")
        return [(first, left), (second, right)]

    def worked_on(self, source: str, values: Array, letter: str) -> tuple[str, Array]:
        """A tile of one dimension after something of its own, much of which needs a loop nest of its own."""
        name, size, held = self.name(), values.shape[1], FORMATS[letter].triton
        kind = values.dtype.type
        kinds = ["nothing", "backwards", "branch"]
        kinds += [] if letter in FLOATS else ["scan", "line", "loop"]
        kinds += (
            [] if letter in FLOATS or self.is_plain else ["sum", "count"]
        )  # which the interpreter may overflow in
        what = self.random.choice(kinds)
        text, result = source, values
        with np.errstate(all="ignore"):
            if what == "backwards":
                text, result = f"tl.gather({source}, {size - 1} - tl.arange(0, {size}), 0)", values[:, ::-1]
            elif what == "scan":
                text, result = f"tl.cumsum({source}, 0)", values.cumsum(1, dtype=values.dtype)
            elif what == "sum":
                total = values.sum(1, keepdims=True, dtype=values.dtype)
                text, result = f"{source} - tl.sum({source}, 0).to({held})", values - total
            elif what == "line":
                text, result = f"{source} * 3 + 1", values * kind(3) + kind(1)
        self.line(f"{name} = ({text}).to({held})")
        if what == "loop":
            self.line("for turn in range(1, bound):")
            self.line(f"    {name} = ({name} * 3 + turn).to({held})")
            for turn in range(1, 5):
                result = result * kind(3) + kind(turn)
        elif what == "branch":
            self.line("if tl.program_id(0) == 1:")
            self.line(f"    {name} = tl.gather({name}, tl.arange(0, {size}) ^ 1, 0)")
            result = values.copy()
            result[1] = values[1, np.arange(size) ^ 1]
        elif what == "count":
            self.line(f"if tl.sum({name}.to(tl.int32), 0) % 2 == 0:")
            self.line(f"    {name} = ({name} + 7).to({held})")
            odd = values.astype(np.int32).sum(1, keepdims=True, dtype=np.int32) % 2 != 0
            result = np.where(odd, values, values + kind(7))
        return name, np.ascontiguousarray(result)

    def put_together(
        self, first: str, left: Array, second: str, right: Array, letter: str
    ) -> tuple[str, Array]:
        """One tile of two, as a tile of one dimension."""
        name, size = self.name(), left.shape[1]
        joined, values = f"tl.join({first}, {second})", np.stack([left, right], -1)
        if self.random.random() < 0.5:
            joined, values = f"tl.trans({joined})", values.swapaxes(1, 2)
        if letter in INTEGERS and not self.is_plain and self.random.random() < 0.3:
            # In which order a concatenation has them is not promised.
            held = FORMATS[letter].triton
            both = f"tl.sum(tl.cat({first}, {second}, can_reorder=True), 0).to({held})"
            joined = f"{joined} + {both}"
            values = values + np.concatenate([left, right], 1).sum(1, dtype=left.dtype)[:, None, None]
        self.line(f"{name} = tl.reshape({joined}, ({2 * size},))")
        return name, values.reshape(_PROGRAMS, 2 * size)

    def rearrangement(self) -> None:
        """Sorting, gathering, counting: elements go where values say."""
        a, at = self.pick("il" if self.is_plain else INTEGERS), self.pick("i")
        if a is None or at is None:
            return
        kind = self.random.choice(["gather", "sort", "histogram"])
        axis = self.axis()
        if kind == "gather":
            size = self.shape[axis]

            def gathered(x: Array, places: Array) -> Array:
                return np.take_along_axis(x, (places & (size - 1)).astype(np.int64), axis + 1)

            self.put(a.letter, f"tl.gather({{a}}, {{b}} & {size - 1}, {axis})", gathered, a, at)
        elif kind == "sort" and 1 < self.shape[-1] <= 32:
            down = self.random.random() < 0.5

            def ordered(x: Array) -> Array:
                return np.flip(np.sort(x, -1), -1) if down else np.sort(x, -1)

            self.put(a.letter, f"tl.sort({{a}}, descending={down})", ordered, a)
        elif kind == "histogram" and len(self.shape) == 1 and self.tile >= 16 and not self.is_plain:

            def counted(x: Array) -> Array:
                return np.stack([np.bincount(row & 15, minlength=16)[row & 15] for row in x])

            self.put("i", "tl.gather(tl.histogram({a} & 15, 16), {a} & 15, 0)", counted, at)

    def product(self) -> None:
        """Products of matrices of small integers, which every format holds exactly."""
        a, b, c = self.pick("i"), self.pick("i"), self.pick("i")
        if len(self.shape) != 2 or a is None or b is None or c is None:
            return
        letter = self.random.choice("fhdb" if self.is_plain else "fhdbw")
        given = FORMATS[letter].triton
        left, middle, right = (f"(({each.name} & 3) - 1).to({given})" for each in (a, b, c))
        first, second, third = ((each.values & 3) - 1 for each in (a, b, c))
        square = self.name()
        self.line(f'{square} = tl.dot({left}, tl.trans({middle}), input_precision="ieee").to({given})')
        between = convert(first @ second.swapaxes(1, 2), letter)
        made = {"d": "d", "b": "i"}.get(letter, "f")
        values = between.astype(np.int64) @ third
        if self.random.random() < 0.5:
            held = FORMATS[made].triton
            start, values = f"{left}.to({held}), out_dtype={held}", values + first
            text = f'tl.dot({square}, {right}, {start}, input_precision="ieee")'
        else:
            text = f'tl.dot({square}, {right}, input_precision="ieee")'
        self.add(made, values, None, text)

    def loop(self) -> None:
        """A tile carried through a loop, with a branch inside now and then."""
        a = self.pick("il" if self.is_plain else INTEGERS)
        b = a and self.pick(a.letter)
        if a is None or b is None or self.body is not None:
            return
        outside = len(self.variables)
        carried = self.put(a.letter, "{a} + 0", lambda x: x, b)
        first, in_branch = self.random.randrange(4), self.random.random() < 0.5
        self.line(f"for turn in range({first}, bound):")
        self.indent, self.body = "        ", []
        for _ in range(2):
            self.arithmetic(a.letter)
        end = self.pick(a.letter)
        assert end is not None
        update = f"{carried.name} = ({carried.name} * 3 + {end.name} + turn).to({FORMATS[a.letter].triton})"
        if in_branch:
            self.line("if turn > 2:")
        self.line(f"{'    ' if in_branch else ''}{update}")
        body, self.body, self.indent = self.body, None, "    "
        known = {v.name: v.values for v in self.variables[: outside + 1]}
        for turn in range(first, 5):
            with np.errstate(all="ignore"):
                for name, letter, function, operands in body:
                    known[name] = convert(function(*(known[operand] for operand in operands)), letter)
            if not in_branch or turn > 2:
                kind = known[carried.name].dtype.type
                known[carried.name] = known[carried.name] * kind(3) + known[end.name] + kind(turn)
        del self.variables[outside:]
        self.variables.append(Variable(carried.name, a.letter, known[carried.name]))

    def turns(self) -> None:
        """A loop that carries a tile and ends in a branch or a loop without results, which stores the tile."""
        a = self.pick("il" if self.is_plain else INTEGERS)
        if a is None:
            return
        held, kind = FORMATS[a.letter].triton, a.values.dtype.type
        name, early = self.name(), f"early{len(self.early)}"
        first, end = self.random.randrange(3), self.random.choice(["last", "else", "for", "while", "inner"])
        put = f"tl.store({early} + position, ({{}}).to({held}), mask=keep)"
        ends: dict[str, list[str]] = {
            "last": ["if turn == bound - 1:", "    " + put.format(name)],
            "else": [
                "if turn < 3:",
                "    " + put.format(name),
                "else:",
                "    " + put.format(f"{name} - turn"),
            ],
            "for": ["for again in range(turn):", "    " + put.format(f"{name} + again")],
            "while": [
                "left = turn",
                "while left > 2:",
                "    " + put.format(f"{name} - left"),
                "    left -= 1",
            ],
            "inner": [
                "for again in range(4):",
                "    if again == turn:",
                "        " + put.format(f"{name} * 2"),
            ],
        }
        self.line(f"{name} = {a.name} + 0")
        if self.random.random() < 0.7:
            self.line(f"for turn in range({first}, bound):")
            self.line(f"    {name} = ({name} * 3 + turn).to({held})")
        else:
            self.line(f"turn = {first} - 1")
            self.line("while turn < bound - 1:")
            self.line("    turn += 1")
            self.line(f"    {name} = ({name} * 3 + turn).to({held})")
        for line in ends[end]:
            self.line("    " + line)
        values, stored = a.values, np.zeros_like(a.values)
        with np.errstate(all="ignore"):
            for turn in range(first, 5):
                values = values * kind(3) + kind(turn)
                if end == "last" and turn == 4:
                    stored = values
                elif end == "else":
                    stored = values if turn < 3 else values - kind(turn)
                elif end == "for" and turn > 0:
                    stored = values + kind(turn - 1)
                elif end == "while" and turn > 2:
                    stored = values - kind(3)
                elif end == "inner" and turn < 4:
                    stored = values * kind(2)
        self.early.append(self.stored(Variable(early, a.letter, stored), backwards=False))
        self.variables.append(Variable(name, a.letter, values))

    def walk(self) -> None:
        """A pointer that a loop moves on."""
        places = [place for place, (letter, _) in enumerate(self.inputs) if letter in "ilBL"]
        if not places:
            return
        place = self.random.choice(places)
        letter, values = self.inputs[place]
        if self.is_plain and letter not in "il":
            return
        step, backwards = self.random.randrange(1, 40), self.random.random() < 0.3
        at, name = self.name(), self.name()
        zeros = f"tl.zeros({self.shape}, {FORMATS[letter].triton})"
        self.line(f"{name} = {zeros}")
        self.line(f"{at} = in{place} + position")
        self.line("for turn in range(1, bound):")
        sign = "-" if backwards else "+"
        self.line(f"    {at} {sign}= {step}")
        reached = f"position {sign} turn * {step}"
        self.line(f"    within = ({reached} < n) & ({reached} >= 0)")
        read = f"tl.load({at}, mask=within, other=1) * (turn + 1)"
        self.line(f"    {name} = ({name} + {read}).to({FORMATS[letter].triton})")
        position = self.position.astype(np.int64)
        total = np.zeros(position.shape, values.dtype)
        for turn in range(1, 5):
            reach = position + (-step if backwards else step) * turn
            within = (reach >= 0) & (reach < self.length)
            found = np.where(within, values[np.clip(reach, 0, self.length - 1)], 1).astype(values.dtype)
            total += found * values.dtype.type(turn + 1)
        self.variables.append(Variable(name, letter, total))

    def indexed_load(self) -> None:
        """A load of elements that are not neighbours: rows, columns, every k-th, the same again and again."""
        place = self.random.randrange(len(self.inputs))
        letter, values = self.inputs[place]
        k, size = self.random.choice([1, 2, 3, 7, 8, 16, 33, 64, 200]), self.random.choice([1, 4, 10])
        turns = self.random.choice(["5", "bound"])
        text, function = self.random.choice(
            [
                ("position // {k}", lambda at: at // k),
                ("position % {k}", lambda at: at % k),
                ("position // {k} * {size} + position % {k}", lambda at: at // k * size + at % k),
                ("position % {k} * {size} + position // {k}", lambda at: at % k * size + at // k),
                ("position // {turns}", lambda at: at // 5),
                ("position % {turns} * {k}", lambda at: at % 5 * k),
                ("position * {size} - {k}", lambda at: at * size - k),
                ("n - 1 - position", lambda at: self.length - 1 - at),
            ]
        )
        name, at = self.name(), self.position.astype(np.int64)
        self.line(f"{name} = {text.format(k=k, size=size, turns=turns)}")
        index = function(at)
        within = (index >= 0) & (index < self.length)
        read = np.where(within, values[np.clip(index, 0, self.length - 1)], convert(np.array(1), letter))
        mask = f"({name} >= 0) & ({name} < n)"
        self.add(letter, read, None, f"tl.load(in{place} + {name}, mask={mask}, other=1)")

    def branch(self) -> None:
        """A tile from one of two sides, by a number of the whole tile."""
        c, a = self.pick("i"), self.pick("il" if self.is_plain else INTEGERS)
        b = a and self.pick(a.letter)
        if a is None or b is None or c is None:
            return
        name, axes = self.name(), tuple(range(1, c.values.ndim))
        whole = c.name if len(self.shape) == 1 else f"tl.reshape({c.name}, ({self.tile},))"
        self.line(f"if tl.max({whole}, 0) % 2 == 0:")
        self.line(f"    {name} = {a.name} * 5")
        if self.random.random() < 0.5:
            self.line(
                f"    {name} = tl.cumsum({name}, {self.axis()}).to({FORMATS[a.letter].triton}) * 0 + {name}"
            )
        self.line("else:")
        self.line(f"    {name} = {b.name} - {a.name}")
        with np.errstate(all="ignore"):
            even = c.values.max(axes, keepdims=True) % 2 == 0
            values = np.where(even, a.values * a.values.dtype.type(5), b.values - a.values)
        self.variables.append(Variable(name, a.letter, values))

    def while_loop(self) -> None:
        """Turns until a number of the whole tile is small."""
        c, a = self.pick("i"), self.pick("il" if self.is_plain else INTEGERS)
        if a is None or c is None:
            return
        left, name, axes = self.name(), self.name(), tuple(range(1, c.values.ndim))
        whole = c.name if len(self.shape) == 1 else f"tl.reshape({c.name}, ({self.tile},))"
        self.line(f"{left} = tl.min({whole}, 0) & 15")
        self.line(f"{name} = {a.name}")
        self.line(f"while {left} > 2:")
        self.line(f"    {name} = {name} * 3 + 1")
        self.line(f"    {left} = {left} // 2")
        numbers, values = c.values.min(axes, keepdims=True) & 15, a.values
        kind = values.dtype.type
        while (numbers > 2).any():
            values = np.where(numbers > 2, values * kind(3) + kind(1), values)
            numbers = np.where(numbers > 2, numbers // 2, numbers)
        self.variables.append(Variable(name, a.letter, values))

    def count(self) -> None:
        """Atomic updates of one kind, whose order does not matter."""
        at, a = self.pick("i"), self.pick("i")
        if at is None or a is None:
            return
        self.update = self.update or self.random.choice(list(UPDATES))
        self.line(f"tl.atomic_{self.update}(bins + ({at.name} & 15), {a.name}, mask=keep)")
        for program in range(self.last_program):
            kept = self.keep[program]
            places = at.values[program][kept] & 15
            UPDATES[self.update].at(self.bins, places, a.values[program][kept])

    def early_return(self) -> None:
        """The last program ends here, and stores nothing."""
        if self.last_program == _PROGRAMS and self.random.random() < 0.5:
            self.last_program -= 1
            self.line(f"if tl.program_id(0) == {self.last_program}:")
            self.line("    return")

    # The whole.

    def head(self, seed: int) -> None:
        """Positions, masks and inputs."""
        flat = f"tl.arange(0, {self.tile})"
        if len(self.shape) > 1:
            reshaped = f"tl.reshape({flat}, {self.shape})"
            flat = reshaped if self.random.random() < 0.3 else self.row_major()
        self.line(f"position = tl.program_id(0) * {self.tile} + {flat}")
        self.line("keep = position < n")
        position = np.arange(_PROGRAMS * self.tile, dtype=np.int32).reshape(_PROGRAMS, *self.shape)
        keep = position < self.length
        generator = np.random.default_rng(seed)
        letters = "".join(self.random.choice(self.letters) for _ in range(4)) + "fi"
        for place, letter in enumerate(letters):
            values = _random_values(letter, self.length, generator)
            self.inputs.append((letter, values))
            other = self.random.randrange(2)
            padded = np.full(position.size, convert(np.array(other), letter))
            padded[: self.length] = values
            text = f"tl.load(in{place} + position, mask=keep, other={other})"
            self.add(letter, padded.reshape(position.shape), None, text)
        self.variables.append(Variable("position", "i", position))
        if not self.is_plain:
            self.variables.append(Variable("keep", "m", keep))
        self.position, self.keep = position, keep

    def row_major(self) -> str:
        """The row-major place of each element, from one range a dimension."""
        strides = [int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape))]
        return " + ".join(f"{self.range_along(axis)} * {stride}" for axis, stride in enumerate(strides))

    def stored(self, variable: Variable, backwards: bool) -> tuple[str, Array, Array | None]:
        """What arrives in memory of a variable; backwards, if told so."""
        cut = [
            None if each is None else each.reshape(-1)[: self.length].copy()
            for each in (variable.values, variable.error)
        ]
        values, error = cut
        assert values is not None
        values[self.last_program * self.tile :] = 0
        if backwards:
            return variable.letter, values[::-1], None if error is None else error[::-1]
        return variable.letter, values, error


def random_kernel(seed: int) -> RandomKernel:
    """Write the kernel of a seed."""
    w = _Writer(seed)
    w.head(seed)
    for _ in range(w.random.randrange(8, 20)):
        w.statement()
    chosen = [v for v in w.variables if v.name != "keep"][-5:]
    names = [f"in{place}" for place in range(len(w.inputs))] + [f"out{place}" for place in range(len(chosen))]
    names += [f"early{place}" for place in range(len(w.early))]
    backwards = [w.random.random() < 0.2 for _ in chosen]
    stores = [
        f"    tl.store(out{place} + {'(n - 1 - position)' if backwards[place] else 'position'}, {v.name}, mask=keep)"
        for place, v in enumerate(chosen)
    ]
    head = f"def kernel({', '.join(names)}, bins, n, bound):"
    return RandomKernel(
        source=_HEAD + "\n".join([head, *w.lines, *stores]) + "\n",
        inputs=tuple(w.inputs),
        outputs=(*map(w.stored, chosen, backwards), *w.early, ("i", w.bins, None)),
        length=w.length,
        programs=_PROGRAMS,
        is_plain=w.is_plain,
    )


def _random_values(letter: str, count: int, generator: np.random.Generator) -> Array:
    """Random inputs; floats with NaN, infinities, subnormals and both zeros, integers small and large."""
    if letter == "m":
        return generator.random(count) < 0.5
    if letter in FLOATS:
        values = generator.normal(size=count) * 10.0 ** generator.integers(-3, 3)
        special = generator.random(count) < 0.1
        values[special] = generator.choice(_SPECIAL, special.sum())
        return convert(values, letter)
    dtype = np.dtype(FORMATS[letter].held)
    limits = np.iinfo(dtype)
    numbers = generator.integers(limits.min, limits.max, count, dtype=dtype, endpoint=True)
    small = generator.random(count) < 0.5
    numbers[small] = generator.integers(-20 if letter in SIGNED else 0, 20, small.sum()).astype(dtype)
    return numbers
