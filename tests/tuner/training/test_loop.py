from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusetune.tuner.diagnosis import LayerStatistics
from fusetune.tuner.measure.stopwatch import PeakMemory, Stopwatch
from fusetune.tuner.training import Plan, train
from fusetune.tuner.training.batches import Augment, Batches, ChannelStatistics
from fusetune.tuner.training.evaluation import evaluate
from fusetune.tuner.training.loss import RunningLoss
from fusetune.tuner.training.outcome import EarlyStop, Target, Training, metrics_of, status_of
from fusetune.tuner.training.step import TrainingStep


def _data(samples: int = 64, features: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, features, generator=generator, dtype=dtype)
    return x, (x[:, :3].argmax(1) + (x[:, 3] > 1.2)) % 3


def _batches(batch_size: int = 16, *, seed: int = 0, samples: int = 64) -> Batches:
    return Batches(*_data(samples), batch_size, seed=seed)


def _mlp(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)


def _normalised(seed: int = 0) -> nn.Module:
    """Build a model with buffers and with draws from torch's random state."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def _momentum(parameters: Iterable[nn.Parameter], lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def _train(model: nn.Module, **arguments: object) -> Training:
    defaults: dict = {
        "make_optimizer": _momentum,
        "batches": _batches(),
        "plan": Plan(epochs=2),
        "validation": _batches(64),
    }
    return train(model, **(defaults | arguments))


class FakeClock:
    """Stands still until a model moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Slow(nn.Module):
    """Takes `training_s` of the fake clock for a forward pass in training, `evaluation_s` in evaluation."""

    def __init__(self, clock: FakeClock, training_s: float = 0.25, evaluation_s: float = 64.0) -> None:
        super().__init__()
        self.model = _mlp()
        self.clock, self.training_s, self.evaluation_s = clock, training_s, evaluation_s

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now_s += self.training_s if self.training else self.evaluation_s
        return self.model(x)


