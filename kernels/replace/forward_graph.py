"""The use of activations in a module's forward, read from a graph traced with `torch.fx`. No tensor is computed.

Each module is traced on its own, with its children as single nodes. A graph tells which activations are called as
functions, and whether another node reads the tensor that an in-place activation overwrites. Where the graph does not
rule that out, the answer is that one may.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from fusetune.kernels.activations import Activation
from fusetune.kernels.replace.calls import FUNCTIONAL, METHODS, fused_name

REUSED = "it overwrites its input, which is used again"
OF_THE_CALLER = "it overwrites the input of the model"
# PyTorch keeps the input of this one for backward, but the fused kernel keeps the result.
RESULT = "its result is overwritten, which the fused one keeps"
UNTRACED = "it overwrites its input, and its use cannot be traced"

_TARGET = "target"  # where a node keeps the module that it calls
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
# torch's own modules whose forward passes a fresh tensor to its activation, and reads it nowhere else.
_SAFE = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
# Modules and functions that return a tensor with memory of its own.
_FRESH_MODULES = (nn.Linear, nn.Bilinear, _ConvNd, _BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.Embedding)
_IN_PLACE_ARITHMETIC = (
    "iadd",
    "isub",
    "imul",
    "itruediv",
    "ifloordiv",
    "ipow",
    "imod",
    "iand",
    "ior",
    "ixor",
)
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "matmul", "neg", "pow")
_FRESH_FUNCTIONS: frozenset[Any] = frozenset(
    [getattr(operator, name) for name in _ARITHMETIC]
    + [torch.add, torch.sub, torch.mul, torch.div, torch.matmul, torch.mm, torch.bmm, torch.cat, torch.stack]
    + [F.linear, F.conv1d, F.conv2d, F.conv3d, F.layer_norm, F.batch_norm, F.softmax, torch.softmax]
)
_INTO_THE_FIRST: frozenset[Any] = frozenset(getattr(operator, name) for name in _IN_PLACE_ARITHMETIC)
_FRESH_METHODS = frozenset(["add", "sub", "mul", "div", "matmul", "clone", "mean", "sum", "softmax"])


@dataclass
class Reading:
    """The findings from the graphs of a module tree.

    Args:
        called: module -> names of the fused activations for the functions that its forward calls.
        kept: module -> functions that its forward calls and that have no fused one, such as those in place.
        unsafe: activation -> why it must stay. A missing one may be replaced.
        untraced: modules whose forward cannot be traced.
    """

    called: dict[nn.Module, set[str]] = field(default_factory=dict)
    kept: dict[nn.Module, set[str]] = field(default_factory=dict)
    unsafe: dict[nn.Module, str] = field(default_factory=dict)
    untraced: set[nn.Module] = field(default_factory=set)


def read(root: nn.Module, in_place: set[nn.Module]) -> Reading:
    """Trace a module and all modules in it.

    Args:
        root: the root of the tree. It is not changed, and no random number is drawn.
        in_place: activations in the tree that overwrite their input.
    """
    reader = _Reader(in_place)
    with _randomness_kept():
        escaping = reader.visit(root)
    for act in escaping:
        reader.reading.unsafe.setdefault(act, OF_THE_CALLER)
    for act in in_place - reader.proved:
        reader.reading.unsafe.setdefault(act, UNTRACED)
    return reader.reading


@contextlib.contextmanager
def _randomness_kept() -> Iterator[None]:
    """Restore the random generators, because tracing runs the forward's own Python."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


class _Tracer(fx.Tracer):
    """Traces one forward. The modules it calls are single nodes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """A traced tensor that tells `x += y` from `x = x + y`, as torch's own proxy does not."""


def _in_place(function: Any) -> Any:
    """The method for one of `operator`'s functions in place."""

    def method(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in _IN_PLACE_ARITHMETIC:
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))


