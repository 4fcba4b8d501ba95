"""Read a spec: YAML, then the device's profile, then `--set`, then validation, with every error explained.

Pydantic finds the errors. Here each finding becomes one sentence: file, line, key path, what is known and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from fusetune.bench.errors import InputError
from fusetune.bench.spec.design import check_factors
from fusetune.bench.spec.spec import PROFILES, SECTIONS, Gate, Section, Spec
from fusetune.bench.spec.yaml import Document, KeyPath, dotted, parse_value, read_yaml
from fusetune.closest_name import closest, meant

MAX_REPORTED = 6


S = TypeVar("S", bound=Section)
# Where a key that stands in the wrong place may belong. Names and factories stand in several.
_WHERE_KEYS_BELONG = ("train", "model", "data", "data.augment", "", "target", "limits", "early_stop")


@dataclass(frozen=True)
class Form(Generic[S]):
    """One form of specs, e.g. of trainings.

    Args:
        root: the class of the whole.
        sections: the classes of its mappings, by the key that leads to them.
        belong: where a key that stands in the wrong place may belong, key paths. Empty: at the top.
        command: of the program, that takes such specs.
    """

    root: type[S]
    sections: Mapping[str, type[BaseModel]]
    belong: tuple[str, ...] = ("",)
    command: str = "run"


TRAININGS: Form[Spec] = Form(Spec, SECTIONS, _WHERE_KEYS_BELONG)

# Stands in a list of differences for a key that is not there. A null that is there may mean something.
_NOTHING = "(none)"


@dataclass(frozen=True)
class LoadedSpec:
    """A validated spec, the device type it is for, where its values came from, and the profile merged over it."""

    spec: Spec
    document: Document
    device: str
    overrides: tuple[str, ...]
    profile: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A validated spec of any form, with what `LoadedSpec` says of one of trainings."""

    spec: S
    document: Document
    device: str
    profile: str | None = None
    changes: tuple[str, ...] = ()


def load_spec(path: Path, *, overrides: Sequence[str] = (), device: str = "cpu") -> LoadedSpec:
    """Read, merge and validate a spec.

    Args:
        path: the YAML file.
        overrides: `key.path=value` texts, merged over everything else.
        device: the device type in use (`cpu`, `cuda`). The spec's own `device` overrides it.

    Raises:
        InputError: with one sentence for each of the first findings, each with file, line and key path.
    """
    found = resolve(read_yaml(path), TRAININGS, overrides=overrides, device=device)
    return LoadedSpec(
        found.spec, found.document, found.device, tuple(overrides), found.profile, found.changes
    )


def resolve(
    document: Document, form: Form[S], *, overrides: Sequence[str] = (), device: str = "cpu"
) -> Resolved[S]:
    """Merge and validate a spec of any form, see `load_spec`.

    Args:
        document: what was read.
        form: of the spec.
        overrides: `key.path=value` texts, merged over everything else.
        device: the device type in use.

    Raises:
        InputError: with one sentence for each of the first findings, or the spec is one for another command.
    """
    _check_form(document, form)
    document = _override(document, overrides)
    chosen = document.data.get("device")
    device = chosen if chosen in PROFILES else device
    profiles = document.data.get("profiles") or {}
    validate(document, form)
    _check_profiles(document)
    for other in profiles:
        if other != device:
            validate(_override(_with_profile(document, other), overrides), form)
    if device not in profiles:
        return Resolved(validate(document, form), document, device)
    merged = _override(_with_profile(document, device), overrides)
    changes = difference(document.data, {**merged.data, "profiles": profiles})
    return Resolved(validate(merged, form), merged, device, device, tuple(changes))


# The keys by which a spec that is given to the wrong command is known -> the command that takes it.
_MARKS = {"kernels": "kernels", "train": "run"}


def _check_form(document: Document, form: Form[S]) -> None:
    """Refuse a spec that another command takes."""
    for mark, command in _MARKS.items():
        if mark in document.data and command != form.command and mark not in form.root.model_fields:
            what = f"is a spec for `bench {command}`, because it has the key '{mark}'"
            raise InputError(document.name, what, to_do=f"Write bench {command} {document.name}")