# ---- the same work as a loop by hand


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("grad_clip", [None, 0.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_parameters_are_those_of_a_loop_by_hand_bit_for_bit(
    accumulation_steps: int, grad_clip: float | None, label_smoothing: float
) -> None:
    def schedule(step: int) -> float:
        return 1 / (1 + step)

    expected, ours = _normalised(), _normalised()
    torch.manual_seed(7)
    optimizer = _momentum(expected.parameters())
    batches, step = _batches(), 0
    for epoch in range(3):
        stream = batches.epoch(epoch)
        for _ in range(4 // accumulation_steps):
            optimizer.param_groups[0]["lr"] = 0.1 * schedule(step)
            optimizer.zero_grad()
            for x, y in itertools.islice(stream, accumulation_steps):
                loss = functional.cross_entropy(expected(x), y, label_smoothing=label_smoothing)
                (loss / accumulation_steps).backward()
            if grad_clip:
                nn.utils.clip_grad_norm_(expected.parameters(), grad_clip)
            optimizer.step()
            step += 1

    torch.manual_seed(7)
    plan = Plan(
        epochs=3,
        schedule=schedule,
        accumulation_steps=accumulation_steps,
        grad_clip=grad_clip,
        label_smoothing=label_smoothing,
    )
    training = _train(ours, plan=plan)
    assert training.steps == step
    assert _same(expected, ours)


def test_four_accumulated_batches_of_16_are_one_of_64() -> None:
    x, y = _data(128, dtype=torch.float64)
    whole, parts = _mlp(dtype=torch.float64), _mlp(dtype=torch.float64)
    for model, batch_size, accumulation_steps in ((whole, 64, 1), (parts, 16, 4)):
        plan = Plan(epochs=4, accumulation_steps=accumulation_steps)
        training = _train(model, batches=Batches(x, y, batch_size), validation=Batches(x, y, 64), plan=plan)
        assert (training.steps, training.samples) == (8, 512)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_same_seed_same_curve_and_another_seed_another() -> None:
    def curve(seed: int) -> list[dict]:
        torch.manual_seed(1)
        training = _train(_normalised(), batches=_batches(seed=seed))
        return [
            {name: value for name, value in entry.items() if name != "time_s"} for entry in training.curve
        ]

    assert curve(0) == curve(0)
    assert curve(0) != curve(1)


def test_the_curve_is_what_the_models_themselves_say() -> None:
    model = _mlp()
    x, y = _data()
    full = Batches(x, y, 64)
    with torch.no_grad():
        logits = model(x)
    gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), list(model.parameters()))
    training = _train(model, batches=full, validation=full, plan=Plan(epochs=2))
    first, last = training.curve
    # One batch an epoch, so the first epoch's training loss is the untrained model's.
    assert first["train_loss"] == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-6)
    assert first["train_accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-6)
    # What the first step left is what the second step trains on, and what validation sees.
    assert last["train_loss"] == pytest.approx(first["val_loss"], rel=1e-6)
    assert (last["val_loss"], last["val_accuracy"]) == evaluate(model, full)
    assert [entry["epoch"] for entry in training.curve] == [1, 2]
    assert [entry["samples"] for entry in training.curve] == [64, 128]


def test_the_gradient_norm_is_the_one_before_clipping() -> None:
    full = _batches(64)
    norms = [
        _train(_mlp(), batches=full, plan=Plan(epochs=1, grad_clip=clip)).curve[0]["grad_norm"]
        for clip in (None, 1e-3)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert norms[0] > 1e-3


def test_label_smoothing_is_for_training_and_not_for_evaluation() -> None:
    x, y = _data()
    full = Batches(x, y, 64)

    def still(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.0)

    model = _mlp()
    (entry,) = _train(
        model, make_optimizer=still, batches=full, validation=full, plan=Plan(epochs=1, label_smoothing=0.2)
    ).curve
    with torch.no_grad():
        logits = model(x)
    assert entry["train_loss"] == pytest.approx(
        functional.cross_entropy(logits, y, label_smoothing=0.2).item(), rel=1e-6
    )
    assert entry["val_loss"] == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-6)


def test_a_loss_function_of_ones_own_trains_and_evaluates() -> None:
    def margin(logits: Tensor, y: Tensor) -> Tensor:
        return functional.multi_margin_loss(logits, y)

    model = _mlp()
    training = _train(model, loss_fn=margin)
    x, y = _data()
    with torch.no_grad():
        assert training.curve[-1]["val_loss"] == pytest.approx(margin(model(x), y).item(), rel=1e-6)


def test_parameters_that_need_no_gradient_stay_as_they_are() -> None:
    model = _mlp()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    before = model[0].weight.clone()  # type: ignore[index]
    _train(model, make_optimizer=lambda _: _momentum(p for p in model.parameters() if p.requires_grad))
    assert torch.equal(model[0].weight, before)  # type: ignore[index]


# ---- burn-in


class Watching(nn.Module):
    """Replaces a buffer at each training pass, and remembers what it drew from torch's random state."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _normalised()
        self.drawn: list[float] = []
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes = self.passes + 1  # type: ignore[has-type]
            self.drawn.append(torch.rand(()).item())
        return self.model(x)


def test_burn_in_leaves_no_trace_in_buffers_random_state_or_optimizer() -> None:
    model = Watching()
    torch.manual_seed(3)
    made: list[torch.optim.Optimizer] = []

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(parameters, lr=0.01))
        return made[-1]

    training = _train(model, make_optimizer=make)
    assert len(model.drawn) == training.steps + 1
    assert model.drawn[1] == model.drawn[0]
    assert model.passes == training.steps
    assert model.model[1].num_batches_tracked == training.steps  # type: ignore[index]
    assert [float(optimizer.state[model.model[0].weight]["step"]) for optimizer in made] == [  # type: ignore[index]
        1,
        training.steps,
    ]


def test_the_burn_in_is_timed_apart_and_not_a_step_of_the_clock() -> None:
    clock = FakeClock()
    training = _train(Slow(clock, training_s=0.5), stopwatch=Stopwatch(clock=clock))
    assert training.first_step_s == 0.5
    assert training.compile_s is None
    assert training.step_times_s == [0.5] * 8


# ---- the clock


def test_time_s_is_exactly_the_steps_own_time_without_evaluations() -> None:
    clock = FakeClock()
    training = _train(Slow(clock), stopwatch=Stopwatch(clock=clock), plan=Plan(epochs=3), test=_batches(32))
    assert [entry["time_s"] for entry in training.curve] == [1.0, 2.0, 3.0]
    assert training.training_s == 3.0
    # Three validations of one batch, and at the end one test of two batches.
    assert training.evaluation_s == 5 * 64.0


def test_progress_comes_twice_a_second_and_at_each_epochs_end_off_the_clock() -> None:
    clock, calls = FakeClock(), []

    def on_progress(facts: dict) -> None:
        calls.append(facts)
        clock.now_s += 1000.0

    training = _train(Slow(clock), stopwatch=Stopwatch(clock=clock), on_progress=on_progress)
    assert training.training_s == 2.0
    assert [(call["phase"], call["step"]) for call in calls] == [
        ("burn-in", 0),
        ("training", 2),
        ("training", 4),
        ("evaluation", 4),
        ("training", 4),
        ("training", 6),
        ("training", 8),
        ("evaluation", 8),
        ("training", 8),
    ]
    # 16 samples in a quarter of a second.
    assert {call["samples_per_s"] for call in calls[1:]} == {64.0}
    assert {(call["epochs"], call["steps"]) for call in calls} == {(2, 8)}
    assert calls[-1]["val_accuracy"] == training.curve[-1]["val_accuracy"]
    assert calls[1]["val_accuracy"] is None
    assert calls[-1]["loss"] == training.curve[-1]["train_loss"]


def test_progress_does_not_change_what_is_learnt() -> None:
    silent, told = _normalised(), _normalised()
    for model, on_progress in ((silent, None), (told, lambda facts: None)):
        torch.manual_seed(0)
        _train(model, on_progress=on_progress)
    assert _same(silent, told)


def test_the_time_limit_ends_the_training_between_steps() -> None:
    clock = FakeClock()
    model = Slow(clock, training_s=1.0, evaluation_s=0.0)
    training = _train(model, stopwatch=Stopwatch(clock=clock), plan=Plan(epochs=9), time_limit_s=7.0)
    # One second is the burn-in's.
    assert training.steps == 6
    assert [entry["epoch"] for entry in training.curve] == [1]
    assert training.stopped_early == "the time limit of 7 s passed after step 6, in epoch 2 of 9"


@pytest.mark.parametrize(
    ("limit_s", "steps", "forwards"),
    [
        # The first second is the burn-in's. With nothing trained there is nothing to evaluate or to time again.
        (0.5, 0, 1),
        (1.0, 0, 1),
        (1.5, 1, 2),
        (3.5, 3, 4),
    ],
)
def test_a_limit_that_passes_in_the_first_epoch_ends_it_within_one_step(
    limit_s: float, steps: int, forwards: int
) -> None:
    clock = FakeClock()
    model = Slow(clock, training_s=1.0, evaluation_s=100.0)
    training = _train(
        model,
        stopwatch=Stopwatch(clock=clock),
        plan=Plan(epochs=9),
        time_limit_s=limit_s,
        test=_batches(64),
        target=Target("val_accuracy", at_least=0.1),
        retime=True,
    )
    assert (training.steps, training.curve) == (steps, [])
    assert clock() - 1000.0 == forwards < limit_s + 1.5
    assert training.test_loss is None
    reason = f"the time limit of {limit_s:g} s passed after step {steps}, in epoch 1 of 9"
    assert status_of(training, Target("val_accuracy", at_least=0.1)) == ("stopped_early", reason)
    numbers = metrics_of(training)
    assert (numbers["steps"], numbers["epochs"]) == (steps, 0)
    assert numbers.get("step_time_s") == (1.0 if steps else None)


def test_a_training_that_just_ends_in_time_is_not_stopped() -> None:
    clock = FakeClock()
    model = Slow(clock, training_s=1.0, evaluation_s=0.0)
    training = _train(model, stopwatch=Stopwatch(clock=clock), plan=Plan(epochs=1), time_limit_s=4.5)
    assert (training.steps, training.stopped_early) == (4, None)


class KnownPeak(PeakMemory):
    """What a caller began to watch before the training; a watch that the training began would not know this peak."""

    def peak_bytes(self) -> int:
        return 123_456_789_000


def test_peak_memory_is_reported_from_where_the_caller_began() -> None:
    assert _train(_mlp(), peak_memory=KnownPeak()).peak_bytes == 123_456_789_000


# ---- no wait for the device inside a step


class _Scalars(TorchDispatchMode):
    """Notes the operations below autograd that bring a value or a data-dependent shape to the host."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")

    def __init__(self, syncs: _Syncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(args[1])
        ):
            name = "nonzero"  # what indexing by a mask does inside
        self.syncs.note(name, self.WAITING)
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Notes the calls that copy a tensor to the host; between CPU and CPU there is nothing to see below."""

    WAITING = ("cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__")

    def __init__(self, syncs: _Syncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.syncs.note(getattr(func, "__name__", ""), self.WAITING)
        return func(*args, **(kwargs or {}))


class _Syncs:
    """Collects, while `counting`, what would make the host wait for a device."""

    def __init__(self) -> None:
        self.counting = False
        self.operations = 0
        self.waiting: list[str] = []

    def note(self, name: str, waiting: tuple[str, ...]) -> None:
        if self.counting:
            self.operations += 1
            self.waiting += [name] if name in waiting else []


class _Switching(Stopwatch):
    """Counts what runs while the clock runs."""

    def __init__(self, syncs: _Syncs) -> None:
        super().__init__()
        self.syncs = syncs

    def resume(self) -> None:
        super().resume()
        self.syncs.counting = True

    def pause(self) -> None:
        self.syncs.counting = False
        super().pause()


def test_nothing_on_the_clock_waits_for_the_device() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (64, 3, 8, 8), generator=generator).to(torch.uint8)
    batches = Batches(
        x,
        torch.arange(64) % 3,
        8,
        statistics=ChannelStatistics([0.5] * 3, [0.2] * 3),
        augment=Augment(flip=True, translate=2, cutout=3),
    )
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 3)
    )
    plan = Plan(
        epochs=2,
        schedule=lambda step: 1 / (1 + step),
        momentum=lambda step: 0.8,
        accumulation_steps=2,
        grad_clip=1.0,
        label_smoothing=0.1,
        precision="bf16",
    )
    syncs = _Syncs()
    with _Scalars(syncs), _Copies(syncs):
        train(model, _momentum, batches, plan=plan, validation=batches, stopwatch=_Switching(syncs))
    assert syncs.operations > 500
    assert syncs.waiting == []


@pytest.mark.parametrize(
    ("look", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x.detach().cpu(), "cpu"),
        (lambda x: bool(x.sum() > 0), "__bool__"),
    ],
)
def test_the_count_of_waits_sees_one(look: Callable[[Tensor], object], name: str) -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _mlp()

        def forward(self, x: Tensor) -> Tensor:
            look(x)
            return self.model(x)

    syncs = _Syncs()
    with _Scalars(syncs), _Copies(syncs):
        _train(Looking(), stopwatch=_Switching(syncs), plan=Plan(epochs=1))
    assert name in syncs.waiting


# ---- endings


class Exploding(nn.Module):
    """Returns `value` times the logits from the n-th training pass on; the burn-in is the first."""

    def __init__(self, value: float, at_pass: int) -> None:
        super().__init__()
        self.model = _mlp()
        self.value, self.at_pass, self.passes = value, at_pass, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training
        logits = self.model(x)
        return logits * self.value if self.training and self.passes >= self.at_pass else logits


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_ends_the_training_at_that_step(value: float) -> None:
    training = _train(Exploding(value, at_pass=1 + 6), plan=Plan(epochs=9))
    assert training.steps == 6
    assert "at step 6, in epoch 2" in (training.diverged or "")
    last = training.curve[-1]
    assert (last["epoch"], last["step"], last["samples"]) == (2, 6, 96)
    assert (last["train_loss"], last["val_loss"], last["val_accuracy"]) == (None, None, None)
    assert training.test_accuracy is None


def test_an_epoch_whose_loss_is_four_times_the_untrained_models_has_diverged() -> None:
    training = _train(Exploding(1e4, at_pass=1 + 5), plan=Plan(epochs=9))
    assert "above 4 times" in (training.diverged or "")
    assert training.epochs == 2
    assert training.curve[-1]["val_accuracy"] is not None


def test_a_learning_rate_far_too_high_diverges() -> None:
    training = _train(_mlp(), make_optimizer=lambda p: _momentum(p, lr=1e20), plan=Plan(epochs=5))
    assert training.diverged
    assert training.steps < 20


def test_a_last_update_that_ruins_the_model_is_seen_by_the_evaluation() -> None:
    plan = Plan(epochs=1, schedule=lambda step: math.nan if step == 3 else 1.0)
    training = _train(_mlp(), plan=plan)
    assert training.diverged == "the validation loss was not finite at the end of epoch 1"


def test_early_stop_ends_a_training_that_does_not_improve() -> None:
    training = _train(
        _mlp(), plan=Plan(epochs=9, schedule=lambda step: 0.0), early_stop=EarlyStop(patience=2)
    )
    assert training.epochs == 3
    assert "has not improved" in (training.stopped_early or "")


def test_a_patience_that_ends_with_the_last_epoch_stopped_nothing_early() -> None:
    training = _train(
        _mlp(), plan=Plan(epochs=3, schedule=lambda step: 0.0), early_stop=EarlyStop(patience=2)
    )
    assert (training.epochs, training.stopped_early) == (3, None)


# ---- schedules and plateau


def _recorded_rates(record: list, key: str) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Make SGD that notes `key` of its groups at every step."""

    class Recording(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            record.append([group[key] for group in self.param_groups])
            super().step()

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        weights = list(parameters)
        return Recording(
            [{"params": weights[:2], "lr": 0.1}, {"params": weights[2:], "lr": 0.02}], momentum=0.5
        )

    return make


def test_every_group_follows_the_schedule_from_its_own_base_lr_by_updates() -> None:
    record: list = []
    plan = Plan(epochs=2, schedule=lambda step: 1 / (1 + step), accumulation_steps=2)
    training = _train(_mlp(), make_optimizer=_recorded_rates(record, "lr"), plan=plan)
    # The first is the burn-in's, before any schedule.
    assert record[1:] == [[0.1 * (1 / n), 0.02 * (1 / n)] for n in (1, 2, 3, 4)]
    assert [entry["lr"] for entry in training.curve] == [0.1 * (1 / 2), 0.1 * (1 / 4)]


def test_momentum_is_cycled_in_every_group() -> None:
    record: list = []
    plan = Plan(epochs=1, momentum=lambda step: 0.9 - 0.1 * step)
    _train(_mlp(), make_optimizer=_recorded_rates(record, "momentum"), plan=plan)
    assert record[1:] == [[0.9 - 0.1 * step] * 2 for step in range(4)]


def test_cycled_momentum_is_the_first_beta_of_adam() -> None:
    made: list[torch.optim.Optimizer] = []

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(parameters, betas=(0.9, 0.99)))
        return made[-1]

    _train(_mlp(), make_optimizer=make, plan=Plan(epochs=1, momentum=lambda step: 0.5 + step))
    assert made[-1].param_groups[0]["betas"] == (3.5, 0.99)


