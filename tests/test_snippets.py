"""Every fenced block of README and docs does what it says when it is pasted.

The rules, by language:

- `python` runs as it stands, each block by itself, in the page's own directory.
- A block whose first line is `# name.py` or `# name.yaml` is that file, for the blocks after it.
- `yaml` with kernels is a spec of kernels, with data, model and train a spec. Any other replaces keys of the last such
  spec of its page, or of the README's without its factors. Each is loaded and expanded.
- `sh`: lines of INSTALLS are left out. `python name.py` runs that file in a process of its own.
- A `python -m bench` command runs in this process up to its first worker and from the report on: options, spec, data,
  plan, directory, report and exit code are the real ones, nothing is trained.
  Each run is given the id that the page's later commands name.
- `bench kernels` finds and describes kernels here, and its rows have made-up times. `bench autotune` does so too, and
  its defaults stay.
- docs/own-data.md is trained for real besides, for its files meet the workers only there.
- `text` is output, `csv` a file's content. `bash` and `yml` are files of docs/ci.md, which tests/bench/init runs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch._inductor import config as inductor_config

from fusetune.bench.autotune.tuning import Tuning
from fusetune.bench.cli import program as cli
from fusetune.bench.kernels.case import Case, KernelSource
from fusetune.bench.kernels.description import KernelDescription, read_description
from fusetune.bench.kernels.inspection import described
from fusetune.bench.kernels.measurement import Listener
from fusetune.bench.kernels.plan import Planned
from fusetune.bench.kernels.row import Row, SideResult
from fusetune.bench.kernels.spec import LoadedKernels, load_kernels
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.spec.design import check_factors, expand
from fusetune.bench.spec.spec import Spec
from fusetune.bench.workloads import cifar10
from fusetune.bench.workloads.download import DownloadError

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "kernels/cpu/README.md")
PAGES = [ROOT / name for name in NAMES if (ROOT / name).exists()] + sorted((ROOT / "docs").glob("*.md"))
# What makes an environment or runs all tests: commands that the test's own environment was made by.
INSTALLS = ("python3 -m venv ", "pip install ", "python -m pytest")
FILE = re.compile(r"# ([\w.-]+\.(?:py|yaml))\n")
RUN = re.compile(r"results/([\w.-]+)/(\d{8}-\d{6}-[0-9a-f]{4})")


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page, language and text, in order."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if not languages or language in languages]


def with_blocks(*languages: str) -> Any:
    pages = [page for page in PAGES if blocks(page, *languages)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory as a person has it: the shipped specs and runs, an earlier run, no data, no network."""

    def no_network(**_options: Any) -> None:
        raise DownloadError("", "no network", "")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    monkeypatch.setattr(cifar10, "obtain_cifar10", no_network)
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    shutil.copytree(ROOT / "results" / "examples", tmp_path / "results" / "examples")
    (tmp_path / "results" / "earlier").symlink_to(ROOT / "tests" / "bench" / "old_runs" / "trainings")
    before = set(sys.modules)
    with inductor_config.patch(cpu_backend=inductor_config.cpu_backend):  # what a page sets is put back
        yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def save(text: str) -> bool:
    """Write a block that is a file. Whether it is one."""
    named = FILE.match(text)
    if named:
        Path(named[1]).write_text(text)
    return named is not None


def paste(language: str, text: str) -> None:
    """Paste a block of Python, or write its file."""
    if language in ("python", "yaml") and save(text):
        return
    if language == "python":
        exec(compile(text, "<stdin>", "exec"), {"__name__": "__main__"})


def test_every_block_says_its_language() -> None:
    known = {"python", "yaml", "sh", "text", "csv", "bash", "yml"}
    assert {(page.name, language) for page in PAGES for language, _ in blocks(page)} <= {
        (page.name, language) for page in PAGES for language in known
    }


@with_blocks("python")
def test_python_runs_when_pasted(page: Path, here: Path) -> None:
    for language, text in blocks(page, "python"):
        paste(language, text)


@with_blocks("yaml")
def test_yaml_is_a_spec_or_replaces_keys_of_one(page: Path, tmp_path: Path) -> None:
    whole: dict[str, Any] = yaml.safe_load(blocks(ROOT / "README.md", "yaml")[0][1]) | {"factors": {}}
    for _, text in blocks(page, "yaml"):
        found = yaml.safe_load(text)
        if "kernels" in found:
            (tmp_path / "kernels.yaml").write_text(text)
            assert set(load_kernels(tmp_path / "kernels.yaml").spec.kernels) == set(found["kernels"])
            continue
        whole = found if {"data", "model", "train"} <= set(found) else whole
        spec = Spec.model_validate({**whole, **found})
        assert not list(check_factors(spec))
        assert expand(spec)


