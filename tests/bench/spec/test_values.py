"""Values that differ have ids and labels that differ, and nothing of them is lost between a spec and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusetune.bench.errors import InputError
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.search.for_optuna import label, labels
from fusetune.bench.spec.design import lay_out
from fusetune.bench.spec.load import load_spec
from fusetune.bench.spec.values import (
    LeftOut,
    freeze,
    frozen,
    key_id,
    left_out,
    same_value,
    value_id,
    value_label,
)
from fusetune.bench.stats.summary import summarize
from fusetune.bench.stats.wording import configuration_label
from fusetune.tuner.search.space import Space

ORDINARY = [
    (64, "64"),
    (0.1, "0.1"),
    (1e-5, "1e-05"),
    (None, "null"),
    (True, "true"),
    ("adam", "adam"),
    ("one-cycle", "one-cycle"),
    ("package.module:function", "package.module:function"),
    ("a word and another", "a word and another"),
    ("données/a.npz", "données/a.npz"),
    ([0.9, 0.999], "[0.9;0.999]"),
    ({"name": "one-cycle", "pct_start": 0.3}, "one-cycle(pct_start=0.3)"),
    ({"factory": "mine:Lion", "beta": 0.9}, "mine:Lion(beta=0.9)"),
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
# Texts that look like what else there is.
LOOKS = st.recursive(
    st.sampled_from(["true", "null", "1", "1.0", "a", "default", "name", "m:f"]) | SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "factory", "a", "b"]) | st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES = LOOKS | LOOKS.map(value_id) | LOOKS.map(value_label) | LOOKS.map(json.dumps)


@pytest.mark.parametrize(("value", "text"), ORDINARY)
def test_ordinary_values_are_written_as_ever(value: Any, text: str) -> None:
    assert value_id(value) == text


def in_order(value: Any) -> str:
    """A text of a value that JSON makes: types and the order of keys kept."""
    return json.dumps(value)


@given(VALUES, VALUES)
@example(True, "true")
@example(None, "null")
@example([1, 2], "[1;2]")
@example([1, 2], "[1, 2]")
@example("1", 1)
@example({"name": "a", "b": 1}, "a(b=1)")
@example({"a": 1, "b": 2}, {"a": "1;b=2"})
@example({"name": "m:f", "a": 1}, {"factory": "m:f", "a": 1})
@example([{"name": "a"}], ["a"])
@example(["a;b"], ["a", "b"])
@example([], "")
@example("\x1b", "\\x1b")
def test_different_values_have_different_ids_and_labels(one: Any, other: Any) -> None:
    if in_order(one) != in_order(other):
        assert value_id(one) != value_id(other)
    bare = [
        value[next(iter(value))] if isinstance(value, dict) and len(value) == 1 else value
        for value in (one, other)
    ]
    if not same_value(*bare) and not same_value(one, other):
        assert value_label(one) != value_label(other)


@given(VALUES)
def test_an_id_is_one_printable_line(value: Any) -> None:
    for text in (value_id(value), value_label(value)):
        assert text.splitlines() == [text]
        assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text)
        text.encode()


@given(
    st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=3),
    st.dictionaries(st.text(min_size=1), VALUES, min_size=1, max_size=3),
)
@example({"a": "1,b=2"}, {"a": 1, "b": 2})
@example({"a=1,b": 2}, {"a": 1, "b": 2})
def test_configurations_that_differ_are_called_differently(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    def name(factors: dict[str, Any]) -> str:
        return ",".join(f"{key_id(key)}={value_id(value)}" for key, value in factors.items())

    if in_order(one) != in_order(other):
        assert name(one) != name(other)


@given(VALUES, VALUES)
def test_equal_values_are_told_from_unequal_ones(one: Any, other: Any) -> None:
    """JSON is the judge, with 1 and 1.0 as the same number."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    same = json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)
    assert same_value(one, other) == same
    hash(frozen(one))