def test_momentum_cannot_be_cycled_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="Adagrad has neither"):
        _train(_mlp(), make_optimizer=torch.optim.Adagrad, plan=Plan(epochs=1, momentum=lambda step: 0.9))


@pytest.mark.parametrize(("metric", "mode"), [("val_loss", "min"), ("val_accuracy", "max")])
def test_plateau_lowers_the_rate_as_torchs_own_class_does(metric: str, mode: str) -> None:
    options: dict[str, Any] = {
        "mode": mode,
        "factor": 0.3,
        "patience": 1,
        "threshold": 0.3,
        "cooldown": 1,
        "min_lr": 1e-4,
    }
    training = _train(_mlp(), plan=Plan(epochs=15, plateau=options, plateau_metric=metric))
    optimizer = _momentum([torch.zeros(1, requires_grad=True)])  # type: ignore[list-item]
    scheduler = ReduceLROnPlateau(optimizer, **options)
    expected = []
    for entry in training.curve:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(entry[metric])
    assert [entry["lr"] for entry in training.curve] == expected
    assert len(set(expected)) > 2


# ---- the test set


def test_the_test_set_is_evaluated_once_at_the_end() -> None:
    clock, model = FakeClock(), None
    model = Slow(clock, training_s=0.0, evaluation_s=1.0)
    test = _batches(64, samples=64)
    training = _train(model, stopwatch=Stopwatch(clock=clock), plan=Plan(epochs=3), test=test)
    assert training.evaluation_s == 3 + 1
    assert not any("test_loss" in entry for entry in training.curve)
    assert (training.test_loss, training.test_accuracy) == evaluate(model, test)


