"""The memory of a rank, against shapes that are added up by hand and against real groups of gloo."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from fusetune.errors import StateError
from fusetune.tuner.memory import StepWork, peak_tensor_bytes, trace_memory
from fusetune.tuner.training import Batches, Plan

WIDTH, CLASSES, SAMPLES = 256, 10, 64
# Bytes of sums of loss and hits, of which a trace has others.
SCALARS = 64
# How often a real group trains. In the quickest of these, no rank waits for another.
TIMES = 8


def make_model() -> nn.Sequential:
    """Make three blocks, whose parameters differ in size, with buffers."""
    first = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.BatchNorm1d(4 * WIDTH), nn.ReLU())
    return nn.Sequential(first, nn.Linear(4 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES))


def make_optimizer(parameters: object) -> torch.optim.Optimizer:
    """Make one with two numbers of state for each parameter."""
    return torch.optim.AdamW(parameters, lr=1e-3)  # type: ignore[arg-type]


def make_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch that is one piece of the data, as `peak_tensor_bytes` takes it."""
    return torch.zeros(size, WIDTH), torch.zeros(size, dtype=torch.int64)


WORK = StepWork(make_model, make_optimizer, make_batch, nn.functional.cross_entropy, burn_in=False)


def sharded_bytes(ranks: int) -> int:
    """Return the bytes of the first rank's parameters: rows, rounded up, of each."""
    return sum(
        4 * math.ceil(len(parameter) / ranks) * math.prod(parameter.shape[1:])
        for parameter in make_model().parameters()
    )


def test_a_rank_of_fsdp_holds_its_share_of_parameters_and_state() -> None:
    buffers = sum(buffer.nbytes for buffer in make_model().buffers())
    share = sharded_bytes(8)
    memory = trace_memory(dataclasses.replace(WORK, devices=8, parallel="fsdp"), compare=False)
    assert memory.method == "traced", memory.note
    for moment in memory.moments:
        if moment.phase == "evaluation":
            assert moment.parts["parameters"].at(8) == share + buffers
            # AdamW counts the steps of each parameter in one number more.
            steps = 4 * sum(1 for _ in make_model().parameters())
            assert moment.parts["optimizer state"].at(8) == 2 * share + steps
            assert moment.parts["gradients"].at(8) == share


def test_a_rank_of_ddp_holds_all_of_it_and_keeps_its_buckets_of_gradients() -> None:
    alone = trace_memory(WORK, compare=False)
    spread = trace_memory(dataclasses.replace(WORK, devices=8), compare=False)
    buckets = sum(parameter.nbytes for parameter in make_model().parameters())
    for size in (1, 64, 1024):  # any: the buckets do not depend on it
        phases = alone.at(size).phases
        more = {phase: held - phases[phase] for phase, held in spread.at(size).phases.items()}
        assert more["forward"] == buckets, size
        assert more["optimizer"] == more["evaluation"] == 0, size


def test_a_rank_of_fsdp_holds_all_parameters_before_it_shards_them() -> None:
    memory = trace_memory(dataclasses.replace(WORK, devices=64, parallel="fsdp"), compare=False)
    whole = sum(tensor.nbytes for tensor in (*make_model().parameters(), *make_model().buffers()))
    (sharding,) = {
        moment.parts["parameters"].at(8) for moment in memory.moments if moment.phase == "sharding"
    }
    assert sharding == whole


def test_a_device_with_its_own_memory_holds_one_block_whole_at_a_time() -> None:
    work = dataclasses.replace(WORK, devices=8, parallel="fsdp", own_memory=True)
    memory = trace_memory(work, compare=False)
    assert memory.method == "traced", memory.note
    held = split = 0
    first, *others = make_model()
    assert isinstance(first, nn.Sequential)
    for block in (*first, *others):
        whole = [*block.parameters(), *block.buffers()]
        shares = sum(4 * math.ceil(len(p) / 8) * math.prod(p.shape[1:]) for p in block.parameters())
        # Its parameters are whole until each has its share.
        held = max(held, split + sum(tensor.nbytes for tensor in whole) + shares)
        split += shares + sum(buffer.nbytes for buffer in block.buffers())
    sharding = max(
        sum(part.at(8) for part in moment.parts.values())
        for moment in memory.moments
        if moment.phase == "sharding"
    )
    assert held / 2 < sharding <= held
    assert sharding < sum(tensor.nbytes for tensor in make_model().parameters())
    # All else is as where the model is built on the device.
    built_there = trace_memory(dataclasses.replace(work, own_memory=False), compare=False)
    for size in (1, 64):
        mine, other = memory.at(size).phases, built_there.at(size).phases
        assert {k: v for k, v in mine.items() if k != "sharding"} == {
            k: v for k, v in other.items() if k != "sharding"
        }
        assert mine["sharding"] < other["sharding"]


def test_a_process_of_a_group_is_no_rank_of_another(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        with pytest.raises(StateError, match="cannot pretend"):
            trace_memory(dataclasses.replace(WORK, devices=2), compare=False)
    finally:
        dist.destroy_process_group()


def measured_rank(rank: int, ranks: int, directory: str) -> None:
    """Train as one rank of a real group, in both ways, and write down what its tensors held at most."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/group", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    peaks: dict[str, list[int]] = {"fsdp": [], "ddp": []}
    for _ in range(TIMES):
        sharded = make_model()
        for part in (*list(sharded[0].children())[:2], sharded[1], sharded[3], sharded):
            fully_shard(part, mesh=mesh)
        copied = nn.parallel.DistributedDataParallel(make_model(), gradient_as_bucket_view=True)
        for parallel, model in (("fsdp", sharded), ("ddp", copied)):
            data = Batches(*make_batch(SAMPLES), SAMPLES, memory_format=torch.contiguous_format)
            peaks[parallel].append(peak_tensor_bytes(model, make_optimizer, data, plan=Plan(epochs=1)))
    Path(directory, f"{rank}").write_text(json.dumps(peaks))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_a_real_group_hold_what_is_predicted(ranks: int, tmp_path: Path) -> None:
    spawn(measured_rank, (ranks, str(tmp_path)), nprocs=ranks)
    for parallel in ("ddp", "fsdp"):
        memory = trace_memory(dataclasses.replace(WORK, devices=ranks, parallel=parallel), compare=False)
        peaks = json.loads(Path(tmp_path, "0").read_text())[parallel]
        # `peak_tensor_bytes` also counts the data. Its batches keep the last one and the order of all samples.
        data = batch = sum(tensor.nbytes for tensor in make_batch(SAMPLES))
        phases = memory.at(SAMPLES).phases
        expected = max(phases[phase] for phase in ("forward", "backward", "optimizer"))
        # A rank that waits for a slower one holds what it sends for longer. That is no part of a prediction.
        assert min(peaks) - expected - data <= batch + 8 * SAMPLES, (parallel, peaks, phases)
        assert min(peaks) - expected - data >= -SCALARS, (parallel, peaks, phases)
