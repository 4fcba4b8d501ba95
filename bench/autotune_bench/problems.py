"""All problems of the benchmark, by name."""

from __future__ import annotations

from fusetune.bench.autotune_bench.elementwise import (
    add,
    column_sums,
    dropout,
    embedding,
    row_sums,
    transpose,
)
from fusetune.bench.autotune_bench.matrices import attention, matmul
from fusetune.bench.autotune_bench.own_kernels import shipped
from fusetune.bench.autotune_bench.problem import Problem
from fusetune.bench.autotune_bench.rows import cross_entropy, layer_norm, rms_norm, softmax

_ALL = (
    *(shipped("adam", n) for n in (65_536, 1_048_576)),
    *(shipped("momentum", n) for n in (262_144, 2_097_152)),
    *(shipped(name, n) for name in ("gelu", "tanh_backward", "swiglu_backward") for n in (65_536, 1_048_576)),
    *(add(n) for n in (4_096, 100_000, 1_000_000)),
    *(dropout(n) for n in (4_096, 50_000, 200_000)),
    *(transpose(*shape) for shape in ((128, 128), (256, 512), (700, 500))),
    *(row_sums(*shape) for shape in ((64, 512), (256, 1024), (1008, 304))),
    *(column_sums(*shape) for shape in ((64, 512), (256, 1024), (1008, 304))),
    *(embedding(*shape) for shape in ((128, 64), (512, 256), (1000, 384))),
    *(softmax(*shape) for shape in ((64, 512), (128, 1008), (256, 1024))),
    *(layer_norm(*shape) for shape in ((64, 512), (128, 768), (256, 1024))),
    *(rms_norm(*shape) for shape in ((64, 512), (128, 768), (256, 1024))),
    *(cross_entropy(*shape) for shape in ((64, 1008), (128, 2048), (64, 8192))),
    *(attention(*shape) for shape in ((2, 128, 32), (2, 256, 32), (4, 208, 32))),
    *(matmul(*shape) for shape in ((64, 64, 64), (128, 128, 128), (96, 192, 160))),
)
PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in _ALL}