def load_gate(overrides: Sequence[str]) -> Gate:
    """Read a `gate:` section that is made of `gate.key=value` texts alone, for what has no spec.

    Args:
        overrides: the texts.

    Raises:
        InputError: with one sentence for each of the first findings, or for a key outside of the section.

    Example:
        >>> load_gate(["gate.metrics.score.better=higher"]).metrics["score"].better
        'higher'
    """
    document = _override(Document("--set", {}, {}), overrides)
    for key in document.data:
        if key != "gate":
            raise InputError(
                f"--set {key}", "is for a spec", "a command has keys below gate alone", "Remove it"
            )
    try:
        return Gate.model_validate(document.data.get("gate", {}))
    except ValidationError as error:
        items = [{**item, "loc": ("gate", *item["loc"])} for item in error.errors()]
        findings = [sentence for item in items for sentence in _explain(item, document, TRAININGS)]
        raise InputError("", "\n".join(findings[:MAX_REPORTED])) from None


def text_without(path: Path, *sections: str) -> bytes:
    """Return a spec's text without some of its sections, in profiles too. One that has none of them stays as it is.

    Args:
        path: a YAML file that `load_spec` reads.
        sections: such as `gate`.

    Raises:
        InputError: it cannot be read.
    """
    data = read_yaml(path).data
    profiles = data.get("profiles")
    within = (
        [over for over in profiles.values() if isinstance(over, dict)] if isinstance(profiles, dict) else []
    )
    if not any(section in each for each in (data, *within) for section in sections):
        return path.read_bytes()
    for each in (data, *within):
        for section in sections:
            each.pop(section, None)
    return json.dumps(data, indent=1).encode()  # YAML contains JSON


def validate(document: Document, form: Form[S]) -> S:
    """Validate one document.

    Raises:
        InputError: with one sentence for each of the first findings.
    """
    try:
        spec = form.root.model_validate(document.data)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling is what the user wants to hear of first.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        findings = [sentence for item in items for sentence in _explain(item, document, form)]
        rest = [f"... and {len(findings) - MAX_REPORTED} more"] if len(findings) > MAX_REPORTED else []
        raise InputError("", "\n".join(findings[:MAX_REPORTED] + rest)) from None
    wrong = [*check_factors(spec), *_check_gated(spec)] if isinstance(spec, Spec) else []
    findings = [f"{document.where(path)}: {dotted(path)}: {text}" for path, text in wrong]
    if findings:
        raise InputError("", "\n".join(findings[:MAX_REPORTED]))
    return spec


def _check_gated(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find what is wrong with the configurations that the gate compares, by the rules of `configurations`."""
    if spec.gate is None or spec.gate.configurations is None:
        return
    changes = {"factors": {}, "design": "grid", "configurations": spec.gate.configurations}
    for path, text in check_factors(spec.model_copy(update=changes)):
        if path[0] == "configurations":
            yield ("gate", *path), text


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """List what differs between two trees of plain data, a line each.

    Example:
        >>> difference({"train": {"epochs": 4, "base_lr": 0.1}}, {"train": {"epochs": 8, "momentum": 0.9}})
        ['train.epochs: 4 -> 8', 'train.base_lr: 0.1 -> (none)', 'train.momentum: (none) -> 0.9']
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}.{key}" if path else str(key)
            lines += difference(old.get(key, _NOTHING), new.get(key, _NOTHING), below)
        return lines
    if old == new:
        return []
    shown = ["null" if value is None else str(value) for value in (old, new)]
    return [f"{path}: {shown[0]} -> {shown[1]}"]


def _check_profiles(document: Document) -> None:
    """Refuse a profile that sets another device, or that holds profiles."""
    for profile, over in (document.data.get("profiles") or {}).items():
        for key, known in (("device", ("auto", profile)), ("profiles", ())):
            if key in over and over[key] not in known:
                path = ("profiles", profile, key)
                said = f"is {_shown(over[key])}, in what is merged in on {profile} only"
                raise InputError(
                    f"{document.where(path)}: {dotted(path)}",
                    said,
                    to_do="Remove it, or write it outside",
                )


def _with_profile(document: Document, profile: str) -> Document:
    """Merge a profile over the document. Its values keep their places in the profile."""
    prefix = ("profiles", profile)
    over = document.data["profiles"][profile]
    if not isinstance(over, dict):
        raise InputError(f"{document.where(prefix)}: {dotted(prefix)}", f"must be a mapping, is {over!r}")
    places = {
        path[2:]: place for path, place in document.places.items() if path[:2] == prefix and len(path) > 2
    }
    return document.merged(over, places)


