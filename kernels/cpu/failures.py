"""Failures of a launch: the shared object's entry returns a text whose first letter is the kind of failure."""

from __future__ import annotations

from collections.abc import Sequence

ASSERTION = "A"
# An assumption about the lanes' addresses does not hold. No program has run. Another variant of the kernel is right.
LANES_OVERLAP = "O"
# Deadlock: no program could go on.
STUCK = "S"
# An access out of bounds. Fields: the kind of access, its line, the number of the pointer that it is derived from, and
# the bytes of an element. Then, in bytes from that pointer on: the access, the beginning and the end of the memory.
OUT_OF_BOUNDS = "B"
SEPARATOR = "\x1f"

_ERRORS: dict[str, type[Exception]] = {ASSERTION: AssertionError, STUCK: RuntimeError}


def error_of(kernel: str, failure: bytes, pointers: Sequence[str] = ()) -> Exception:
    """Return the exception of a failure.

    Args:
        kernel: its name.
        failure: the bytes that the entry returned.
        pointers: the names of its pointer arguments.

    Example:
        >>> error_of("add", b"Aoverflow")
        AssertionError('add: overflow')
    """
    text = failure.decode()
    if text[0] == OUT_OF_BOUNDS:
        return IndexError(f"{kernel}: {_out_of_bounds(text[1:], pointers)}")
    return _ERRORS[text[0]](f"{kernel}: {text[1:]}")


def _out_of_bounds(text: str, pointers: Sequence[str]) -> str:
    """The sentences for an access out of bounds."""
    what, where, *numbers = text.split(SEPARATOR)
    own, size, at, first, end = map(int, numbers)
    if own < 0:
        return (
            f"{where}: a {what} at address {at % (1 << 64):#x}, outside of every tensor passed to the launch."
        )
    name = pointers[own]
    holds = f"elements {-(-first // size)} to {end // size - 1}" if end - first >= size else "no element"
    return (
        f"{where}: a {what} at element {at // size} of {name} (byte {at}), outside of every tensor passed to "
        f"the launch; the memory of {name} holds {holds}. Mask the lanes beyond it, or pass a larger tensor."
    )
