"""YAML is read safely, with YAML 1.2's scalars, and every key keeps its line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.spec.yaml import MAX_BYTES, dotted, parse_value, parse_yaml, read_yaml
from fusetune.bench.stats.wording import flow_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5.0e-4", 0.0005),
        ("-2", -2),
        ("1E5", 1e5),
        ("true", True),
        ("no", "no"),  # YAML 1.1 reads these five as False, True, False, 8 and 90
        ("on", "on"),
        ("off", "off"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("", None),
        ("8GiB", "8GiB"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_value(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


def test_each_key_keeps_its_line() -> None:
    document = parse_yaml("a: 1\n\nb:\n  c: {d: 2,\n      e: [3,\n          4]}\n", "spec.yaml")
    assert document.where(("a",)) == "spec.yaml:1"
    assert document.where(("b", "c", "d")) == "spec.yaml:4"
    assert document.where(("b", "c", "e", 1)) == "spec.yaml:6"
    assert document.where(("b", "c", "missing")) == "spec.yaml:4"
    assert document.where(("missing",)) == "spec.yaml"


def test_anchors_and_merge_keys_work() -> None:
    document = parse_yaml("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nsame: *b\n", "spec.yaml")
    assert document.data == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}


def bomb(levels: int) -> str:
    """Nine to the power of `levels` values in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3", "spec.yaml:3: a: written twice, first on line 1"),
        ("t: {x: 1,\n    x: 2}", "spec.yaml:2: t.x: written twice, first on line 1"),
        ("a: .nan", "spec.yaml:1: a: '.nan' is not a finite number"),
        ("a: [1, -.inf]", "spec.yaml:1: a[1]: '-.inf' is not a finite number"),
        ("a: 1e999", "spec.yaml:1: a: '1e999' is not a finite number"),
        (bomb(9), "spec.yaml: expands to more than 20,000 values"),
        ("a: &a [1, *a]", "spec.yaml:1: an alias that contains itself"),
        ("a: [1, 2", "spec.yaml:1: not valid YAML"),
        ("a: b: c", "spec.yaml:1: not valid YAML"),
        (
            "a: !!python/object/apply:os.system [id]",
            "spec.yaml:1: a: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not known here",
        ),
        (
            "a: !!python/name:os.system",
            "spec.yaml:1: a: the tag 'tag:yaml.org,2002:python/name:os.system' is not known here",
        ),
        ("1: x", "spec.yaml:1: a key must be a word, not '1'"),
        ("? [x]\n: y", "spec.yaml:1: a key must be a word, not a collection"),
        ("- 1\n- 2", "spec.yaml: must be a mapping (key: value), not a list"),
        ("", "spec.yaml: must be a mapping (key: value), not empty"),
        ("[" * 20_000, "spec.yaml: nested too deeply"),
        ("a: 1\n---\nb: 2", "spec.yaml:2: not valid YAML"),
        ("a: \x07", "spec.yaml: not valid YAML"),
    ],
    ids=lambda value: " ".join(value.split())[:24],
)
def test_bad_yaml_is_refused_in_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as error:
        parse_yaml(text, "spec.yaml")
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_python_tags_run_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(InputError):
        parse_yaml(f"a: !!python/object/apply:pathlib.Path.touch [{trace}]", "spec.yaml")
    assert not trace.exists()


def test_unreadable_files_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"no such file; known here: .*real\.yaml"):
        read_yaml(tmp_path / "reel.yaml")
    with pytest.raises(InputError, match="is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 6\)"):
        read_yaml(tmp_path / "latin.yaml")


def test_files_over_a_mebibyte_are_refused_unparsed(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    with pytest.raises(InputError, match="must be a mapping"):
        read_yaml(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_yaml(path)


def test_merging_replaces_lists_and_merges_mappings() -> None:
    document = parse_yaml("a: {x: 1, y: [1, 2]}\nb: 1\n", "spec.yaml")
    merged = document.merged({"a": {"y": [3]}}, {("a", "y"): "--set a.y"})
    assert merged.data == {"a": {"x": 1, "y": [3]}, "b": 1}
    assert merged.where(("a", "y", 0)) == "--set a.y"
    assert merged.where(("a", "x")) == "spec.yaml:1"


def test_dotted_paths_read_as_people_write_them() -> None:
    assert dotted(("factors", "model.width", 0)) == "factors.model.width[0]"


@pytest.mark.parametrize(
    "value",
    [1e-05, 2.5e20, 0.1, -3, True, None, "1e3", "no", "null", "True", "a: b", "x,y", "it's", "[a]", "#c", "", " x", "é",
     {"a.b": [None, [0.9, 0.99]], "schedule": {"name": "one-cycle", "pct_start": 0.3}}, [], {}],
    ids=repr,
)  # fmt: skip
def test_flow_yaml_is_read_back_to_the_same_value_also_by_a_shell(value: object) -> None:
    text = flow_yaml([value])
    assert parse_value(text, "x") == [value]
    (word,) = shlex.split(shlex.quote(f"configurations={text}"))
    assert parse_value(word.partition("=")[2], "x") == [value]
