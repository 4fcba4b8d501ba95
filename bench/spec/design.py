"""From a spec to its trials: the field of each factor, the configurations, and their order.

A configuration is one value for each factor. A trial is a configuration with a seed.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fusetune.bench.catalog import MODELS, OPTIMIZERS, Entry
from fusetune.bench.errors import InputError
from fusetune.bench.spec.factor_names import VARIED_SECTIONS, field_of, owners
from fusetune.bench.spec.same_training import identity
from fusetune.bench.spec.source import Source
from fusetune.bench.spec.spec import OptimizerFactory, OwnCode, RandomDesign, Schedule, SearchDesign, Spec
from fusetune.bench.spec.values import LeftOut, frozen, key_id, left_out, same_value, value_id, value_label
from fusetune.bench.spec.yaml import KeyPath
from fusetune.closest_name import closest

_SCHEDULE: KeyPath = ("train", "schedule")
_OPTIMIZER: KeyPath = ("train", "optimizer")
MAX_TRIALS = 100_000
MOST_COMPARED = 2_000


@dataclass(frozen=True)
class Trial:
    """One configuration with one seed.

    Args:
        id: unique in its run, e.g. `batch_size=64,optimizer=adam,seed=0`.
        factors: factor name -> value as a person writes it (a schedule without parameters is its name).
        seed: for initialisation, shuffling and augmentation.
        spec: the spec with the factors' values in their fields.
        source: where the trial's data come from, once that is known.
        options: what the run's kind needs to know besides the spec.
        rehearsal: build everything and train nothing.
        thread_counts: a rehearsal times steps with each of these numbers of threads.
        threads: torch's threads in the worker. None: as it was started.
    """

    id: str
    factors: dict[str, Any]
    seed: int
    spec: Spec
    source: Source | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rehearsal: bool = False
    thread_counts: tuple[int, ...] = ()
    threads: int | None = None


@dataclass(frozen=True)
class Layout:
    """A spec's trials.

    Args:
        trials: in the order in which they run.
        baseline: the configuration of the spec's own sections, with the values of its trials, if any.
        same: configurations with the same training as another one, as `this = that`. They are not among the trials, but
        a search treats them as different.
    """

    trials: list[Trial]
    baseline: dict[str, Any]
    same: list[str]


def expand(spec: Spec) -> list[Trial]:
    """Return the spec's trials in the order in which they run. See `lay_out`."""
    return lay_out(spec).trials


def lay_out(spec: Spec, device: str | None = None) -> Layout:
    """Expand a spec into trials. Configurations that give the same training are trained once.

    Each seed is a block that holds every configuration once. The order in a block is shuffled, seeded by the spec's
    name and the seed. So a slow drift of the machine affects all configurations alike.

    Args:
        spec: one in which `check_factors` finds nothing.
        device: the device type. None: not known.

    Raises:
        InputError: when there are more than 100,000 trials or a combination of values is not valid.
    """
    kept, same = _told_apart(spec, _configurations(spec), device)
    if isinstance(spec.design, SearchDesign):
        _, same = _told_apart(spec, _corners(spec), device)
    trials = []
    for seed in spec.seeds:
        block = [dataclasses.replace(t, id=_id(t.factors, seed), seed=seed) for t in kept.values()]
        _check_ids(spec, block)
        random.Random(f"{spec.name}:{seed}").shuffle(block)
        trials += block
    own = kept.get(identity(make_trial(spec, {}, spec.seeds[0]).spec, device=device))
    start = own.factors if own is not None else baseline(spec)
    return Layout(trials, start, same)


def _check_ids(spec: Spec, block: list[Trial]) -> None:
    """Refuse different configurations with the same id: their records could not be told apart."""
    count = Counter(trial.id for trial in block)
    for name, number in count.items():
        if number > 1:
            raise InputError(
                spec.name,
                f"{number} configurations that differ are called {name}",
                to_do="Write their values differently",
            )


