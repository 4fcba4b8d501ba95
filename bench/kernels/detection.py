"""What a kernel's author left out, found on its inputs: what a call changes, and the bytes that must cross memory.

An input is changed where the reference writes it. PyTorch counts the writes of a tensor, whatever the values are, and
bits are compared too, for code that goes round that count. So NaN does not look like a change, and a value that the
operation leaves as it is does not hide one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusetune.bench.kernels.signatures import tensors_in
from fusetune.kernels import Kernel

# Elements of the inputs on which mutation is looked for, where the kernel leaves the choice.
PROBE_ELEMENTS = 1000
_SEEDS = (1, 2, 3)
# An integer type of each width, to compare bits.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class InputFacts:
    """What a reference does with its inputs.

    Args:
        mutates: names of the inputs that it changes, in their order.
        overwritten: those of them whose former values have no influence. They are written and not read.
    """

    mutates: tuple[str, ...]
    overwritten: tuple[str, ...] = ()


def input_facts(
    kernel: Kernel,
    elements: int = PROBE_ELEMENTS,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    seeds: Sequence[int] = _SEEDS,
) -> InputFacts:
    """Find which inputs a kernel's reference changes, and which of these it does not read.

    Args:
        kernel: its `mutates` is taken where it is given. Else the reference is called with inputs of each seed.
        elements, dtype, device: for `make_inputs`.
        seeds: for `make_inputs`.

    Example:
        >>> def make_inputs(elements, dtype, device, seed):
        ...     return {"x": torch.randn(elements, dtype=dtype), "out": torch.empty(elements, dtype=dtype)}
        >>> copy_kernel = Kernel("copy", torch.ops.aten.copy_, lambda x, out: out.copy_(x), make_inputs)
        >>> input_facts(copy_kernel)
        InputFacts(mutates=('out',), overwritten=('out',))
    """
    device = torch.device(device)
    first = kernel.make_inputs(elements, dtype, device, seeds[0])
    mutates = mutated_inputs(kernel, elements, dtype, device, seeds=seeds)
    overwritten = tuple(name for name in mutates if name in first and _is_overwritten(kernel, first, name))
    return InputFacts(mutates, overwritten)


def mutated_inputs(
    kernel: Kernel,
    elements: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    seeds: Sequence[int] = _SEEDS,
) -> tuple[str, ...]:
    """Return the names of the inputs that a kernel changes: those that it names, or those that its reference changes.

    Args:
        kernel, elements, dtype, device, seeds: see `input_facts`.

    Example:
        >>> kernel = Kernel("add", torch.add, lambda x: x.add_(0), lambda *_: {"x": torch.ones(2)})
        >>> mutated_inputs(kernel, 2, torch.float32, torch.device("cpu"))
        ('x',)
    """
    if kernel.mutates is not None:
        return kernel.mutates
    changed: set[str] = set()
    names: list[str] = []
    for seed in seeds:
        inputs = kernel.make_inputs(elements, dtype, device, seed)
        names = [*inputs]
        changed |= _changed_by(kernel, inputs)
    return tuple(name for name in names if name in changed)


def bytes_moved(inputs: Mapping[str, Any], results: Any, facts: InputFacts) -> int:
    """Return the bytes that must cross memory: all that is read, once, and all that is written, once.

    Bytes that are there twice, as of a tensor that is given twice or of views of one storage, count once. A tensor that
    is repeated by strides of 0 counts as what lies in memory.

    Args:
        inputs: of one call. All their tensors are read, but those that are overwritten.
        results: what the call returned. A view of an input that the call does not change is not written.
        facts: see `input_facts`.

    Example:
        >>> x, out = torch.ones(1000), torch.ones(1000)
        >>> bytes_moved({"x": x, "again": x[10:], "out": out}, None, InputFacts(("out",), ("out",)))
        8000
    """
    read = [
        tensor for name in inputs if name not in facts.overwritten for _, tensor in tensors_in(inputs[name])
    ]
    changed = [tensor for name in facts.mutates if name in inputs for _, tensor in tensors_in(inputs[name])]
    kept = {_place(tensor) for _, tensor in tensors_in(inputs)} - {_place(tensor) for tensor in changed}
    returned = [tensor for _, tensor in tensors_in((results,)) if _place(tensor) not in kept]
    return bytes_in(read) + bytes_in([*changed, *returned])


def bytes_in(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of memory that tensors cover together, each byte counted once.

    Example:
        >>> x = torch.ones(10)
        >>> bytes_in([x, x[:5], x[::2], x.expand(7, 10)])
        40
    """
    by_storage: dict[Any, dict[Any, torch.Tensor]] = {}
    for tensor in tensors:
        for part in [tensor] if tensor.layout is torch.strided else _parts_of_sparse(tensor):
            shape = tuple(zip(part.shape, part.stride(), strict=True))
            key = (
                part.data_ptr(),
                part.element_size(),
                tuple(pair for pair in shape if pair[1] and pair[0] > 1),
            )
            by_storage.setdefault(_place(part), {}).setdefault(key, part)
    return sum(_covered([*views.values()]) for views in by_storage.values())


def _covered(views: list[torch.Tensor]) -> int:
    """The bytes of one storage that some views cover."""
    whole = views[0].untyped_storage().nbytes()
    dense = [view.numel() * view.element_size() for view in views if _is_dense(view)]
    if whole in dense or len(dense) == len(views) == 1:
        return max(dense)
    mask = torch.zeros(whole, dtype=torch.bool)
    for view in views:
        if not view.numel():
            continue
        width = view.element_size()
        shape = [size if stride else 1 for size, stride in zip(view.shape, view.stride(), strict=True)]
        strides = [stride * width for stride in view.stride()]
        mask.as_strided([*shape, width], [*strides, 1], view.storage_offset() * width).fill_(True)
    return int(mask.sum())