def test_held_out_sets_may_be_smaller_than_their_batch() -> None:
    model = _mlp()
    x, y = _data()
    small = Batches(x[:10], y[:10], 64)
    training = _train(model, validation=small, test=small)
    assert (training.test_loss, training.test_accuracy) == evaluate(model, small)
    assert training.curve[-1]["val_loss"] == training.test_loss


def test_a_target_on_the_test_set_has_it_evaluated_after_each_epoch() -> None:
    clock = FakeClock()
    training = _train(
        Slow(clock, training_s=0.0, evaluation_s=1.0),
        stopwatch=Stopwatch(clock=clock),
        plan=Plan(epochs=3),
        test=_batches(64),
        target=Target("test_accuracy", at_least=0.9),
    )
    assert training.evaluation_s == 3 + 3
    assert training.test_accuracy == training.curve[-1]["test_accuracy"]


# ---- precision and compilation


def test_auto_precision_on_a_cpu_is_fp32() -> None:
    models = [_mlp(), _mlp(), _mlp()]
    for model, precision in zip(models, ("auto", "fp32", "bf16"), strict=True):
        _train(model, plan=Plan(epochs=1, precision=precision))
    assert _same(models[0], models[1])
    assert not _same(models[0], models[2])


def test_bf16_is_torchs_autocast() -> None:
    full = _batches(64)
    expected, ours = _mlp(), _mlp()
    optimizer = _momentum(expected.parameters())
    ((x, y),) = full.epoch(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(expected(x), y)
    loss.backward()
    optimizer.step()
    _train(ours, batches=full, plan=Plan(epochs=1, precision="bf16"))
    assert _same(expected, ours)


def test_compile_trains_through_torch_compile_and_evaluates_without(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, modes = FakeClock(), []  # type: ignore[var-annotated]

    def fake_compile(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def compiled(x: Tensor) -> Tensor:
            clock.now_s += 0.0 if modes else 30.0
            modes.append(model.training)
            return model(x)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    plain, compiled = _mlp(), _mlp()
    _train(plain)
    training = _train(compiled, plan=Plan(epochs=2, compile=True), stopwatch=Stopwatch(clock=clock))
    assert modes == [True] * (2 + training.steps)
    assert (training.compile_s, training.first_step_s, training.training_s) == (30.0, 0.0, 0.0)
    assert _same(plain, compiled)


@pytest.mark.slow
def test_a_compiled_model_learns_what_the_plain_one_learns() -> None:
    plain, compiled = _mlp(), _mlp()
    expected = _train(plain).curve
    training = _train(compiled, plan=Plan(epochs=2, compile=True))
    for name in ("train_loss", "val_loss"):
        assert training.curve[-1][name] == pytest.approx(expected[-1][name], rel=1e-4)
    assert training.compile_s > training.first_step_s


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs: 0 must be 1 or more"),
        ({"accumulation_steps": 0}, "accumulation_steps: 0"),
        ({"label_smoothing": 1.0}, "label_smoothing: 1.0"),
        ({"grad_clip": 0.0}, "grad_clip: 0.0"),
        ({"grad_clip": math.nan}, "grad_clip: nan"),
        ({"plateau_metric": "loss"}, "unknown 'loss'"),
        ({"plateau": {"mode": "min"}, "plateau_metric": "val_accuracy"}, "needs the mode 'max'"),
    ],
)
def test_a_plan_out_of_range_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**({"epochs": 1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batches": _batches(48), "plan": Plan(1, accumulation_steps=2)},
            "48 x 2 = 96 samples .* the 64 there are",
        ),
        ({"batches": _batches(65)}, "65 x 1 = 65 samples .* the 64 there are"),
        ({"plan": Plan(1, precision="fp16")}, "fp16 needs a CUDA device"),
        ({"plan": Plan(1, precision="fp8")}, "unknown 'fp8'; known: auto, fp32, bf16, fp16"),
        ({"plan": Plan(1, label_smoothing=0.1), "loss_fn": functional.cross_entropy}, "label_smoothing: 0.1"),
        ({"target": Target("test_accuracy", at_least=0.5)}, "there is no test set"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_training(arguments: dict, message: str) -> None:
    model = _mlp()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        _train(model, **arguments)
    assert _same(model, before)


# ---- on a GPU


class _NoSyncStopwatch(Stopwatch):
    """Has CUDA raise at any wait while the clock runs."""

    def resume(self) -> None:
        super().resume()
        torch.cuda.set_sync_debug_mode("error")

    def pause(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        super().pause()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda_no_step_waits_and_the_model_learns(precision: str) -> None:
    x, y = _data(512)
    batches = Batches(x, y, 32, device="cuda")
    plan = Plan(epochs=5, grad_clip=1.0, precision=precision)
    training = train(
        _mlp(), _momentum, batches, plan=plan, validation=batches, stopwatch=_NoSyncStopwatch("cuda")
    )
    assert training.curve[-1]["val_accuracy"] > 0.8
    assert min(training.step_times_s) > 0


@pytest.mark.gpu
def test_on_cuda_a_loss_that_is_not_finite_ends_the_training_within_the_epoch() -> None:
    x, y = _data(6400)
    batches = Batches(x, y, 16, device="cuda")
    training = train(
        Exploding(math.nan, at_pass=10), _momentum, batches, plan=Plan(epochs=2), validation=batches
    )
    assert training.diverged
    assert training.steps < len(batches)


def test_a_sparse_gradient_has_the_norm_of_the_dense_one() -> None:
    norms = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = nn.EmbeddingBag(10, 4, sparse=sparse, mode="sum")
        step = TrainingStep(
            embedding,
            list(embedding.parameters()),
            loss_fn=nn.functional.cross_entropy,
            accumulation_steps=1,
            grad_clip=None,
            precision="fp32",
            device=torch.device("cpu"),
        )
        # A word that comes twice has two values in the sparse gradient, which are one in the dense.
        batch = (torch.tensor([[1, 1, 2], [3, 2, 2]]), torch.tensor([0, 3]))
        step.accumulate(iter([batch]), RunningLoss(torch.device("cpu")))
        step.measure_gradient_norm(torch.optim.SGD(embedding.parameters(), lr=0.1))
        assert step.gradient_norm is not None
        norms.append(step.gradient_norm.item())
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_a_sample_that_is_not_finite_is_refused_before_anything_is_trained(split: str) -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    bad = x.clone()
    bad[17, 1], bad[30, 0] = math.nan, math.inf
    parts = {
        name: Batches(bad if name == split else x, torch.arange(40) % 2, 8)
        for name in ("training", "validation", "test")
    }
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=rf"{split} data: sample 17 .*2 of 40"):
        train(
            model,
            _momentum,
            parts["training"],
            plan=Plan(epochs=1),
            validation=parts["validation"],
            test=parts["test"],
        )
    assert torch.equal(model.weight, before)


def test_one_easy_first_sample_does_not_make_a_training_diverge() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(32, 1)
    y = torch.tensor([0, 1]).repeat(32)
    model = nn.Linear(2, 2)
    with torch.no_grad():
        # Half of the samples are right with a loss of 0.002, half are wrong with 6: whichever comes first.
        model.weight.copy_(torch.tensor([[6.0, 6.0], [0.0, 0.0]]))
        model.bias.zero_()
    for seed in range(4):
        training = train(
            copy.deepcopy(model),
            lambda p: torch.optim.SGD(p, lr=1e-4),
            Batches(x, y, 1, seed=seed),
            plan=Plan(epochs=1),
            validation=Batches(x, y, 8),
            observer=LayerStatistics,
        )
        assert training.diverged is None
