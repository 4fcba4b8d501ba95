"""What a launch ends with, if not well: the shared object's entry returns a text whose first letter says what it is."""

from __future__ import annotations

ASSERTION = "A"
# What was taken for granted of the lanes' addresses does not hold. No program has run; another variant is right.
LANES_OVERLAP = "O"
# No program could go on.
STUCK = "S"

_ERRORS: dict[str, type[Exception]] = {ASSERTION: AssertionError, STUCK: RuntimeError}


def error_of(kernel: str, failure: bytes) -> Exception:
    """Return the exception that a failure is.

    Args:
        kernel: its name.
        failure: what the entry returned.

    Example:
        >>> error_of("add", b"Aoverflow")
        AssertionError('add: overflow')
    """
    text = failure.decode()
    return _ERRORS[text[0]](f"{kernel}: {text[1:]}")