def bench(arguments: list[str]) -> int:
    """Run a command in this process. Return its exit code."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def commands_in(text: str) -> list[list[str]]:
    """The bench commands of a shell block. Files are run. Other lines than those and INSTALLS are an error."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        words = shlex.split(line, comments=True)
        if words[:3] == ["python", "-m", "bench"]:
            found.append(words[3:])
        elif words[0] == "python" and words[1:] and words[1].endswith(".py"):
            subprocess.run([sys.executable, *words[1:]], check=True)
        else:
            assert line.startswith(INSTALLS), line
    return found


def rows_at_once(loaded: LoadedKernels, planned: Sequence[Planned], keeper: Listener) -> None:
    """Finish every row of `bench kernels`, with made-up times."""
    for each in planned:
        sides = [
            SideResult(name, latencies_s={"wall, cold": [1e-5] * 8}) for name in ("ours", *each.competitors)
        ]
        keeper.row_started(each.case)
        keeper.row_finished(Row(each.case, tuple(sides), bytes_moved=8))


def tuned_at_once(case: Case, *_arguments: object, budget_s: float, **_options: object) -> Tuning:
    """Finish a case of `bench autotune` without a timing."""
    return Tuning(case, budget_s=budget_s)


def described_here(source: KernelSource, device: str = "cpu") -> tuple[KernelDescription, ...]:
    """Describe kernels of a page without a process of their own."""
    return tuple(map(read_description, described(source, device)))


@with_blocks("sh")
def test_shell_commands_run_when_pasted(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The faces that the commands import from. A face that first loads a name from a patched file would keep the patch.
    for place in (
        "fusetune.bench.run.run_trials",
        "fusetune.bench.search.run_search",
        "fusetune.bench.batch_size.search_batch_sizes",
        "fusetune.bench.batch_size.measure_batch_sizes",
    ):
        monkeypatch.setattr(place, lambda *_arguments: [])
    monkeypatch.setattr("fusetune.bench.kernels.measure_planned", rows_at_once)
    for place in ("fusetune.bench.kernels.plan.describe", "fusetune.bench.kernels.describe"):
        monkeypatch.setattr(place, described_here)
    monkeypatch.setattr("fusetune.bench.autotune.tune", tuned_at_once)
    named = dict(RUN.findall(page.read_text()))
    for language, text in blocks(page, "python", "yaml", "sh"):
        paste(language, text)
        for arguments in commands_in(text) if language == "sh" else ():
            # Nothing was run, so nothing fits and nothing is there to compare. There is no repository to gate.
            fails = arguments[0] in ("batch-size", "compare", "gate", "init") and "--cluster" not in arguments
            # A trial without a record makes 1.
            expected = 2 if fails else int(arguments[0] == "run")
            code = bench(arguments)
            # A run is recorded where the page records one before, but it has no metric.
            assert code == expected or (arguments[0] == "history" and code == 2), arguments
            for made in Path("results").glob("*/*"):
                wanted = made.parent / named.get(made.parent.name, made.name)
                if not wanted.exists():
                    made.rename(wanted)


def test_own_data_model_and_optimizer_train_as_the_page_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "own-data.md"
    for language, text in blocks(page, "python", "yaml"):
        paste(language, text)
    # The specs lie in another folder than the one that the command starts in.
    (here / "work").mkdir()
    for name in ("images", "labels.csv", "all.yaml", "own_model.py", "own_optimizer.py"):
        (here / name).rename(here / "work" / name)
    assert bench(["run", "work/all.yaml"]) == 0
    (made,) = Path("results/all").iterdir()
    records, _ = RunDirectory.open(made).records()
    assert {record.factors["optimizer"] for record in records} == {"adam", "own_optimizer:Lion"}
    for record in records:
        assert record.status == "ok"
        assert record.provenance["classes"] == ["dusk", "noon"]
        # 12 x 10 grey pixels, 8 hidden units, 2 classes
        assert record.values["parameters"] == 120 * 8 + 8 + 8 * 2 + 2
    assert re.search(r"^classes +0 dusk, 1 noon *$", capsys.readouterr().out, flags=re.MULTILINE)
    assert bench(["run", "--resume", str(made)]) == 0  # the same run: nothing is missing
    assert len((made / "records.jsonl").read_text().splitlines()) == 2