@pytest.mark.parametrize(
    "given_values", [[1, True], [[1, 2], "[1, 2]"], [None, "null"], [{"a": 1}, '{"a": 1}'], [0, False, None]]
)
def test_optuna_is_given_each_value_by_itself(given_values: list[Any]) -> None:
    stored = labels(given_values)
    assert len(set(stored)) == len(given_values)
    assert [label(given_values, value) for value in given_values] == stored
    space = Space({"factor": given_values})
    (factor,) = space.factors
    assert [factor.value(factor.coordinate(value)) for value in given_values] == given_values
    assert [type(factor.value(factor.coordinate(value))) for value in given_values] == [
        *map(type, given_values)
    ]


def test_optuna_is_given_ordinary_values_as_they_are() -> None:
    assert labels([0.1, None, "a", True]) == [0.1, None, "a", True]
    assert labels([[1, 2], {"name": "cosine"}]) == ["[1, 2]", '{"name": "cosine"}']


def test_what_is_left_out_is_none_of_the_values() -> None:
    assert left_out(["a", None]) == "default"
    assert left_out(["default", "left-out"]) == "left-out-0"
    assert isinstance(left_out([]), LeftOut)


OWN = """\
name: own
data: {name: digits}
model: {factory: "mine:build"}
train: {base_lr: 0.1, batch_size: 64, epochs: 1}
"""


@pytest.mark.parametrize(
    "values",
    [
        '[true, "true"]',
        '[null, "null"]',
        '[null, "default"]',
        '[[1, 2], "[1;2]"]',
        '[1, "1"]',
        "[1, true]",
        "[0, false]",
        '[{a: 1}, "(a=1)"]',
        '["a;b", [a, b]]',
        '[default, "left-out", null]',
    ],
)
@pytest.mark.parametrize("design", ["grid", "one-at-a-time", "configurations"])
def test_every_configuration_is_a_trial_and_a_row_of_the_report(
    values: str, design: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    text = OWN + f"factors: {{model.mode: {values}}}\n"
    if design == "one-at-a-time":
        text += "design: one-at-a-time\n"
    if design == "configurations":
        text = OWN + "configurations:\n"
        text += "".join(
            f"  - {{model.mode: {json.dumps(v)}}}\n"
            for v in json.loads(json.dumps(yaml_list(values)))
            if not isinstance(v, list)
        )
    path.write_text(text)
    spec = load_spec(path).spec
    layout = lay_out(spec)
    wanted = [
        value for value in yaml_list(values) if design != "configurations" or not isinstance(value, list)
    ]
    extra = design == "one-at-a-time"  # the baseline, which leaves the key out
    assert len(layout.trials) == len(wanted) + extra
    assert len({trial.id for trial in layout.trials}) == len(layout.trials)
    modes = [trial.spec.model.extras.get("mode", "nothing") for trial in layout.trials]
    for value in wanted:
        assert sum(same_value(mode, value) for mode in modes) == 1
    records = [
        Record.from_dict(
            json.loads(
                json.dumps(Record(t.id, t.factors, 0, "ok", values={"best_val_accuracy": 0.5}).as_dict())
            )
        )
        for t in layout.trials
    ]
    run = json.loads(
        json.dumps({"spec": spec.resolved(), "baseline": layout.baseline, "trials": len(records)})
    )
    summary = summarize(RunInfo.from_dict(run), records)
    assert len(summary.configurations) == len(layout.trials)
    assert len({configuration_label(row.factors) for row in summary.configurations}) == len(layout.trials)
    assert len({freeze(row.factors) for row in summary.configurations}) == len(layout.trials)


def yaml_list(text: str) -> list[Any]:
    import yaml

    found = yaml.safe_load(text)
    assert isinstance(found, list)
    return found


def test_what_comes_to_the_same_is_refused_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "factors: {model.mode: [1, 1.0]}\n")
    with pytest.raises(InputError, match=r"gives the same training as 1"):
        load_spec(path)
    path.write_text(OWN + "factors: {model.mode: [9007199254740992, 9007199254740993]}\n")
    assert len(lay_out(load_spec(path).spec).trials) == 2