class _Reader:
    """Walks a tree from its leaves up, because a parent depends on which children overwrite their inputs."""

    def __init__(self, in_place: set[nn.Module]) -> None:
        self.in_place = in_place
        self.reading = Reading()
        self.proved: set[nn.Module] = set()
        self._escaping: dict[nn.Module, set[nn.Module]] = {}
        self._fresh: set[nn.Module] = set()  # modules whose result never aliases their arguments

    def visit(self, module: nn.Module) -> set[nn.Module]:
        """The in-place activations through which a call of `module` overwrites its arguments."""
        if module in self.in_place:
            return {module}
        if module not in self._escaping:
            self._escaping[module] = set()
            for child in module.children():
                self.visit(child)
            self._escaping[module] = self._read(module)
        return self._escaping[module]

    def _read(self, module: nn.Module) -> set[nn.Module]:
        is_torchs = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))
        if isinstance(module, (*_CONTAINERS, Activation)):
            return set()
        if is_torchs and not isinstance(module, nn.Sequential):
            overwriting = set().union(*(self.visit(child) for child in module.children()))
            self.proved |= overwriting & self.in_place
            if type(module) not in _SAFE:
                self.reading.unsafe.update(dict.fromkeys(overwriting, UNTRACED))
            return set()
        inside = {act for act in module.modules() if act in self.in_place}
        graphs = _graphs(module)
        if graphs is None:
            self.reading.untraced.add(module)
            self.reading.unsafe.update(dict.fromkeys(inside, UNTRACED))
            return set()
        escaping: set[nn.Module] = set()
        for graph in graphs:
            if not is_torchs:
                self._read_functions(module, graph)
            escaping |= self._read_in_place(graph)
        if all(self._gives_fresh(graph) for graph in graphs):
            self._fresh.add(module)
        return escaping

    def _gives_fresh(self, graph: fx.Graph) -> bool:
        """Return whether the result has memory of its own."""
        waiting = [other for node in graph.nodes if node.op == "output" for other in node.all_input_nodes]
        seen = set[fx.Node]()
        while waiting:
            node = waiting.pop()
            if node.op in ("placeholder", "get_attr"):
                return False
            if node not in seen:
                seen.add(node)
                waiting += self._sources(node)
        return True

    def _read_functions(self, module: nn.Module, graph: fx.Graph) -> None:
        """Record the activations that are called as functions."""
        for node in graph.nodes:
            if node.op not in ("call_function", "call_method"):
                continue
            table: Any = FUNCTIONAL if node.op == "call_function" else METHODS
            known = node.target in table
            name = str(getattr(node.target, "__name__", node.target))
            kwargs = {key: value for key, value in node.kwargs.items() if key != "input"}
            found = fused_name(node.target, node.args[1:], kwargs) if known else None
            if found is not None:
                self.reading.called.setdefault(module, set()).add(found[0])
            elif known or name.rstrip("_") in table.values():
                self.reading.kept.setdefault(module, set()).add(name)

    def _read_in_place(self, graph: fx.Graph) -> set[nn.Module]:
        """Judge every call that overwrites its arguments. Return those that reach the arguments of the forward."""
        nodes = list(graph.nodes)
        escaping: set[nn.Module] = set()
        for place, node in enumerate(nodes):
            if node.op == "get_attr":
                handed_on = node.meta[_TARGET]
                if isinstance(handed_on, nn.Module):  # its receiver may call it in any way
                    unseen = {act for act in handed_on.modules() if act in self.in_place}
                    self.reading.unsafe.update(dict.fromkeys(unseen, UNTRACED))
            if _overwrites(node):
                for other in self._sharing_storage(node):
                    if other.op == "call_module" and type(other.meta[_TARGET]) is nn.LeakyReLU:
                        self.reading.unsafe[other.meta[_TARGET]] = RESULT
            if node.op != "call_module":
                continue
            overwriting = self.visit(node.meta[_TARGET])
            self.proved |= overwriting & self.in_place
            if not overwriting:
                continue
            storage = self._sharing_storage(node)
            read_later = any(
                other in storage for user in nodes[place + 1 :] for other in user.all_input_nodes
            )
            if read_later or any(_is_kept(other) for other in storage):
                self.reading.unsafe.update(dict.fromkeys(overwriting, REUSED))
            elif any(other.op == "placeholder" for other in storage):
                escaping |= overwriting
        return escaping

    def _sharing_storage(self, call: fx.Node) -> set[fx.Node]:
        """The nodes whose tensors may alias those that `call` overwrites, except its own result."""
        sharing, waiting = set[fx.Node](), list(call.all_input_nodes)
        while waiting:
            node = waiting.pop()
            if node in sharing or node is call:
                continue
            sharing.add(node)
            waiting += self._sources(node)
            waiting += [user for user in node.users if user.op != "output" and node in self._sources(user)]
        return sharing

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose memory a result may share."""
        fresh = False
        if node.op == "call_module":
            module = node.meta[_TARGET]
            fresh = isinstance(module, _FRESH_MODULES) or module in self._fresh
        elif node.op == "call_function":
            if node.target in _INTO_THE_FIRST:
                return [each for each in node.args[:1] if isinstance(each, fx.Node)]
            fresh = node.target in _FRESH_FUNCTIONS
        elif node.op == "call_method":
            fresh = node.target in _FRESH_METHODS
        return [] if fresh else node.all_input_nodes


def _overwrites(node: fx.Node) -> bool:
    """Return whether a function or a method overwrites its arguments, by its name."""
    name = str(getattr(node.target, "__name__", node.target))
    by_name = name.endswith("_") and not name.endswith("__")
    called = node.op in ("call_function", "call_method")
    return called and (node.target in _INTO_THE_FIRST or by_name or bool(node.kwargs.get("inplace")))


def _is_kept(node: fx.Node) -> bool:
    """Return whether the tensor may be held beyond the forward: it is an attribute, or was passed to a hook."""
    return node.op == "get_attr" or (node.op == "call_module" and bool(node.meta[_TARGET]._forward_hooks))


def _graphs(module: nn.Module) -> list[fx.Graph] | None:
    """The graphs of a forward in training and evaluation, with its optional arguments given and left out.

    None where it cannot be traced, because its control flow depends on tensors or it keeps tensors in attributes.
    """
    if isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module):
        return None
    graphs = []
    attributes = {each: dict(vars(each)) for each in module.modules() if each is not module}
    try:
        parameters = inspect.signature(module.forward).parameters.values()
        left_out = {p.name: p.default for p in parameters if p.default is not p.empty}
        for training in (True, False):
            for concrete in [{}, left_out] if left_out else [{}]:
                own = _own_copy(module)
                own.training = training
                graph = _Tracer().trace(own, concrete or None)
                if _holds_a_proxy(own, *attributes):
                    return None
                for node in graph.nodes:
                    if node.op in ("call_module", "get_attr"):
                        node.meta[_TARGET] = operator.attrgetter(node.target)(own)
                graphs.append(graph)
    except Exception:  # a person's `forward`, which may do what no trace can follow
        return None
    finally:
        for each, former in attributes.items():
            vars(each).clear()
            vars(each).update(former)
    return graphs


def _holds_a_proxy(*modules: nn.Module) -> bool:
    """Return whether a trace left tensors in attributes, where other code may read them."""
    held = (value for module in modules for key, value in vars(module).items() if not key.startswith("_"))
    return any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves(list(held)))


def _own_copy(module: nn.Module) -> nn.Module:
    """A copy that shares children and parameters, so that tracing a forward changes only the copy."""
    shared = [*module.children(), *module.parameters(recurse=False)]
    return copy.deepcopy(module, {id(each): each for each in shared})
