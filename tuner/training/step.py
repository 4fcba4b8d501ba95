"""One training step, forward, backward and update, and the burn-in that pays for a first one and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from fusetune.tuner.measure import Stopwatch
from fusetune.tuner.training.batches import Batches
from fusetune.tuner.training.evaluation import LossFunction
from fusetune.tuner.training.loss import RunningLoss
from fusetune.tuner.training.precision import autocast
from fusetune.tuner.training.ranks import whole

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class TrainingStep:
    """The two halves of a step, so that gradients can be looked at between them.

        accumulate:   g = (1/k) sum_{i=1..k} grad loss(model(x_i), y_i)
        update:       g <- g min(1, grad_clip / |g|) where grad_clip is given, then the optimizer's step

    Neither waits for the device, except that torch's GradScaler reads one flag of its own in every fp16 update.

    Args:
        forward: the model, or what torch.compile made of it.
        parameters: those that are trained.
        loss_fn: (logits, labels) -> mean loss of the batch.
        accumulation_steps: k, batches per update.
        grad_clip: largest total norm of the gradients, or None.
        precision: fp32, bf16 or fp16 (with a GradScaler).
        device: where the model is.
        without_sharing: context of all forwards of a step but the last, where processes share gradients.

    Attributes:
        gradient_norm: total norm of the last gradients that were measured, before clipping. None before that.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        parameters: list[nn.Parameter],
        *,
        loss_fn: LossFunction,
        accumulation_steps: int,
        grad_clip: float | None,
        precision: str,
        device: torch.device,
        without_sharing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._without_sharing = without_sharing
        self._forward = forward
        self._parameters = parameters
        self._loss_fn = loss_fn
        self._accumulation_steps = accumulation_steps
        self._grad_clip = grad_clip
        self._autocast = autocast(precision, device)
        # Disabled, it passes loss and optimizer through.
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._scaled = self._scaler.is_enabled()
        self.gradient_norm: Tensor | None = None

    def accumulate(self, batches: Iterator[tuple[Tensor, Tensor]], running: RunningLoss) -> None:
        """Replace the gradients by those of the next `accumulation_steps` batches, and add these to `running`."""
        self.drop_gradients()
        for _ in range(self._accumulation_steps - 1):
            with self._without_sharing():
                self._add_gradients(*next(batches), running)
        self._add_gradients(*next(batches), running)
        self._scaled = self._scaler.is_enabled()

    def _add_gradients(self, x: Tensor, y: Tensor, running: RunningLoss) -> None:
        """Run a batch forward and backward."""
        with self._autocast:
            logits = self._forward(x)
            running.add_predictions(logits, y)
            loss = self._loss_fn(logits, y)
        share = loss if self._accumulation_steps == 1 else loss / self._accumulation_steps
        self._scaler.scale(share).backward()
        running.add(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients to their true size, once for each update, to look at them before it."""
        if self._scaled:
            self._scaler.unscale_(optimizer)
            self._scaled = False

    def measure_gradient_norm(self, optimizer: Optimizer) -> None:
        """Set `gradient_norm`, on the device, before an update that does not clip."""
        self.unscale(optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        # torch has no norm of a sparse tensor. That of its values, each place summed up, is the same.
        norm = get_total_norm(
            [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
        )
        self.gradient_norm = whole(norm)

    def update(self, optimizer: Optimizer) -> None:
        """Clip, where asked, and let the optimizer step. Clipping sets `gradient_norm`, as it was before."""
        if self._grad_clip is not None:
            self.unscale(optimizer)
            self.gradient_norm = whole(clip_grad_norm_(self._parameters, self._grad_clip))
        self._scaler.step(optimizer)
        self._scaler.update()

    def drop_gradients(self) -> None:
        """Set every gradient to None."""
        for parameter in self._parameters:
            parameter.grad = None


def burn_in(
    model: nn.Module,
    step: TrainingStep,
    make_optimizer: MakeOptimizer,
    batches: Batches,
    stopwatch: Stopwatch,
) -> float:
    """Take one full step with a throw-away optimizer, undo it, and return its seconds.

    The costs of a first step are paid here: loading of libraries, choice of kernels, compilation, growth of the
    allocator's pools. Parameters, buffers and torch's random states are put back bit for bit, gradients dropped.

    Args:
        model: the model that `step` trains.
        step: not to be used for the training itself, for its gradient scale may change.
        make_optimizer: parameters -> optimizer.
        batches: the first ones of epoch 0 are used.
        stopwatch: whose device and host clock are used. It takes no lap.

    Memory: one copy of the parameters while the optimizer steps, when the activations are gone already.
    """
    devices = [batches.device] if batches.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), restored(model.named_buffers):
        start_s = stopwatch.now_s()
        step.accumulate(batches.epoch(0), RunningLoss(batches.device))
        with restored(model.named_parameters):
            step.update(make_optimizer(model.parameters()))
        seconds = stopwatch.now_s() - start_s
        step.drop_gradients()
    return seconds


@contextmanager
def restored(named_tensors: Callable[[], Iterable[tuple[str, Tensor]]]) -> Iterator[None]:
    """Put the tensors' values back at the end, in place, and by name: a module may have replaced a buffer."""
    saved = {name: tensor.detach().clone() for name, tensor in named_tensors()}
    yield
    with torch.no_grad():
        for name, tensor in named_tensors():
            tensor.copy_(saved[name])