def _override(document: Document, overrides: Sequence[str]) -> Document:
    """Merge `key.path=value` texts over the document."""
    for text in overrides:
        key, equals, value_text = text.partition("=")
        path = _override_path(key.strip())
        if not equals or not all(path):
            raise InputError(
                f"--set {text}", "must be key.path=value", to_do="Write it like --set train.base_lr=0.1"
            )
        over: Any = parse_value(value_text, f"--set {key}".strip())
        for part in reversed(path):
            over = {part: over}
        document = document.merged(over, {path: "--set"})
    return document


def _override_path(key: str) -> tuple[str, ...]:
    """Split a dotted key. Everything after `factors` is one key, because a factor's own name may be dotted."""
    parts = key.split(".")
    if "factors" in parts[:3]:
        start = parts.index("factors") + 1
        return (*parts[:start], *([".".join(parts[start:])] if parts[start:] else []))
    return tuple(parts)


_EVERYWHERE = ("name", "factory", "seed", "description")
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def _explain(item: Any, document: Document, form: Form[S]) -> list[str]:
    """Turn one of pydantic's findings into our sentences."""
    if any(str(part).startswith("literal[") for part in item["loc"]):
        return []  # the other branch of `design` has the better sentence
    path: KeyPath = tuple(part for part in item["loc"] if not _is_annotation(part))
    kind, context, value = item["type"], item.get("ctx") or {}, item.get("input")
    where = f"{document.where(path)}: {dotted(path)}" if path else document.name
    if kind == "own_keys":
        return [_unknown_key((*path, key), document, context["known"], form) for key in context["keys"]]
    if kind == "extra_forbidden":
        return [_unknown_key(path, document, _fields_at(path[:-1], form), form)]
    if kind == "unknown_name":
        return [str(InputError.unknown(where, value, context["known"]))]
    if kind == "missing":
        return [f"{where}: is missing. Add it"]
    if kind == "said":
        return [f"{where}: {context['text']}"]
    if kind in _TYPES:
        return [f"{where}: must be {_TYPES[kind]}, is {_shown(value)}"]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return [f"{where}: must be {words} {context[name]:g}, is {value!r}"]
    if kind == "string_pattern_mismatch" and path[-1] == "factory":
        return [f"{where}: {value!r} is not of the form package.module:function"]
    if kind == "string_pattern_mismatch":
        return [f"{where}: {value!r} may have letters, digits, '.', '_' and '-' only, at most 80"]
    if kind in ("too_short", "too_long"):
        bound = "at least" if kind == "too_short" else "at most"
        need = context["min_length" if kind == "too_short" else "max_length"]
        return [f"{where}: must have {bound} {need} values, is {_shown(value)}"]
    return [f"{where}: {item['msg']}, is {_shown(value)}"]


def _is_annotation(part: int | str) -> bool:
    """Whether a part of pydantic's path names a branch of a union, not a key of the spec."""
    branches = ("RandomDesign", "SearchDesign", "OptimizerName", "OptimizerFactory")
    return part == "[key]" or part in branches or str(part).startswith("tagged-union")


def _unknown_key(path: KeyPath, document: Document, known: Collection[str], form: Form[S]) -> str:
    """Name an unknown key, the known ones and the closest."""
    near = meant(path[-1], known) or _elsewhere(str(path[-1]), form) or closest(path[-1], known)
    hint = f"Did you mean '{near}'?" if near else "Remove it or use one of these."
    return f"{document.where(path)}: {dotted(path)}: unknown key; known: {', '.join(sorted(known))}. {hint}"


def _elsewhere(key: str, form: Form[S]) -> str | None:
    """Return the key path of another section that has `key`, or our name for another library's key."""
    finders: tuple[Callable[[list[str]], str | None], ...] = (
        lambda known: key if key in known else None,
        lambda known: meant(key, known),
    )
    for find in finders:
        for prefix in form.belong:
            section = form.sections[prefix.rpartition(".")[2]] if prefix else form.root
            known = [name for name in section.model_fields if name not in _EVERYWHERE]
            if (near := find(known)) is not None:
                return f"{prefix}.{near}" if prefix else near
    return None


def _fields_at(path: KeyPath, form: Form[S]) -> list[str]:
    section: type[BaseModel] = form.root
    for part in path:
        section = form.sections.get(str(part), section)
    return list(section.model_fields)


def _shown(value: object) -> str:
    text = "empty" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