def _told_apart(
    spec: Spec, configurations: list[dict[str, Any]], device: str | None
) -> tuple[dict[str, Trial], list[str]]:
    """Return the first trial of each identity, and the duplicates as `this = that`."""
    kept: dict[str, Trial] = {}
    same = []
    for factors in configurations:
        trial = make_trial(spec, factors, spec.seeds[0])
        first = kept.setdefault(identity(trial.spec, device=device), trial)
        if first is not trial and first.factors != trial.factors:
            same.append(f"{_named(trial.factors)} = {_named(first.factors)}")
    return kept, same


def _corners(spec: Spec) -> list[dict[str, Any]]:
    """Return the combinations of a search's values, of ranges their ends. None where they are too many to compare.

    Invalid combinations are left out. A search that chooses one records it.
    """
    factors = varied(spec)
    if math.prod(len(values) for values in factors.values()) > MOST_COMPARED:
        return []
    cells = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    return [cell for cell in cells if _identity_with(spec, cell) is not None]


def baseline(spec: Spec) -> dict[str, Any]:
    """Return the configuration of the spec's own sections, as factor name -> value.

    A field that they leave out has its default. It is a `LeftOut` where the default depends on another factor.
    """
    return {key: _own_value(spec, key, values) for key, values in varied(spec).items()}


def _own_value(spec: Spec, key: str, levels: list[Any]) -> Any:
    """Return the value of a factor with these levels in the spec's own sections."""
    section, *path = factor_path(key, spec)
    value: Any = getattr(spec, str(section))
    is_own = _is_own_key(spec, section, path[0]) or _is_key_of_optimizer((section, *path))
    is_given = True
    for part in map(str, path):
        is_given &= part in (value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ()))
        value = _field(value, part)
    if value is None and is_own and not is_given:
        return left_out(levels)
    if value is None and not is_own and None not in levels:
        value = _default(spec, section, *path)
        return left_out(levels) if value is None else value
    if isinstance(value, Schedule):
        # A factor's bare name means the schedule as `train` has it, see `_applied`.
        value = value.name if value.name in levels else value.model_dump()
    if isinstance(value, OptimizerFactory):
        value = value.factory if value.factory in levels else value.model_dump()
    return _label(value)


def _is_own_key(spec: Spec, section: str | int, field: str | int) -> bool:
    """Whether the field goes to a person's own code, so that null is one of its values."""
    code = getattr(spec, str(section))
    if not isinstance(code, OwnCode) or code.factory is None:
        return False
    return section == "model" or field not in type(code).model_fields


def _identity_with(spec: Spec, factors: dict[str, Any]) -> str | None:
    """Return the identity of a configuration. None where its values contradict each other."""
    try:
        return identity(Spec.model_validate(_applied(spec, factors)))
    except ValidationError:
        return None


def _field(value: Any, name: str) -> Any:
    fields = dict(value) if isinstance(value, BaseModel) else value
    return fields.get(name) if isinstance(fields, Mapping) else None


def factor_path(key: str, spec: Spec) -> KeyPath:
    """Find the field that a factor names: `batch_size`, `schedule.pct_start`, `model.width`.

    Raises:
        ValueError: no section or several have such a field.
    """
    first = key.split(".")[0]
    if key in VARIED_SECTIONS:
        raise ValueError(f"'{key}' is a section, not a field. Name a field of it, like {key}.name")
    if first not in VARIED_SECTIONS and len(owners(first)) > 1:
        raise ValueError(
            f"'{key}' is ambiguous. Write {' or '.join(f'{owner}.{key}' for owner in owners(first))}"
        )
    section, *path = field_of(key).split(".")
    content = getattr(spec, section)
    own_keys = isinstance(content, OwnCode) and content.factory is not None
    if path[0] not in VARIED_SECTIONS[section].model_fields and not own_keys:
        sections = [VARIED_SECTIONS[first]] if first in VARIED_SECTIONS else VARIED_SECTIONS.values()
        known = [field for each in sections for field in each.model_fields]
        near = closest(path[0], known)
        hint = f"Did you mean '{near}'?" if near else "Name a field of train, model or data."
        raise ValueError(f"no such field; known: {', '.join(sorted(set(known)))}. {hint}")
    return (section, *path)