def _is_dense(tensor: torch.Tensor) -> bool:
    """Say whether a tensor's elements are each at an address of its own, without gaps."""
    expected = 1
    for stride, size in sorted(
        (stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True


def _parts_of_sparse(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The strided tensors that a sparse one is made of."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]


def _place(tensor: torch.Tensor) -> Any:
    """What tensors on the same memory have in common."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.device, tensor.untyped_storage().data_ptr() or id(tensor)


def _changed_by(kernel: Kernel, inputs: Mapping[str, Any]) -> set[str]:
    """The inputs that one call of the reference writes."""
    inputs = _apart(inputs)
    own = {name: [*tensors_in(inputs[name])] for name in inputs}
    before = {
        name: [(tensor._version, bits_of(tensor).clone()) for _, tensor in tensors]
        for name, tensors in own.items()
    }
    _call(kernel, inputs)
    written: dict[str, set[Any]] = {}
    changed: dict[str, set[Any]] = {}
    for name, tensors in own.items():
        for (_, tensor), (version, bits) in zip(tensors, before[name], strict=True):
            if tensor._version != version:
                written.setdefault(name, set()).add(_place(tensor))
            if not torch.equal(bits_of(tensor), bits):
                changed.setdefault(name, set()).add(_place(tensor))
    # Views of one memory share the count of writes. Where the bits tell which one it was, they decide.
    told = {place for places in changed.values() for place in places}
    return {*changed, *(name for name, places in written.items() if places - told)}


def _apart(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild inputs with memory of its own for each tensor that shares no byte with another one."""
    spans: dict[int, tuple[Any, int, int]] = {}
    for _, tensor in tensors_in(inputs):
        if tensor.layout is torch.strided and tensor.numel():
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            last = sum((size - 1) * stride for size, stride in steps) + 1
            begin = int(tensor.storage_offset()) * tensor.element_size()
            spans[id(tensor)] = (_place(tensor), begin, begin + int(last) * tensor.element_size())

    def is_alone(tensor: torch.Tensor) -> bool:
        if id(tensor) not in spans:
            return False
        place, begin, end = spans[id(tensor)]
        others = (span for key, span in spans.items() if key != id(tensor))
        return not any(place == theirs and begin < last and first < end for theirs, first, last in others)

    def rebuilt(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad) if is_alone(value) else value
        if isinstance(value, dict):
            return {key: rebuilt(each) for key, each in value.items()}
        return type(value)(map(rebuilt, value)) if type(value) in (list, tuple) else value

    return {name: rebuilt(value) for name, value in inputs.items()}


def _is_overwritten(kernel: Kernel, inputs: Mapping[str, Any], name: str) -> bool:
    """Say whether the former values of an input that is changed have no influence on what a call gives.

    They are replaced by others. What the call leaves as it was may then differ, and nothing else.
    """
    first, second = copy.deepcopy(dict(inputs)), copy.deepcopy(dict(inputs))
    originals = [bits_of(tensor).clone() for _, tensor in tensors_in(first[name])]
    replaced = []
    for _, tensor in tensors_in(second[name]):
        if not tensor.is_floating_point() and tensor.device.type != "cpu":
            return False  # a false index would end the process of a GPU
        try:
            _replace_values(tensor)
        except RuntimeError:  # several elements share an address
            return False
        replaced.append(bits_of(tensor).clone())
    results_first = _call(kernel, first)
    try:
        results_second = _call(kernel, second)
    except (RuntimeError, ValueError, IndexError, ArithmeticError):  # the values were read, and were no good
        return False
    for other in first:
        if other != name and not _same_bits(first[other], second[other]):
            return False
    if not _same_bits(results_first, results_second) and not _aliases(results_first, first[name]):
        return False
    after_first = [bits_of(tensor) for _, tensor in tensors_in(first[name])]
    after_second = [bits_of(tensor) for _, tensor in tensors_in(second[name])]
    for one, two, original, filled in zip(after_first, after_second, originals, replaced, strict=True):
        untouched = (two == filled) & (one == original)
        if not bool(((one == two) | untouched).all()):
            return False
    return True


def _replace_values(tensor: torch.Tensor) -> None:
    """Give each element another value: NaN, or the opposite of each bit."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype is torch.bool:
        tensor.logical_not_()
    else:
        bits_of(tensor).bitwise_not_()


def _call(kernel: Kernel, inputs: Mapping[str, Any]) -> Any:
    return kernel.reference(**inputs)


def _aliases(results: Any, value: Any) -> bool:
    """Say whether all results lie in the memory of an input."""
    places = {_place(tensor) for _, tensor in tensors_in((value,))}
    return all(_place(tensor) in places for _, tensor in tensors_in((results,)))


def _same_bits(one: Any, other: Any) -> bool:
    pairs = zip(_tensors(one), _tensors(other), strict=True)
    return all(torch.equal(bits_of(first), bits_of(second)) for first, second in pairs)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (tensor for _, tensor in tensors_in((value,)))


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bits as integers, on the same memory where it can be. NaN then equals itself.

    Example:
        >>> nan = torch.tensor([float("nan")])
        >>> bool((bits_of(nan) == bits_of(nan)).all())
        True
    """
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.dtype is torch.bool:
        return tensor.view(torch.int8)
    return tensor.view(_BITS[tensor.element_size()])
