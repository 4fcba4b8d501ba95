"""How this program was started, so that commands in its messages can be pasted where they are read."""

from __future__ import annotations

import os
import sys

# In a checkout, and where another program calls the commands.
_IN_A_CHECKOUT = "python -m bench"


def invocation() -> str:
    """Return the words before a command's name: `python -m bench`, `python -m fusetune.bench`, `bench` or `fusetune`.

    Example:
        >>> f"{invocation()} report results/cifar"
        'python -m bench report results/cifar'
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return "python -m fusetune.bench" if spec.name == "fusetune.bench.__main__" else _IN_A_CHECKOUT
    script = os.path.basename(sys.argv[0])
    return script if script in ("bench", "fusetune") else _IN_A_CHECKOUT
