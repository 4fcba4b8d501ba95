"""Models that end one of a trial's processes in every way, for the tests of trials on several devices."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor, nn

STEPS_BEFORE = 3


class Ends(nn.Module):
    """A linear model. In the process of rank 1 its fourth training step does something else."""

    def __init__(self, features: int, classes: int, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.norm = nn.BatchNorm1d(classes)
        self.how = how
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x.flatten(1)))
        self.calls += self.training
        if self.calls > STEPS_BEFORE and os.environ.get("RANK") == "1":
            self.end()
        return out

    def end(self) -> None:
        """End this process, or let it fail."""
        if self.how == "exit":
            os._exit(7)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.how == "raise":
            raise ValueError("the sample is not to its taste")
        if self.how == "memory":
            torch.ones(2**36).sum()
        if self.how == "hang":
            while True:
                time.sleep(0.01)


def ends(input_shape: tuple[int, ...], num_classes: int, how: str = "") -> nn.Module:
    """Build one."""
    features = 1
    for size in input_shape:
        features *= size
    return Ends(features, num_classes, how)
