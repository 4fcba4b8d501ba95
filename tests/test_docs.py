"""README, docs, --help and code agree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from fusetune.bench import catalog
from fusetune.bench.cli.program import commands
from fusetune.bench.results.records import STATUSES
from fusetune.bench.spec.spec import SECTIONS, RandomDesign, Spec
from fusetune.tuner.schedules.table import SCHEDULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SPEC_PAGE = (ROOT / "docs" / "spec.md").read_text()
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "kernels/cpu/README.md")
PAGES = [ROOT / name for name in NAMES if (ROOT / name).exists()] + sorted((ROOT / "docs").glob("*.md"))


def in_backticks(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+?):?`", text))


def section(title: str) -> str:
    """The part of docs/spec.md under one heading."""
    return re.split(r"^##+ ", SPEC_PAGE.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("Top level", Spec),
        ("data", SECTIONS["data"]),
        ("model", SECTIONS["model"]),
        ("train", SECTIONS["train"]),
    ],
)
def test_the_spec_page_lists_exactly_the_keys_there_are(title: str, model: type[Spec]) -> None:
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    listed = [key for row in rows for key in re.findall(r"`([a-z_]+)`", row.split(" | ")[0])]
    assert sorted(listed) == sorted(model.model_fields)
    required = {row.split("`")[1] for row in rows if "` *" in row.split(" | ")[0]}
    assert required == {name for name, field in model.model_fields.items() if field.is_required()}


def test_the_spec_page_lists_the_small_sections() -> None:
    names = ("target", "limits", "early_stop", "gate", "executor", "resources")
    listed = set(re.findall(rf"^\| `((?:{'|'.join(names)})\.[a-z_]+)`", SPEC_PAGE, flags=re.MULTILINE))
    assert listed == {f"{name}.{key}" for name in names for key in SECTIONS[name].model_fields}
    assert set(SECTIONS["metrics"].model_fields) <= in_backticks(section("gate"))
    assert set(SECTIONS["augment"].model_fields) <= in_backticks(section("data"))
    assert set(RandomDesign.model_fields) == {"random"}


@pytest.mark.parametrize("table", ["DATASETS", "MODELS", "ACTIVATIONS", "NORMS", "OPTIMIZERS"])
def test_the_spec_page_names_every_name(table: str) -> None:
    assert set(getattr(catalog, table)) <= in_backticks(SPEC_PAGE)


def test_the_spec_page_names_every_metric_precision_and_status() -> None:
    assert {*catalog.METRICS_TO_REACH, *catalog.PRECISIONS, *STATUSES} <= in_backticks(SPEC_PAGE)


def test_the_spec_page_lists_each_schedules_own_parameters() -> None:
    listed: dict[str, set[str]] = {}
    for row in section("schedule").splitlines():
        cells = row.split("|")
        if row.startswith("| `"):
            listed |= {
                name: set(re.findall(r"`([a-z_]+)`", cells[2])) for name in re.findall(r"`([^`]+)`", cells[1])
            }
    common = {"warmup_epochs", "warmup_factor"}
    listed["plateau"].discard("val_loss")
    assert listed == {name: set(entry.parameters) - common for name, entry in SCHEDULES.items()}


def commands_of(text: str) -> list[list[str]]:
    """Each `python -m bench ...` and `bench ...` command that a page shows."""
    found = re.findall(r"^(?:\$ )?python -m bench (.+?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
    found += re.findall(r"`(?:python -m )?bench ([a-z][^`]*)`", text)
    return [shlex.split(command) for command in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    for name, *arguments in commands_of(page.read_text()):
        command = commands.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= known
        for argument in arguments:
            if argument.endswith(".yaml"):
                on_the_page = f"\n# {argument}\n" in page.read_text()
                assert on_the_page or (ROOT / argument).is_file(), argument


def test_the_readme_shows_every_command() -> None:
    assert {name for name, *_ in commands_of(README)} == set(commands.commands)


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_help_fits_and_describes_every_option(name: str) -> None:
    command = commands.commands[name]
    context = click.Context(command, info_name=f"bench {name}", terminal_width=100)
    text = command.get_help(context)
    assert max(map(len, text.splitlines())) <= 100
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_make_and_readme_name_the_same_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert "python -m bench run specs/cifar.yaml" in makefile
    assert "python -m bench run specs/cifar.yaml" in README


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that links give to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", without_code(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_the_design_page_places_every_module() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    modules = [path for package in ("kernels", "tuner", "bench") for path in (ROOT / package).rglob("*.py")]
    stems = {path.stem for path in modules if not path.stem.startswith("__")}
    assert {stem for stem in stems if not re.search(rf"\b{stem}\b", page)} == set()


def test_each_measured_figure_names_a_command_that_exists() -> None:
    table = README.partition("## Measured against others\n\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) >= 3
    makefile = (ROOT / "Makefile").read_text()
    for row in rows:
        assert len(row) == 4
        target = re.fullmatch(r"`make ([a-z-]+)`", row[3])
        assert target, row
        assert re.search(rf"^{target[1]}:", makefile, flags=re.MULTILINE)
