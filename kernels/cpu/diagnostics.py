"""Compilation errors: a CompilationError that names the operation and the Python line."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from contextlib import contextmanager

from fusetune.kernels.cpu.ir_tree import Operation, UnreadableModuleError
from fusetune.kernels.cpu.ir_types import UnsupportedTypeError
from fusetune.kernels.triton_inside import CompilationError


def place(operation: Operation) -> str:
    """The Python line of an operation, or its printed form where Triton generated it."""
    found = operation.nearest_source
    return f"{found[0]}:{found[1]}" if found else operation.line


def unsupported(operation: Operation, why: str) -> Exception:
    """Return the error to raise for an operation that has no lowering.

    Args:
        operation: the one that cannot be compiled.
        why: one clause, without a full stop.
    """
    message = f"{operation.name} cannot be compiled for the CPU: {why}."
    found = operation.nearest_source
    if found is None:
        return _error(f"{message} In the IR: {operation.line}")
    file, line, column = found
    place = ast.Pass(lineno=line, col_offset=max(0, column - 1))
    source = "".join(linecache.getlines(file)) or None
    return _error(f"{file}:{line}: {message}", source, place)


def _error(message: str, source: str | None = None, place: ast.AST | None = None) -> Exception:
    error: Exception = CompilationError(source, place or ast.Pass(), message)
    return error


# The exceptions that a bug in this package can raise. A full disk or an interruption is no bug of it.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)


@contextmanager
def faults_of(operation: Operation | None) -> Iterator[None]:
    """Turn exceptions of the context into a CompilationError that names an operation and its line.

    A CompilationError that already names an operation is raised unchanged.

    Args:
        operation: the one that is being lowered, or None while the IR is being read.

    Raises:
        CompilationError: a type has no C counterpart, or this package has a bug.
    """
    try:
        yield
    except CompilationError:
        raise
    except UnreadableModuleError as error:
        raise _fault(error.operation, error.why) from error
    except _FAULTS as error:
        if operation is not None and isinstance(error, UnsupportedTypeError):
            raise unsupported(operation, str(error)) from None
        raise _fault(operation, f"{type(error).__name__}: {error}".rstrip(": .")) from error


def _fault(operation: Operation | None, why: str) -> Exception:
    """The error of a bug in this package, with the operation that it was lowering."""
    if operation is None:
        text = f"the kernel's IR cannot be read ({why}). Report it together with the kernel."
        return _error(text)
    return unsupported(
        operation, f"this is a bug of the CPU backend ({why}). Report it together with the kernel"
    )
