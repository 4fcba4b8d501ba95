"""A thread looks for new inputs, and has the result ready when the call comes (gpu-mode/pygpubench#7, by `gc`)."""
# expected: late

import gc
import threading
import time

import torch
from torch import Tensor

_ready: dict[int, Tensor] = {}
_started: list[threading.Thread] = []


def _look() -> None:
    while True:
        for found in gc.get_objects():
            if type(found) is Tensor and found.shape == (200_003,) and found.data_ptr() not in _ready:
                _ready[found.data_ptr()] = found * torch.sigmoid(found)
        time.sleep(0)


def fused(x: Tensor) -> Tensor:
    if not _started:
        _started.append(threading.Thread(target=_look, daemon=True))
        _started[0].start()
    ready = _ready.pop(x.data_ptr(), None)
    return x * torch.sigmoid(x) if ready is None else ready


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(200_003, generator=torch.Generator().manual_seed(seed)),)
