"""Factors name fields, designs make configurations, trials run in an order that drift cannot bias."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from fusetune.bench.errors import InputError
from fusetune.bench.spec.design import (
    Trial,
    _configurations,
    _drawn,
    baseline,
    check_factors,
    expand,
    lay_out,
    without_factors,
)
from fusetune.bench.spec.load import load_spec
from fusetune.bench.spec.spec import Spec
from fusetune.bench.spec.values import LEFT_OUT
from fusetune.bench.stats import significance
from tests.bench.spec_text import SPEC


def spec(**changes: object) -> Spec:
    return Spec.model_validate({**yaml.safe_load(SPEC), **changes})


def factors(trials: list[Trial], seed: int = 0) -> list[tuple[object, ...]]:
    return [tuple(trial.factors.values()) for trial in trials if trial.seed == seed]


def test_a_grid_holds_every_combination_once_for_each_seed() -> None:
    trials = expand(spec())
    wanted = {(b, s, o) for b in (32, 64) for s in ("constant", "one-cycle") for o in ("momentum", "adam")}
    for seed in (0, 1):
        assert Counter(factors(trials, seed)) == Counter(wanted)
    assert len({trial.id for trial in trials}) == len(trials) == 16


def test_a_trial_carries_its_values_in_their_fields() -> None:
    trial = next(t for t in expand(spec()) if t.id == "batch_size=32,schedule=constant,optimizer=adam,seed=1")
    assert trial.seed == 1
    assert (trial.spec.train.batch_size, trial.spec.train.optimizer) == (32, "adam")
    assert trial.spec.train.schedule.name == "constant"
    assert trial.spec.train.schedule.parameters == {}


def test_a_bare_schedule_name_that_train_names_keeps_trains_parameters() -> None:
    trial = next(t for t in expand(spec()) if t.factors["schedule"] == "one-cycle")
    assert trial.spec.train.schedule.parameters == {"pct_start": 0.25}


def test_dotted_factors_reach_into_sections_and_mappings() -> None:
    varied = {"model.width": [8, 16], "schedule.pct_start": [0.1, 0.4], "data.augment.cutout": [0, 2]}
    trials = expand(spec(factors=varied, seeds=1))
    cells = {
        (t.spec.model.width, t.spec.train.schedule.parameters["pct_start"], t.spec.data.augment.cutout)
        for t in trials
    }
    assert cells == {(w, p, c) for w in (8, 16) for p in (0.1, 0.4) for c in (0, 2)}


def test_mappings_are_values_and_named_readably() -> None:
    trials = expand(spec(factors={"schedule": [{"name": "step", "gamma": 0.5}, "cosine"]}, seeds=1))
    assert {t.id for t in trials} == {"schedule=step(gamma=0.5),seed=0", "schedule=cosine,seed=0"}


def test_one_at_a_time_varies_each_factor_around_train() -> None:
    trials = expand(spec(design="one-at-a-time", seeds=1))
    start = baseline(spec())
    assert start == {"batch_size": 64, "schedule": "one-cycle", "optimizer": "momentum"}
    changed = [{key for key in start if trial.factors[key] != start[key]} for trial in trials]
    assert all(len(keys) <= 1 for keys in changed)
    assert Counter(map(frozenset, changed)) == {
        frozenset(): 1,
        frozenset({"batch_size"}): 1,
        frozenset({"schedule"}): 1,
        frozenset({"optimizer"}): 1,
    }


def test_a_random_design_draws_distinct_cells_of_the_grid_reproducibly() -> None:
    grid = set(factors(expand(spec(seeds=1))))
    drawn = factors(expand(spec(design={"random": 5}, seeds=1)))
    assert len(set(drawn)) == 5
    assert set(drawn) <= grid
    assert drawn == factors(expand(spec(design={"random": 5}, seeds=1)))
    assert set(factors(expand(spec(design={"random": 99}, seeds=1)))) == grid


def test_seeds_are_blocks_in_different_orders() -> None:
    trials = expand(spec(seeds=[3, 7, 9]))
    assert [trial.seed for trial in trials] == [3] * 8 + [7] * 8 + [9] * 8
    orders = {tuple(factors(trials, seed)) for seed in (3, 7, 9)}
    assert len(orders) == 3
    assert [t.id for t in trials] == [t.id for t in expand(spec(seeds=[3, 7, 9]))]


def test_no_factors_make_one_configuration() -> None:
    assert [trial.id for trial in expand(spec(factors={}))] == ["seed=0", "seed=1"]


def test_the_baseline_is_trains_own_configuration() -> None:
    own = {"name": "one-cycle", "pct_start": 0.25}
    assert baseline(spec(factors={"schedule": ["cosine", "constant"]})) == {"schedule": own}
    assert baseline(spec(factors={"schedule": ["cosine", "one-cycle"]})) == {"schedule": "one-cycle"}


def test_what_a_spec_leaves_out_is_its_default_by_name() -> None:
    """So that one-at-a-time does not train the same thing as `default` and as `relu`, and a report finds it."""
    varied = {"activation": ["relu", "gelu"], "width": [16, 128], "weight_decay": [0.0, 0.1]}
    start = {"activation": "relu", "width": 128, "weight_decay": 0.0}
    for model in ({"name": "mlp"}, {"name": "mlp", "activation": None}):
        assert baseline(spec(model=model, factors=varied)) == start
    trials = expand(spec(model={"name": "mlp"}, factors=varied, design="one-at-a-time", seeds=[0]))
    assert [trial.factors for trial in trials if trial.factors == start] == [start]
    assert len(trials) == 1 + 3


def test_a_default_that_depends_on_another_factor_has_no_name() -> None:
    varied = {"optimizer": ["momentum", "adamw"], "weight_decay": [0.1, 0.2]}
    assert baseline(spec(factors=varied))["weight_decay"] is LEFT_OUT  # adamw's is 0.01
    own = {"factory": "my.models:make"}
    assert baseline(spec(model=own, factors={"model.width": [1, 2]})) == {"model.width": LEFT_OUT}
    assert baseline(spec(model={**own, "width": None}, factors={"model.width": [1, 2]})) == {
        "model.width": None
    }
    assert baseline(spec(factors={"dropout": [None, 0.5]})) == {"dropout": None}
    assert baseline(spec(factors={"train.grad_clip": [1.0, 2.0]})) == {"train.grad_clip": LEFT_OUT}


def test_the_baseline_is_found_in_the_grid_by_what_it_comes_to() -> None:
    """Defaults that differ from model to model or from optimizer to optimizer do not hide it."""
    varied = {"model.name": ["cnn", "mlp"], "norm": ["batch", "none"], "dropout": [0, 0.5]}
    model = {"name": "mlp", "width": 32}
    assert lay_out(spec(model=model, factors=varied)).baseline == {
        "model.name": "mlp",
        "norm": "none",
        "dropout": 0,
    }
    varied = {"optimizer": ["adamw", "momentum"], "weight_decay": [0.0, 0.1]}
    found = lay_out(spec(factors=varied))
    assert found.baseline == {"optimizer": "momentum", "weight_decay": 0.0}
    assert found.baseline in [trial.factors for trial in found.trials]


SAME = [
    ({}, {"norm": ["none", None]}, 1),
    ({}, {"width": [32, 64, None, 128]}, 3),
    ({}, {"dropout": [0, 0.0]}, 1),
    ({}, {"weight_decay": [None, 0.1, 0.0]}, 2),
    ({}, {"schedule": ["cosine", {"name": "cosine", "min_factor": 0.0}]}, 1),
    ({}, {"data.augment": [{}, {"flip": False}]}, 1),
    ({"data": {"name": "digits"}}, {"data.limit": [500, None]}, None),
    ({"model": {"factory": "a:b"}}, {"model.heads": [4, None]}, None),
    ({"model": {"factory": "a:b"}}, {"model.width": [4, None]}, None),
    ({}, {"optimizer": ["sgd", "adam"], "betas": [[0.9, 0.99], [0.8, 0.99]]}, None),
    ({}, {"model.name": ["mlp", "cnn"], "norm": ["batch", None]}, None),
]


@pytest.mark.parametrize(("changes", "varied", "index"), SAME, ids=lambda value: str(value))
def test_values_that_come_to_the_same_are_refused_where_they_stand(
    changes: dict[str, object], varied: dict[str, object], index: int | None
) -> None:
    findings = list(check_factors(spec(**changes, factors=varied)))
    (key,) = list(varied)[-1:]
    assert [path for path, _ in findings] == ([] if index is None else [("factors", key, index)])
    assert all("same training" in sentence for _, sentence in findings)


def test_configurations_that_come_to_the_same_are_trained_once_and_named() -> None:
    found = lay_out(
        spec(factors={"optimizer": ["sgd", "adam"], "betas": [[0.9, 0.99], [0.8, 0.99]]}, seeds=2)
    )
    assert found.same == ["optimizer=sgd,betas=[0.8;0.99] = optimizer=sgd,betas=[0.9;0.99]"]
    assert Counter(t.seed for t in found.trials) == {0: 3, 1: 3}
    search = {"search": {"budget_epochs": 9}}
    ranged = {"optimizer": ["sgd", "adam"], "eps": {"low": 1e-9, "high": 1e-7, "log": True}}
    assert lay_out(spec(factors=ranged, design=search, seeds=1)).same == [
        "optimizer=sgd,eps=1e-07 = optimizer=sgd,eps=1e-09"
    ]
    precision = spec(factors={"precision": ["auto", "fp32"]}, seeds=1)
    assert [len(lay_out(precision, device).trials) for device in ("cpu", "cuda", None)] == [1, 2, 2]
    # By PyTorch's definitions: nesterov is momentum's flag, and without a decay AdamW is Adam.
    names = spec(
        factors={"optimizer": ["momentum", "nesterov", "adam", "adamw"], "weight_decay": [0.0, 0.1]}, seeds=1
    )
    assert lay_out(names).same == ["optimizer=adamw,weight_decay=0.0 = optimizer=adam,weight_decay=0.0"]


def test_a_null_for_a_factorys_own_key_is_a_value_and_leaving_it_out_is_another() -> None:
    own = {"factory": "my.models:make"}
    varied = {"model.width_cap": [4, None], "model.width": [8, None]}
    trials = expand(spec(model=own, factors=varied, seeds=1))
    assert {(t.spec.model.arguments["width_cap"], t.spec.model.arguments["width"]) for t in trials} == {
        (4, 8), (4, None), (None, 8), (None, None),
    }  # fmt: skip
    assert "model.width_cap=null,model.width=8,seed=0" in {t.id for t in trials}
    one = expand(spec(model=own, factors={"model.width_cap": [4, None]}, design="one-at-a-time", seeds=1))
    arguments = {t.factors["model.width_cap"]: t.spec.model.arguments for t in one}
    assert arguments == {"default": {}, 4: {"width_cap": 4}, None: {"width_cap": None}}


def test_an_optimizer_of_ones_own_is_a_level_beside_named_ones_and_its_keys_are_factors() -> None:
    train = {**yaml.safe_load(SPEC)["train"], "optimizer": {"factory": "mine:Lion", "beta": 0.8, "copy": 1}}
    own = {"factory": "mine:Lion", "beta": None}
    varied = {"optimizer": ["adam", "mine:Lion", own], "optimizer.gamma": [1, 2]}
    mixed = spec(train=train, factors=varied, seeds=[0])
    assert not list(check_factors(mixed))
    assert baseline(mixed) == {"optimizer": "mine:Lion", "optimizer.gamma": LEFT_OUT}
    made = {trial.id: trial.spec.resolved()["train"]["optimizer"] for trial in expand(mixed)}
    # A bare reference that `train` names is the one of `train`. A named optimizer leaves the keys out, and is one.
    assert made == {"optimizer=adam,optimizer.gamma=1,seed=0": "adam"} | {
        f"optimizer={label},optimizer.gamma={gamma},seed=0": {**keys, "gamma": gamma}
        for gamma in (1, 2)
        for label, keys in (("mine:Lion", train["optimizer"]), ("mine:Lion(beta=null)", own))
    }
    assert lay_out(mixed).same == ["optimizer=adam,optimizer.gamma=2 = optimizer=adam,optimizer.gamma=1"]
    assert mixed.factors["optimizer"] == ["adam", "mine:Lion", own]
    nulls = [trial.spec.train.optimizer for trial in expand(mixed) if "null" in trial.id]
    assert [dict(each)["beta"] for each in nulls] == [None, None]  # type: ignore[arg-type]
    assert baseline(spec(train=train, factors={"optimizer.beta": [0.8, 0.9]})) == {"optimizer.beta": 0.8}
    ((path, text),) = check_factors(spec(train=train, factors={"weight_decay": [0.1, 0.2]}))
    assert path == ("factors", "weight_decay")
    assert "mapping" in text


def test_designs_that_never_end_are_refused() -> None:
    many = {"batch_size": list(range(1, 400)), "epochs": list(range(1, 400))}
    with pytest.raises(InputError, match="159,201 configurations x 2 seeds are more than 100,000"):
        expand(spec(factors=many))
    assert len(expand(spec(factors=many, design={"random": 3}))) == 6


def test_a_random_design_of_more_than_there_can_be_is_refused_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = {key: list(range(1, 90_000)) for key in ("batch_size", "epochs", "accumulation_steps")}
    monkeypatch.setattr("fusetune.bench.spec.design._drawn", None)
    with pytest.raises(InputError, match="1,000,000,000 configurations x 2 seeds are more than 100,000"):
        list(_configurations(spec(factors=many, design={"random": 10**9})))


def test_a_few_are_drawn_of_more_cells_than_a_sequence_can_have() -> None:
    total = 10**30
    drawn = _drawn(random.Random(0), total, 500)
    assert len(set(drawn)) == 500
    assert all(0 <= number < total for number in drawn)
    assert 0.4 * total < sum(drawn) / 500 < 0.6 * total  # a standard error is 0.013


def test_shipped_specs_expand(request: pytest.FixtureRequest) -> None:
    from fusetune.bench.spec.load import load_spec

    # Those of kernels have a schema of their own: tests/bench/kernels/test_spec.py.
    every = sorted((Path(request.config.rootpath) / "specs").glob("*.yaml"))
    paths = [path for path in every if "\nkernels:" not in path.read_text()]
    assert len(paths) >= 3
    for path in paths:
        for device in ("cpu", "cuda"):
            assert expand(load_spec(path, device=device).spec)


LISTED = [{"batch_size": 32, "optimizer": "adam"}, {"batch_size": [64, 128], "betas": [[0.9, 0.95]]}, {}]


def listing(entries: object, **changes: object) -> Spec:
    train = {**yaml.safe_load(SPEC)["train"], "optimizer": "adamw"}
    return spec(**{"factors": {}, "train": train, **changes}, configurations=entries)


def test_a_list_of_configurations_is_trained_as_it_stands() -> None:
    found = lay_out(listing(LISTED, seeds=[3, 4]))
    usual = [0.9, 0.999]
    rows = [
        (32, "adam", usual),
        (64, "adamw", [0.9, 0.95]),
        (128, "adamw", [0.9, 0.95]),
        (64, "adamw", usual),
    ]
    assert [trial.seed for trial in found.trials] == [3] * 4 + [4] * 4
    for seed in (3, 4):
        block = [trial for trial in found.trials if trial.seed == seed]
        assert sorted(map(str, rows)) == sorted(str(tuple(trial.factors.values())) for trial in block)
        assert all(trial.spec.train.betas == trial.factors["betas"] for trial in block)
    assert found.baseline == {"batch_size": 64, "optimizer": "adamw", "betas": usual}
    # A key that one leaves out is left out, and not the value that train's optimizer would have.
    decays = lay_out(listing([{"optimizer": "adam"}, {"weight_decay": 0.1}], seeds=1))
    assert {(t.spec.train.optimizer, t.spec.train.weight_decay) for t in decays.trials} == {
        ("adam", None),
        ("adamw", 0.1),
    }


@pytest.mark.parametrize(
    ("entries", "changes", "path", "words"),
    [
        ([{"batch_sise": 1}], {}, ("configurations", 0, "batch_sise"), "Did you mean 'batch_size'"),
        ([{}, {"batch_size": "x"}], {}, ("configurations", 1, "batch_size"), "valid integer"),
        ([{"batch_size": [8, "x"]}], {}, ("configurations", 0, "batch_size", 1), "valid integer"),
        ([{"betas": [0.9, 0.99]}], {}, ("configurations", 0, "betas", 0), "[[...]]"),
        ([{"batch_size": []}], {}, ("configurations", 0, "batch_size"), "at least 1"),
        ([{"batch_size": {"low": 1, "high": 2}}], {}, ("configurations", 0, "batch_size"), "valid integer"),
        ([{"alpha": 0.9}], {}, ("configurations", 0, "alpha"), "does not take it"),
        ([{"batch_size": 64}, {}], {}, ("configurations", 1), "same training as configurations[0]"),
        ([{"batch_size": [8, 8]}], {}, ("configurations", 0), "same training as configurations[0]"),
        ([{}], {"factors": {"batch_size": [1]}}, ("configurations",), "--set 'factors={}'"),
        ([{}], {"design": {"search": {"budget_epochs": 9}}}, ("configurations",), "design search"),
    ],
)
def test_a_list_of_configurations_is_checked_where_it_stands(
    entries: object, changes: dict[str, object], path: tuple[object, ...], words: str
) -> None:
    (found, sentence), *_ = check_factors(listing(entries, **changes))
    assert found == path
    assert words in sentence


def test_factors_that_a_command_does_not_vary_leave_a_list_too() -> None:
    reduced = without_factors(listing(LISTED), {"batch_size"}.__contains__)
    assert sorted(str(t.factors) for t in expand(reduced) if t.seed == 0) == [
        "{'optimizer': 'adam', 'betas': [0.9, 0.999]}",
        "{'optimizer': 'adamw', 'betas': [0.9, 0.95]}",
        "{'optimizer': 'adamw', 'betas': [0.9, 0.999]}",
    ]
    assert without_factors(listing([{"batch_size": 8}]), {"batch_size"}.__contains__).configurations is None


def test_what_make_run_trains_without_a_gpu_can_tell_the_first_from_the_others() -> None:
    path = Path(__file__).parents[3] / "specs" / "cifar.yaml"
    shipped = load_spec(path, device="cpu").spec
    configurations = len({str(trial.factors) for trial in expand(shipped)})
    assert configurations >= 3
    assert len(shipped.seeds) >= significance.least_n(math.comb(configurations, 2))


def test_the_number_of_devices_must_divide_the_batch() -> None:
    with pytest.raises(InputError, match=r"batch_size=50,devices=4,.* Use a batch_size of 48 or 52$"):
        expand(spec(factors={"batch_size": [48, 50], "devices": [1, 2, 4]}))
    sizes = [
        (t.spec.train.batch_size, t.spec.train.devices) for t in expand(spec(factors={"devices": [1, 4]}))
    ]
    assert set(sizes) == {(64, 1), (64, 4)}


def test_the_way_to_share_a_batch_makes_a_difference_on_several_devices_alone() -> None:
    both = spec(factors={"devices": [1, 2], "parallel": ["ddp", "fsdp"]})
    assert list(check_factors(both)) == []
    layout = lay_out(both)
    assert len(layout.trials) == 3 * len(spec().seeds)
    assert layout.same == ["devices=1,parallel=fsdp = devices=1,parallel=ddp"]
    [(path, text)] = check_factors(spec(factors={"parallel": ["ddp", "fsdp"]}))
    assert (path, "gives the same training as ddp" in text) == (("factors", "parallel", 1), True)


def test_a_search_has_one_device() -> None:
    search = {"search": {"budget_epochs": 8}}
    varied = spec(design=search, factors={"devices": [1, 2], "base_lr": [0.1, 0.2]})
    assert [path for path, text in check_factors(varied) if "pauses its trainings" in text] == [
        ("factors", "devices")
    ]
