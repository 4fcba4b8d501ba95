"""Anything at all, given to the readers of a spec, of `--set`, of a run's directory and of an npz file.

Each ends in a value or in one of the errors that the command line turns into a sentence and exit code 2. What was found
stands as an example. The slow variants look longer.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.spec.design import lay_out
from fusetune.bench.spec.load import load_spec
from fusetune.bench.spec.spec import Spec
from fusetune.bench.spec.yaml import MAX_LEVELS, parse_value, parse_yaml
from fusetune.bench.workloads.datasets import DataRequest, load, locate
from tests.bench.spec_text import SPEC

QUICK, LONG = 60, 600
ANY_TEXT = st.text(st.characters(codec=None))
# Pieces of YAML, put together without regard to its grammar.
PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            ": ",
            "\n",
            "\n  ",
            "- ",
            "? ",
            ", ",
            "[",
            "]",
            "{",
            "}",
            "'",
            '"',
            "|",
            ">",
            "#",
            "%",
            "@",
            "`",
        ),
        *(
            "&a ",
            "*a",
            "<<: ",
            "<<: *a",
            "!!",
            "!!bool ",
            "!!int ",
            "!!float ",
            "!!null ",
            "!!timestamp ",
            "!!binary ",
        ),
        *(
            "!!python/name:os.system ",
            "!!set ",
            "!!omap ",
            "!!str ",
            "!x ",
            "! ",
            "---\n",
            "...\n",
            "~",
            "null",
            "true",
        ),
        *(
            "1",
            "-1",
            "0x1",
            "0o7",
            "1e400",
            "1e-3",
            ".inf",
            ".nan",
            "1_0",
            "12:30",
            "=",
            "\t",
            "\\ud800",
            "\ufeff",
            "\0",
        ),
        *(
            "name: ",
            "data: ",
            "model: ",
            "train: ",
            "factors: ",
            "design: ",
            "seeds: ",
            "profiles: ",
            "limits: ",
        ),
        "9" * 50,
        "9" * 5000,
        "[" * 300,
    ]
)
YAML = st.lists(PIECES | ANY_TEXT, max_size=25).map("".join)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(
        ["", "adam", "auto", "digits", "x", "a.b", "m:f", "1h", "8GiB", "\ud800", "~a/b", "a" * 300]
    )
    | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "factory", "low", "high", "log", "random", "search", "budget_epochs", "metric"]
            )
            | ANY_TEXT,
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *(
            "name",
            "data",
            "model",
            "train",
            "factors",
            "configurations",
            "design",
            "seeds",
            "target",
            "limits",
        ),
        *(
            "profiles",
            "early_stop",
            "threads",
            "device",
            "train.optimizer",
            "train.schedule",
            "train.base_lr",
        ),
        *(
            "train.betas",
            "train.batch_size",
            "data.path",
            "data.name",
            "data.augment",
            "model.factory",
            "model.width",
        ),
        *(
            "factors.betas.0",
            "factors.batch_size",
            "factors.model.q",
            "factors.schedule.pct_start",
            "factors.base_lr",
        ),
        *(
            "factors.optimizer",
            "factors.data.seed",
            "profiles.cpu",
            "limits.memory",
            "limits.trial_time",
            "design.search",
        ),
    ]
)


BUDGETS = pytest.mark.parametrize("tries", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])


def searched(property_: Callable[..., None], tries: int, *strategies: Any, examples: Any = ()) -> None:
    """Look for what breaks a property, `tries` times, the examples first."""
    test = given(*strategies)(property_)
    for each in examples:
        test = example(*each)(test)
    settings(max_examples=tries, deadline=None, suppress_health_check=list(HealthCheck), database=None)(
        test
    )()


def answer(ask: Callable[[], Any]) -> Any:
    """What comes back, or the error that the command line knows how to show."""
    try:
        return ask()
    except (InputError, RunDirectoryError) as error:
        return error


def depth(value: Any) -> int:
    """How deep plain data are nested."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inside), default=0)


@BUDGETS
def test_any_text_is_read_or_refused_as_yaml(tries: int) -> None:
    def read(text: str) -> None:
        for reader in (parse_yaml, parse_value):
            value: Any = answer(lambda reader=reader: reader(text, "a.yaml"))  # type: ignore[misc]
            if isinstance(value, InputError):
                assert str(value).startswith("a.yaml")
                continue
            data = value.data if reader is parse_yaml else value
            json.dumps(data, allow_nan=False).encode()
            assert depth(data) <= MAX_LEVELS

    found = [
        "? !!python/name:os.system x\n: 1",
        "!!bool maybe",
        "!!int ''",
        "!!float ''",
        "!!timestamp x",
        "!!int x: 1",
        "9" * 5000,
        "[" * 300 + "]" * 300,
        "[" * 5000,
        '"\\ud800"',
        "a: &a\n  <<: *a",
        "- &a [*a]",
        "a: !!binary '%'",
        "\ufeffa: 1",
    ]
    searched(read, tries, YAML, examples=[(text,) for text in found])


