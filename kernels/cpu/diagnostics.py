"""What cannot be compiled is a CompilationError that names the operation and the Python line."""

from __future__ import annotations

import ast
import linecache

from kernels.cpu.ir_tree import Operation
from kernels.triton_inside import CompilationError


def place(operation: Operation) -> str:
    """Where an operation stands: the Python line, or what it looks like where Triton made it up."""
    return f"{operation.source[0]}:{operation.source[1]}" if operation.source else operation.line


def unsupported(operation: Operation, why: str) -> Exception:
    """Return the error to raise for an operation that has no lowering.

    Args:
        operation: what cannot be compiled.
        why: one clause, without a full stop.
    """
    message = f"{operation.name} cannot be compiled for the CPU: {why}."
    if operation.source is None:
        return CompilationError(None, ast.Pass(), f"{message} In the IR: {operation.line}")
    file, line, column = operation.source
    place = ast.Pass(lineno=line, col_offset=max(0, column - 1))
    source = "".join(linecache.getlines(file)) or None
    return CompilationError(source, place, f"{file}:{line}: {message}")
