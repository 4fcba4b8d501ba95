"""What cannot be compiled is a CompilationError that names the operation and the Python line."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from contextlib import contextmanager

from fusetune.kernels.cpu.ir_tree import Operation, UnreadableModuleError
from fusetune.kernels.cpu.ir_types import UnsupportedTypeError
from fusetune.kernels.triton_inside import CompilationError


def place(operation: Operation) -> str:
    """Where an operation stands: the Python line, or what it looks like where Triton made it up."""
    found = operation.nearest_source
    return f"{found[0]}:{found[1]}" if found else operation.line


def unsupported(operation: Operation, why: str) -> Exception:
    """Return the error to raise for an operation that has no lowering.

    Args:
        operation: what cannot be compiled.
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


# What a fault of this package can raise. Others are no fault of its: a full disk, or an interruption.
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
    """Have whatever goes wrong in a context be a CompilationError that names an operation and its line.

    What has already been found to be the fault of an operation goes on as it is.

    Args:
        operation: what is being lowered; None while the IR is being read.

    Raises:
        CompilationError: a type that cannot be held, or a fault of this package.
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
    """The error that says what in this package did not work, while it dealt with an operation."""
    if operation is None:
        text = f"the kernel's IR cannot be read, {why}. Report it together with the kernel."
        return _error(text)
    return unsupported(
        operation, f"the compiler itself is at fault, {why}. Report it together with the kernel"
    )
