"""A person's own code runs in workers alone: whatever it does, the run says what happened and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.workers.test_executors import is_alive, wait_until
from tests.end_to_end.conftest import Done

Bench = Callable[..., Done]
pytestmark = pytest.mark.slow

SPEC = """\
name: own
data:  {factory: "my_data:make", validation: 40}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: momentum, base_lr: 0.1, batch_size: 20, epochs: 2}
threads: 1
"""
DATA = """\
import numpy as np

def make():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = (rng.normal(size=(200, 4)) + y[:, None]).astype("float32")
    return {"x_train": x[:160], "y_train": y[:160], "x_test": x[160:], "y_test": y[160:]}
"""


def write(folder: Path, top: str = "", spec: str = SPEC) -> None:
    """Write the spec, and the module that its factory names, which begins with `top`."""
    (folder / "own.yaml").write_text(spec)
    (folder / "my_data.py").write_text(top + DATA)


@pytest.mark.parametrize("command", ["run", "lr-range", "batch-size"])
def test_a_factory_that_leaves_is_no_success(bench: Bench, tmp_path: Path, command: str) -> None:
    write(tmp_path, "import os\nos._exit(0)\n")
    limit = ["--memory", "1GiB"] if command == "batch-size" else []
    done = bench(command, "own.yaml", *limit)
    said = " ".join((done.out + done.err).split())
    assert done.code in (1, 2), said
    assert "worker exited with code 0" in said
    assert "Traceback" not in said


def test_a_factory_that_is_not_there_is_bad_input_and_leaves_no_run(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, spec=SPEC.replace("my_data:make", "my_data:mak"))
    done = bench("run", "own.yaml")
    assert done.code == 2
    assert done.err.count("own.yaml") == 1
    assert "data.factory: in module 'my_data': unknown 'mak'; known: make. Did you mean 'make'?" in done.err
    assert not list(tmp_path.glob("results/*/*"))


def test_what_a_factory_prints_is_in_the_log_alone(bench: Bench, tmp_path: Path) -> None:
    write(
        tmp_path,
        "import os\nprint('by Python')\nos.write(1, b'by descriptor 1\\n')\nos.write(2, b'by 2\\n')\n",
    )
    done = bench("run", "own.yaml")
    assert done.code == 0, done.err
    log = (done.run_directory / "worker-0.log").read_text()
    for text in ("by Python", "by descriptor 1", "by 2"):
        assert text in log
        assert text not in done.out + done.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has processes that adopt others")
def test_what_a_factory_starts_ends_with_the_run(bench: Bench, tmp_path: Path) -> None:
    write(
        tmp_path,
        "import os, subprocess, sys, time\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "open('started', 'a').write(f'{started.pid}\\n')\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        open('started', 'a').write(f'{os.getpid()}\\n')\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n",
    )
    done = bench("run", "own.yaml")
    assert done.code == 0, done.err
    started = [int(line) for line in (tmp_path / "started").read_text().split()]
    assert len(started) >= 2
    assert wait_until(lambda: not any(map(is_alive, started)))


def test_a_factory_that_forks_and_returns_makes_one_run(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, "import os\nos.fork()\n")
    done = bench("run", "own.yaml")
    assert done.code == 0, done.err
    assert len(done.records) == 1


def test_a_limit_that_passes_in_the_first_epoch_stops_it_early(bench: Bench, tmp_path: Path) -> None:
    write(
        tmp_path,
        spec=SPEC.replace("model: {name: mlp, width: 8, depth: 1}", "model: {factory: 'my_net:Slow'}"),
    )
    (tmp_path / "my_net.py").write_text(
        "import time, torch\n"
        "class Slow(torch.nn.Linear):\n"
        "    def __init__(self, input_shape, num_classes):\n"
        "        super().__init__(input_shape[0], num_classes)\n"
        "    def forward(self, x):\n"
        "        time.sleep(0.4)\n"
        "        return super().forward(x)\n"
    )
    done = bench("run", "own.yaml", "--set", "limits.trial_time=1s")
    (record,) = done.records
    assert record["status"] == "stopped_early", record["reason"]
    assert record["reason"].startswith("the time limit of 1 s passed after step ")
    assert record["reason"].endswith("in epoch 1 of 2")
    assert record["curve"] == []
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert bench("report", str(done.run_directory)).code == 0


def test_a_file_that_claims_16_tib_is_bad_input(bench: Bench, tmp_path: Path) -> None:
    write(tmp_path, spec=SPEC.replace('factory: "my_data:make"', "name: npz, path: big.npz"))
    make = "import my_data, numpy; numpy.savez('big.npz', **my_data.make())"
    subprocess.run(
        [sys.executable, "-c", make], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    content = (tmp_path / "big.npz").read_bytes()
    claimed = content.replace(b"(160, 4), }        ", b"(160, 27487790694), }", 1)
    assert claimed != content
    (tmp_path / "big.npz").write_bytes(claimed[: len(content)])
    done = bench("run", "own.yaml")
    assert done.code == 2, done.out + done.err
    assert "big.npz: cannot be read; " in " ".join(done.err.split())
