"""Tells a caller how far a training is, often enough to watch and seldom enough not to cost anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OnProgress = Callable[[dict[str, Any]], None]

_EVERY_S = 0.5


class Progress:
    """Calls `on_progress` with plain numbers: phase, epoch, epochs, step, steps, loss, val_accuracy, samples_per_s,
    processor_missing.

    `samples_per_s` is the speed since the last call, by the host's clock. Like `loss`, `val_accuracy` and
    `processor_missing` (see `tuner.measure.contention`) it is None until it is known.

    Args:
        on_progress: the caller's function, or None: then nothing is ever due.
        clock: seconds of the host.
        epochs: of the whole training.
        steps: of the whole training.
        samples_per_step: samples that one update uses.

    Example:
        >>> seconds = iter([0.0, 0.6, 2.0, 2.0])
        >>> progress = Progress(print, lambda: next(seconds), epochs=1, steps=40, samples_per_step=64)
        >>> progress.begin_epoch(1, 0)
        >>> progress.due()
        True
        >>> progress.report("training", 10, loss=2.25)
        {'phase': 'training', 'epoch': 1, 'epochs': 1, 'step': 10, 'steps': 40, 'loss': 2.25, \
'val_accuracy': None, 'samples_per_s': 320.0, 'processor_missing': None}
    """

    def __init__(
        self,
        on_progress: OnProgress | None,
        clock: Callable[[], float],
        *,
        epochs: int,
        steps: int,
        samples_per_step: int,
    ) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._epochs = epochs
        self._steps = steps
        self._samples_per_step = samples_per_step
        self._epoch = 1
        self._since_s = 0.0
        self._since_step = 0
        self._samples_per_s: float | None = None

    def begin_epoch(self, epoch: int, step: int) -> None:
        """Note that `epoch` (from 1) begins after `step` updates: what came between is not part of the speed."""
        self._epoch = epoch
        self._since_s, self._since_step = self._clock(), step

    def due(self) -> bool:
        """Return whether it is time to report again."""
        return self._on_progress is not None and self._clock() - self._since_s >= _EVERY_S

    def report(
        self,
        phase: str,
        step: int,
        *,
        loss: float | None = None,
        val_accuracy: float | None = None,
        processor_missing: float | None = None,
    ) -> None:
        """Call the caller's function, after `step` updates."""
        if self._on_progress is None:
            return
        seconds = self._clock() - self._since_s
        if step > self._since_step and seconds > 0:
            self._samples_per_s = (step - self._since_step) * self._samples_per_step / seconds
        self._on_progress(
            {
                "phase": phase,
                "epoch": self._epoch,
                "epochs": self._epochs,
                "step": step,
                "steps": self._steps,
                "loss": loss,
                "val_accuracy": val_accuracy,
                "samples_per_s": self._samples_per_s,
                "processor_missing": processor_missing,
            }
        )
        self._since_s, self._since_step = self._clock(), step