def check_factors(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong with the factors and with parameters that nothing in play takes: (key path, sentence)."""
    yield from list(_check_values(spec)) or list(_check_applicable(spec)) or _check_different(spec)
    if isinstance(spec.design, SearchDesign):
        yield from _check_one_device(spec)


def _check_one_device(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find trainings of a search on several devices: a search pauses trainings, and processes that wait hold memory."""
    text = "a search pauses its trainings, which only those on one device can do. Use devices: 1, or another design"
    if spec.train.devices > 1:
        yield ("train", "devices"), text
    for key, named in _named_values(spec).items():
        if factor_path(key, spec) == ("train", "devices"):
            yield named[0][0][:2], text


def _check_values(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find factors that name no field or name one twice, and values that their field refuses."""
    searches = isinstance(spec.design, SearchDesign)
    if spec.configurations is not None:
        yield from _check_listing(spec)
    if searches and not varied(spec):
        yield ("design", "search"), "there is nothing to search. Give factors"
    paths: dict[KeyPath, str] = {}
    for key, named in _named_values(spec).items():
        place = named[0][0][: 2 if spec.configurations is None else 3]
        try:
            path = factor_path(key, spec)
        except ValueError as error:
            yield place, str(error)
            continue
        if path in paths:
            yield place, f"names the same field as '{paths[path]}'. Keep one"
            continue
        paths[path] = key
        if isinstance(spec.factors.get(key), Mapping) and not searches:
            yield place, "a range {low, high} is for design: {search: ...}. Give a list of values"
            continue
        whole = _value_above(path, spec)
        if whole is not None:
            yield place, f"{whole} is one value, which has no parts. Name a field of train, model or data"
            continue
        labels = [value_id(_label(value)) for _, value in named]
        for index, (value_place, value) in enumerate(named):
            if labels.index(labels[index]) != index:
                if spec.configurations is None:
                    yield value_place, f"{labels[index]} appears twice. Keep one"
                continue
            try:
                Spec.model_validate(_applied(spec, {key: value}))
            except ValidationError as error:
                finding = error.errors()[0]
                yield value_place, finding_text(finding)


def _check_listing(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find keys that contradict a list of configurations, and empty lists of values in it."""
    place: KeyPath = ("configurations",)
    if any(spec.factors.values()):
        text = "factors are given too, and both define the trials. Keep one: --set 'factors={}' removes these"
        yield place, text
    if spec.design != "grid":
        kind = spec.design if isinstance(spec.design, str) else next(iter(spec.design.model_dump()))
        yield place, f"design {kind} chooses the configurations itself. Leave out one of them"
    for index, entry in enumerate(spec.configurations or ()):
        for key, values in entry.items():
            if values == []:
                yield (*place, index, key), "must have at least 1 values, is []"


def _value_above(path: KeyPath, spec: Spec) -> str | None:
    """Return the key above a factor's that holds a plain value, or None: only mappings have parts."""
    value: Any = spec
    for depth, part in enumerate(path[:-1], start=1):
        value = _field(value, str(part))
        if path[:depth] in (_OPTIMIZER, _SCHEDULE):
            return None  # may be bare names
        if value is not None and not isinstance(value, (Mapping, BaseModel)):
            return ".".join(map(str, path[:depth]))
    return None


def finding_text(finding: Any) -> str:
    """Put one of pydantic's findings about a factor's value into words."""
    context = finding.get("ctx") or {}
    if finding["type"] == "unknown_name":
        near = closest(finding["input"], context["known"])
        hint = f" Did you mean '{near}'?" if near else ""
        return f"unknown '{finding['input']}'; known: {', '.join(sorted(context['known']))}.{hint}"
    if finding["type"] == "string_pattern_mismatch" and finding["loc"][-1] == "factory":
        return f"{finding['input']!r} is not of the form package.module:function"
    text = context.get("text") or f"{finding['msg']}, is {finding['input']!r}"
    if finding["type"] == "list_type":
        text += ". Write a list that is one value as [[...]]"
    return f"{text[0].lower()}{text[1:]}"


def _check_applicable(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find parameters that no optimizer or model of the run takes: they would have no effect."""
    places = {factor_path(key, spec): named[0][0] for key, named in _named_values(spec).items()}
    for section, (table, in_play) in _in_play(spec).items():
        taken = {option for name in in_play if name in table for option in table[name].parameters}
        options = dict.fromkeys(option for entry in table.values() for option in entry.parameters)
        for option in options:
            given = getattr(getattr(spec, section), option) is not None
            if (given or (section, option) in places) and option not in taken:
                path: KeyPath = (section, option)
                if not given:
                    path = places[(section, option)][: 2 if spec.configurations is None else 3]
                known = ", ".join(sorted(taken)) or "none"
                names = ", ".join(in_play)
                own = section == "train" and not set(in_play) <= set(table)
                hint = "Write it into the optimizer's mapping, or remove it" if own else "Remove it"
                yield path, f"{names} does not take it; parameters known for {names}: {known}. {hint}"
    optimizers = _in_play(spec)["train"][1]
    for path, place in places.items():
        if _is_key_of_optimizer(path) and set(optimizers) <= set(OPTIMIZERS):
            text = (
                f"{', '.join(optimizers)} is no factory, so it has no keys of its own. Name a field of train"
            )
            yield place[: 2 if spec.configurations is None else 3], text


def _check_different(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    """Find equal configurations of a list and equal values of a factor: they would be compared with themselves."""
    if spec.configurations is not None:
        first: dict[str | None, str] = {}
        for number, entry in enumerate(spec.configurations):
            for cell in _listed(spec.model_copy(update={"configurations": [entry]})):
                found = _identity_with(spec, cell)
                if found is not None and found in first:
                    yield (
                        ("configurations", number),
                        f"gives the same training as {first[found]}. Keep one",
                    )
                first.setdefault(found, f"configurations[{number}]")
        return
    # Values that are the same for one optimizer, model or number of devices of the run may differ for another.
    names: list[dict[str, Any]] = [{}]
    for section, (_, in_play) in _in_play(spec).items():
        field = "optimizer" if section == "train" else "name"
        names += [{f"{section}.{field}": name} for name in in_play]
    # Nor has `parallel` an effect on one device.
    for key, values in varied(spec).items():
        names += [{key: value} for value in values if factor_path(key, spec) == ("train", "devices")]
    for key, values in varied(spec).items():
        if isinstance(spec.factors[key], Mapping):
            continue
        others = [
            name for name in names if factor_path(key, spec) not in [factor_path(n, spec) for n in name]
        ]
        seen: dict[tuple[str | None, ...], Any] = {}
        for index, value in enumerate(values):
            identities = tuple(_identity_with(spec, {**name, key: value}) for name in others)
            if any(identities) and identities in seen:
                text = f"{_shown(value)} gives the same training as {_shown(seen[identities])}. Keep one"
                yield ("factors", key, index), text
            seen.setdefault(identities, value)


def _shown(value: Any) -> str:
    return value_label(_label(value))


def _in_play(spec: Spec) -> dict[str, tuple[dict[str, Entry], list[str]]]:
    """Return the sections whose parameters depend on a name: its table, and the names that the trials have there."""
    levels = {factor_path(key, spec): values for key, values in varied(spec).items()}

    def names(section: str, field: str) -> list[str]:
        own = getattr(getattr(spec, section), field)
        return [*dict.fromkeys(map(_name, [own, *levels.get((section, field), [])]))]

    found = {"train": (OPTIMIZERS, names("train", "optimizer"))}
    if spec.model.factory is None:
        found["model"] = (MODELS, names("model", "name"))
    return found


def _name(value: Any) -> str:
    """Return the name of an optimizer or a model, or the reference of its factory."""
    return str(_field(value, "factory") or value)


def _default(spec: Spec, section: str | int, *path: str | int) -> Any:
    """Return the default of a parameter, if all optimizers or models of the run have the same one."""
    table, in_play = _in_play(spec).get(str(section), ({}, []))
    defaults = [table[name].parameters.get(str(path[0])) if name in table else None for name in in_play]
    agreed = len(path) == 1 and defaults and all(value == defaults[0] for value in defaults)
    return defaults[0] if agreed else None


def varied(spec: Spec) -> dict[str, list[Any]]:
    """Return the factors with their values: those that `factors` names, of a range its two ends, or `configurations`.

    A factor that is null is switched off (in a profile).
    """
    found: dict[str, list[Any]] = {}
    for key, named in _named_values(spec).items():
        labels: list[Any] = []
        for _, value in named:
            if spec.configurations is None or frozen(_label(value)) not in labels:
                found.setdefault(key, []).append(value)
                labels.append(frozen(_label(value)))
    return found


def _named_values(spec: Spec) -> dict[str, list[tuple[KeyPath, Any]]]:
    """Return each factor's values with their places."""
    found: dict[str, list[tuple[KeyPath, Any]]] = {}
    if spec.configurations is not None:
        for number, entry in enumerate(spec.configurations):
            for key, given in entry.items():
                place: KeyPath = ("configurations", number, key)
                several = isinstance(given, list)
                values = [((*place, i), v) for i, v in enumerate(given)] if several else [(place, given)]
                found.setdefault(key, []).extend(values)
        return {key: values for key, values in found.items() if values}
    factors: Mapping[str, Any] = spec.factors
    for key, values in factors.items():
        if values:
            listed = [values["low"], values["high"]] if isinstance(values, Mapping) else values
            found[key] = [(("factors", key, index), value) for index, value in enumerate(listed)]
    return found


def _listed(spec: Spec) -> list[dict[str, Any]]:
    """Return the configurations that the spec lists. A field that one leaves out is as in the spec's own sections."""
    start = baseline(spec)
    cells = []
    for entry in spec.configurations or ():
        lists = [values if isinstance(values, list) else [values] for values in entry.values()]
        cells += [start | dict(zip(entry, values, strict=True)) for values in itertools.product(*lists)]
    return cells


def _configurations(spec: Spec) -> list[dict[str, Any]]:
    """Return one mapping factor -> value for each configuration of the design."""
    factors = varied(spec)
    if spec.configurations is not None:
        cells = _listed(spec)
        return _counted(spec, cells, len(cells))
    if spec.design == "one-at-a-time" or isinstance(spec.design, SearchDesign):
        # A search trains none of these: they are built once, to check every value before it begins.
        start = baseline(spec)
        cells = [start] + [
            {**start, key: value}
            for key, values in factors.items()
            for value in values
            if not same_value(_label(value), start[key])
        ]
        return _counted(spec, cells, len(cells))
    total = math.prod(len(values) for values in factors.values())
    if isinstance(spec.design, RandomDesign):
        count = min(spec.design.random, total)
        _counted(spec, [], count)
        numbers = _drawn(random.Random(f"{spec.name}:design"), total, count)
        return [_cell(factors, number) for number in sorted(numbers)]
    if total * len(spec.seeds) > MAX_TRIALS:
        return _counted(spec, [], total)
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


def _drawn(generator: random.Random, total: int, count: int) -> list[int]:
    """Draw `count` different numbers below `total`."""
    if total <= sys.maxsize:
        return generator.sample(range(total), count)
    numbers: set[int] = set()
    while len(numbers) < count:  # a number is hardly ever drawn twice
        numbers.add(generator.randrange(total))
    return list(numbers)


def without_factors(spec: Spec, is_dropped: Callable[[str], bool]) -> Spec:
    """Return the spec without some of its factors. Configurations of a list that then are equal count once."""
    factors = {key: values for key, values in spec.factors.items() if not is_dropped(key)}
    listed = spec.configurations
    if listed is not None:
        left = [{key: value for key, value in entry.items() if not is_dropped(key)} for entry in listed]
        listed = left if any(left) else None
    return spec.model_copy(update={"factors": factors, "configurations": listed})


def _counted(spec: Spec, cells: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Refuse designs of too many trials."""
    if count * len(spec.seeds) > MAX_TRIALS:
        raise InputError(
            f"{spec.name}: design",
            f"{count:,} configurations x {len(spec.seeds)} seeds are more than {MAX_TRIALS:,} trials",
            to_do="Use fewer values, one-at-a-time or {random: 20}",
        )
    return cells


def _cell(factors: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """Return the grid's cell of this number, with the last factor varying fastest."""
    cell: dict[str, Any] = {}
    for key, values in reversed(factors.items()):
        number, index = divmod(number, len(values))
        cell[key] = values[index]
    return {key: cell[key] for key in factors}


def make_trial(spec: Spec, factors: dict[str, Any], seed: int) -> Trial:
    """Put the factors' values into the spec and name the trial after them."""
    labels = {key: _label(value) for key, value in factors.items()}
    name = _id(labels, seed)
    try:
        applied = Spec.model_validate(_applied(spec, factors))
    except ValidationError as error:
        raise InputError(f"{spec.name}: {name}", f"{finding_text(error.errors()[0])}") from None
    return Trial(name, labels, seed, applied)


def _id(labels: Mapping[str, Any], seed: int) -> str:
    return ",".join(filter(None, [_named(labels), f"seed={seed}"]))


def _named(labels: Mapping[str, Any]) -> str:
    return ",".join(f"{key_id(key)}={value_id(value)}" for key, value in labels.items())


def _applied(spec: Spec, factors: dict[str, Any]) -> dict[str, Any]:
    """Return the spec as plain data with the factors' values in their fields and no factors.

    A bare schedule name or factory that `train` names too has `train`'s parameters. A key of an optimizer's factory is
    left out where the optimizer is a known one.
    """
    data = spec.model_dump(exclude={"profiles"}, exclude_unset=True)
    data["factors"], data["configurations"] = {}, None
    for key, value in sorted(factors.items(), key=lambda item: len(factor_path(item[0], spec))):
        path = factor_path(key, spec)
        if isinstance(value, LeftOut):
            continue
        if path == _SCHEDULE and value == spec.train.schedule.name:
            continue
        if path == _OPTIMIZER and value == _field(spec.train.optimizer, "factory"):
            continue
        if _is_key_of_optimizer(path) and not _takes_keys(data["train"]):
            continue
        *above, last = path
        target: Any = data
        for part in above:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                break
        target[last] = copy.deepcopy(value)
    return data


def _is_key_of_optimizer(path: KeyPath) -> bool:
    return path[:2] == _OPTIMIZER and len(path) > 2


def _takes_keys(train: dict[str, Any]) -> bool:
    """Whether the optimizer is a factory. Its bare reference then becomes a mapping that can take keys."""
    optimizer = train.get("optimizer")
    if isinstance(optimizer, str) and ":" in optimizer:
        train["optimizer"] = {"factory": optimizer}
    return isinstance(train.get("optimizer"), dict)


def _label(value: Any) -> Any:
    """Return a factor's value as a person writes it. A mapping with a name alone is that name."""
    if isinstance(value, Mapping) and set(value) in ({"name"}, {"factory"}):
        return next(iter(value.values()))
    return dict(value) if isinstance(value, Mapping) else value