@BUDGETS
def test_any_override_of_a_spec_is_taken_or_refused(tries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(SPEC)

        def take(overrides: list[str]) -> None:
            loaded = answer(lambda: load_spec(path, overrides=overrides).spec)
            laid = answer(lambda: lay_out(loaded).trials) if isinstance(loaded, Spec) else loaded
            if isinstance(laid, InputError):
                assert str(laid)
                return
            spec, trials = loaded, laid
            assert len({trial.id for trial in trials}) == len(trials)
            json.dumps(spec.resolved(), allow_nan=False).encode()
            for trial in trials:
                trial.id.encode()

        value = PLAIN.map(json.dumps) | YAML
        override = st.tuples(KEYS, value).map("=".join) | ANY_TEXT
        found = [
            ["factors={betas.0: [0.1, 0.2]}"],
            [f"train.base_lr=1{'0' * 400}"],
            ["limits.memory=9000000TiB"],
            ["train.epochs=!!bool maybe"],
            [f"train.epochs={'1' * 5000}"],
            ["profiles=[1]"],
            ["design={search: {budget_epochs: 3}}", "factors.base_lr={low: 1, high: 1000000000000000000000}"],
            ["design={search: 1}"],
            ["configurations=[{}]", "factors={}"],
            ["configurations=[{schedule: {1: 2}}]", "factors={}"],
        ]
        searched(
            take, tries, st.lists(override, min_size=1, max_size=3), examples=[(each,) for each in found]
        )


@BUDGETS
def test_any_bytes_in_a_runs_directory_are_read_or_refused(tries: int) -> None:
    with tempfile.TemporaryDirectory() as results:
        with RunDirectory.create(Path(results), "demo", RunInfo()) as directory:
            pass

        def read(run: bytes, records: bytes) -> None:
            (directory.path / "run.json").write_bytes(run)
            (directory.path / "records.jsonl").write_bytes(records)
            found = answer(lambda: RunDirectory.open(directory.path).records())
            assert isinstance(found, tuple) or str(found).startswith(str(directory.path))

        known = {"schema_version": 1, "trial": "a", "factors": {}, "seed": 0, "status": "ok"}
        fields = st.dictionaries(
            st.sampled_from([*known, "values", "samples", "curve", "provenance", "spec"]), PLAIN
        )
        objects = fields.map(lambda some: json.dumps({**known, **some}).encode()) | PLAIN.map(
            lambda value: json.dumps(value).encode()
        )
        content = st.binary(max_size=60) | objects
        good = json.dumps(known).encode()
        found = [
            (good, b"[]\n"),
            (good, b'{"trial": 1}\n'),
            (b'{"schema_version": true}', b""),
            (b"[" * 100_000, b"[" * 100_000 + b"\n"),
            (b"\xff\xfe", b"\xff\n"),
            (b"1" * 5000, b"1" * 5000 + b"\n"),
            (b'{"schema_version": 1, "options": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}", b""),
        ]
        lines = st.lists(content, max_size=3).map(b"\n".join)
        searched(read, tries, content, lines, examples=found)


def npz(arrays: dict[str, np.ndarray], *, pickled: bool = False) -> bytes:
    """The bytes of an npz file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=pickled)
    return stream.getvalue()


@BUDGETS
def test_any_npz_file_is_read_or_refused(tries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"

        def read(content: bytes) -> None:
            path.write_bytes(content)
            arrays = answer(lambda: load(locate(DataRequest("npz", path=str(path)))))
            if isinstance(arrays, InputError):
                assert str(arrays).startswith("data.path")
                return
            assert np.isfinite(arrays.x_train).all()
            assert arrays.num_classes >= 2

        good = {"x_train": np.zeros((4, 2), np.uint8), "y_train": np.array([0, 1, 0, 1])}
        good |= {"x_test": good["x_train"], "y_test": good["y_train"]}
        whole = npz(good)
        kinds = st.sampled_from(
            ["u1", "i8", "f4", "f8", "c8", "?", "U3", "S2", "M8[s]", "u8", "f2", ">i4", "V3"]
        )
        shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
        odd = st.tuples(kinds, shapes).map(lambda each: np.zeros(each[1], each[0]))
        files = st.dictionaries(st.sampled_from([*good, "more"]), odd).map(lambda some: npz({**good, **some}))
        cuts = st.integers(0, len(whole)).map(lambda length: whole[:length])
        flips = st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)).map(
            lambda flip: whole[: flip[0]] + bytes([whole[flip[0]] ^ flip[1]]) + whole[flip[0] + 1 :]
        )
        objects = npz({**good, "y_train": np.array([None, {}], dtype=object)}, pickled=True)
        found = [(b"",), (whole,), (objects,), (npz({}),), (whole[:-30],), (b"PK\x05\x06" + bytes(18),)]
        searched(read, tries, files | cuts | flips | st.binary(max_size=80), examples=found)
