"""A spec is strict, merged in a fixed order, and each mistake is one sentence with file, line and key path."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune import closest_name
from fusetune.bench import catalog
from fusetune.bench.errors import InputError
from fusetune.bench.spec.design import expand
from fusetune.bench.spec.load import difference, load_spec
from fusetune.bench.spec.spec import SECTIONS, Spec
from fusetune.tuner.schedules.table import SCHEDULES
from tests.bench.spec_text import SPEC


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


def test_a_spec_is_read_with_its_units_and_defaults(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, SPEC), device="other").spec
    assert spec.limits.memory == 2 * 2**30
    assert spec.limits.trial_time == 60.0
    assert spec.seeds == [0, 1]
    assert spec.train.schedule.name == "one-cycle"
    assert spec.train.schedule.parameters == {"pct_start": 0.25}
    assert spec.train.precision == "auto"
    assert spec.data.augment.translate == 0


def test_the_profile_of_the_device_is_merged_and_said(tmp_path: Path) -> None:
    loaded = load_spec(write(tmp_path, SPEC), device="cpu")
    assert (loaded.profile, loaded.spec.train.epochs, loaded.spec.seeds) == ("cpu", 2, [0])
    assert loaded.spec.train.base_lr == 0.05
    assert loaded.changes == ("train.epochs: 3 -> 2", "seeds: 2 -> 1")


def test_the_specs_own_device_chooses_the_profile(tmp_path: Path) -> None:
    loaded = load_spec(write(tmp_path, SPEC), overrides=["device=cpu"], device="cuda")
    assert loaded.profile == "cpu"


def test_overrides_win_over_the_profile_and_are_validated_alike(tmp_path: Path) -> None:
    path = write(tmp_path, SPEC)
    loaded = load_spec(path, overrides=["train.epochs=7", "factors.model.width=[8, 16]", "data.limit=100"])
    assert loaded.spec.train.epochs == 7
    assert loaded.spec.factors["model.width"] == [8, 16]
    assert loaded.spec.data.limit == 100
    with pytest.raises(InputError, match=r"^--set: train\.epochs: must be a whole number, is 'seven'"):
        load_spec(path, overrides=["train.epochs=seven"])
    with pytest.raises(InputError, match=r"^--set train\.epochs: must be key\.path=value"):
        load_spec(path, overrides=["train.epochs"])


def test_an_empty_mapping_empties_what_it_stands_over(tmp_path: Path) -> None:
    path = write(tmp_path, SPEC)
    emptied = load_spec(path, overrides=["factors={}", "limits={}", "data.augment={}", "profiles={}"])
    assert (emptied.spec.factors, emptied.spec.limits.memory, emptied.profile) == ({}, None, None)
    assert load_spec(path, overrides=["factors={}", "factors.batch_size=[8]"]).spec.factors == {
        "batch_size": [8]
    }
    in_profile = write(
        tmp_path,
        SPEC.replace("seeds: 1}", "seeds: 1, factors: {}}").replace("cuda: {train: {epochs: 9}}", "cuda: {}"),
    )
    assert load_spec(in_profile, device="cpu").spec.factors == {}
    assert len(load_spec(in_profile, device="cuda").spec.factors) == 3
    with pytest.raises(InputError, match=r"^--set: train\.schedule\.name: is missing"):
        load_spec(path, overrides=["train.schedule={}"])


def test_configurations_can_take_the_place_of_factors_from_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, SPEC)
    listed = "configurations=[{batch_size: 32},\n {optimizer: adam, batch_size: [8, 16]}]"
    loaded = load_spec(path, overrides=["factors={}", "seeds=1", listed])
    assert [trial.factors["batch_size"] for trial in expand(loaded.spec)].count(32) == 1
    assert len(expand(loaded.spec)) == 3
    assert load_spec(path, overrides=["factors={}", listed]).spec.resolved()["configurations"] == [
        {"batch_size": 32},
        {"optimizer": "adam", "batch_size": [8, 16]},
    ]
    with pytest.raises(InputError, match=r"^--set: configurations\[1\]\.lr: no such field"):
        load_spec(path, overrides=["factors={}", "configurations=[{}, {lr: 3}]"])
    text = SPEC.replace("factors: {", "configurations:\n  - {batch_size: 1}\n  - {norm: bach}\nx: {")
    text = "\n".join(
        line for line in text.splitlines() if not line.startswith(("x:", "         ", "          opt"))
    )
    with pytest.raises(
        InputError, match=r"small\.yaml:7: configurations\[1\]\.norm: unknown 'bach'.*'batch'"
    ):
        load_spec(write(tmp_path, text.replace("epochs: 3,", "epochs: 3}")))


def test_a_null_in_a_profile_switches_a_factor_off(tmp_path: Path) -> None:
    text = SPEC.replace("seeds: 1}", "seeds: 1, factors: {schedule: null}}")
    assert load_spec(write(tmp_path, text), device="cpu").spec.factors["schedule"] is None


BAD = [
    ("base_lr: 0.05", "bas_lr: 0.05", "small.yaml:4: train.bas_lr: unknown key; known: accumulation_steps"),
    (
        "optimizer: momentum, base",
        "optimizer: adamwt, base",
        "small.yaml:4: train.optimizer: unknown 'adamwt'; known",
    ),
    (
        "optimizer: momentum, base",
        "optimizer: 'a:b:c', base",
        "small.yaml:4: train.optimizer.factory: 'a:b:c' is not of the form",
    ),
    (
        "optimizer: momentum, base",
        "optimizer: {factory: 'a:b', lr: 1}, base",
        "small.yaml:4: train.optimizer: lr is train.base_lr",
    ),
    (
        "optimizer: momentum, base",
        "optimizer: {name: adam}, base",
        "small.yaml:4: train.optimizer: a mapping is for a factory",
    ),
    (
        "optimizer: momentum, base",
        "optimizer: 3, base",
        "small.yaml:4: train.optimizer: must be a text, is 3",
    ),
    ("epochs: 3", "epochs: 3.5", "small.yaml:4: train.epochs: must be a whole number, is 3.5"),
    ("epochs: 3", "epochs: three", "small.yaml:4: train.epochs: must be a whole number, is 'three'"),
    ("epochs: 3", "epochs: true", "small.yaml:4: train.epochs: must be a whole number, is True"),
    ("epochs: 3", "epochs: 0", "small.yaml:4: train.epochs: must be at least 1, is 0"),
    ("base_lr: 0.05", "base_lr: .nan", "small.yaml:4: train.base_lr: '.nan' is not a finite number"),
    ("base_lr: 0.05", "base_lr: -1", "small.yaml:4: train.base_lr: must be above 0, is -1"),
    ("base_lr: 0.05, ", "", "small.yaml:4: train.base_lr: is missing. Add it"),
    (
        "base_lr: 0.05",
        "base_lr: 0.05, alpha: 0.9",
        "small.yaml:4: train.alpha: momentum, adam does not take it",
    ),
    (
        "base_lr: 0.05",
        "base_lr: 0.05, betas: [0.9]",
        "small.yaml:4: train.betas: must have at least 2 values",
    ),
    ("pct_start", "pct_strat", "small.yaml:5: train.schedule: schedule one-cycle: unknown 'pct_strat'"),
    ("name: one-cycle", "name: one-circle", "small.yaml:5: train.schedule.name: unknown 'one-circle'"),
    ("width: 32", "widht: 32", "small.yaml:3: model.widht: unknown key; known: activation, depth"),
    ("name: mlp", "name: linear", "small.yaml:3: model.width: linear does not take it"),
    ("name: mlp", "name: mlp, factory: 'a:b'", "small.yaml:3: model: has both a name and a factory"),
    ("name: mlp, ", "factory: here, ", "small.yaml:3: model.factory: 'here' is not of the form"),
    ("name: digits", "name: cifar", "small.yaml:2: data.name: unknown 'cifar'; known: cifar10"),
    ("name: digits", "name: npz", "small.yaml:2: data: npz needs a path"),
    ("name: digits", "name: folder", "small.yaml:2: data: folder needs a path"),
    ("name: digits", "name: digits, labels: a.csv", "small.yaml:2: data: labels is for name: folder"),
    ("name: digits", "name: digits, path: a", "small.yaml:2: data: path is for name: npz or folder"),
    (
        "name: digits",
        "name: folder, path: a, size: [4]",
        "small.yaml:2: data.size: must be one number or [height, width]",
    ),
    (
        "name: digits",
        "name: folder, path: a, size: 0",
        "small.yaml:2: data.size[0]: must be at least 1, is 0",
    ),
    (
        "name: digits",
        "name: digits, stand_in: spirals",
        "small.yaml:2: data: stand_in is for a set that may be missing",
    ),
    ("flip: false", "flip: nope", "small.yaml:2: data.augment.flip: must be true or false, is 'nope'"),
    (
        "flip: false",
        "flop: false",
        "small.yaml:2: data.augment.flop: unknown key; known: cutout, flip, translate",
    ),
    ("batch_size: [32, 64]", "batch_sise: [32]", "small.yaml:6: factors.batch_sise: no such field; known"),
    ("batch_size: [32, 64]", "batch_size: [32, x]", "small.yaml:6: factors.batch_size[1]: "),
    ("batch_size: [32, 64]", "batch_size: [32, 32]", "small.yaml:6: factors.batch_size[1]: 32 appears twice"),
    (
        "batch_size: [32, 64]",
        "batch_size: []",
        "small.yaml:6: factors.batch_size: must have at least 1 values",
    ),
    (
        "batch_size: [32, 64]",
        "batch_size.x: [1]",
        "small.yaml:6: factors.batch_size.x: train.batch_size is one",
    ),
    (
        "batch_size: [32, 64]",
        "optimizer.x: [1]",
        "small.yaml:6: factors.optimizer.x: momentum, adam is no factory",
    ),
    ("batch_size: [32, 64]", "batch_size: 32", "small.yaml:6: factors.batch_size: must be a list, is 32"),
    (
        "batch_size: [32, 64]",
        "name: [a]",
        "small.yaml:6: factors.name: 'name' is ambiguous. Write model.name or",
    ),
    (
        "batch_size: [32, 64]",
        "model: [mlp]",
        "small.yaml:6: factors.model: 'model' is a section, not a field",
    ),
    (
        "batch_size: [32, 64]",
        "train.optimizer: [sgd]",
        "small.yaml:6: factors.optimizer: names the same field as",
    ),
    ("[momentum, adam]", "[momentum, adem]", "small.yaml:6: factors.optimizer[1]: unknown 'adem'; known"),
    ("design: grid", "design: gird", "small.yaml:7: design: unknown 'gird'; known: grid, one-at-a-time"),
    ("design: grid", "design: random", "small.yaml:7: design: 'random' needs a number of configurations"),
    ("design: grid", "design: {random: 0}", "small.yaml:7: design.random: must be at least 1, is 0"),
    (
        "design: grid",
        "design: {rand: 3}",
        "small.yaml:7: design.rand: unknown key; known: random. Did you mean",
    ),
    ("seeds: 2", "seeds: 0", "small.yaml:8: seeds: must be 1 to 1000 seeds, is 0"),
    ("seeds: 2", "seeds: [1, 1]", "small.yaml:8: seeds: names a seed twice"),
    (
        "at_least: 0.90",
        "at_least: 90",
        "small.yaml:9: target: at_least: an accuracy is a fraction of 1, is 90. Did you",
    ),
    ("at_least", "at_most", "small.yaml:9: target: val_accuracy needs at_least, and nothing else"),
    ("val_accuracy", "accuracy", "small.yaml:9: target.metric: unknown 'accuracy'; known: test_accuracy"),
    ("2GiB", "2GiX", "small.yaml:10: limits.memory: '2GiX' is not a quantity; known units"),
    ("2GiB", "0", "small.yaml:10: limits.memory: must be above 0, is 0"),
    ("1min", "-3", "small.yaml:10: limits.trial_time: must be above 0, is -3"),
    ("patience: 4, ", "", "small.yaml:11: early_stop.patience: is missing"),
    ("epochs: 2}", "epoch: 2}", "small.yaml:13: train.epoch: unknown key"),
    ("epochs: 9}", "epochs: 0}", "small.yaml:14: train.epochs: must be at least 1, is 0"),
    ("cuda:", "gpu:", "small.yaml:14: profiles.gpu: unknown 'gpu'; known: cpu, cuda"),
    ("name: small", "name: a/b", "small.yaml:1: name: 'a/b' may have letters"),
    ("name: small", "nam: small", "small.yaml:1: nam: unknown key; known: configurations, data"),
]


@pytest.mark.parametrize(
    ("old", "new", "complaint"), BAD, ids=[f"{new or 'without ' + old}" for old, new, _ in BAD]
)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert SPEC.count(old) >= 1
    with pytest.raises(InputError) as error:
        load_spec(write(tmp_path, SPEC.replace(old, new, 1)), device="cpu")
    first = str(error.value).replace(f"{tmp_path}/", "").splitlines()[0]
    assert first.startswith(complaint)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.lr=0.1", "base_lr"),
        ("train.learning_rate=0.1", "base_lr"),
        ("lr=0.1", "train.base_lr"),
        ("factors.lr=[0.1]", "base_lr"),
        ("factors.train.lr=[0.1]", "base_lr"),
        ("bs=8", "train.batch_size"),
        ("train.bs=8", "batch_size"),
        ("train.n_epochs=8", "epochs"),
        ("epochs=8", "train.epochs"),
        ("train.wd=0.1", "weight_decay"),
        ("train.scheduler=cosine", "schedule"),
        ("train.max_grad_norm=1", "grad_clip"),
        ("train.width=8", "model.width"),
        ("model.hidden_size=8", "width"),
        ("model.num_layers=8", "depth"),
        ("model.act=gelu", "activation"),
        ("data.val_split=8", "validation"),
        ("dataset={name: digits}", "data"),
        ("seed=3", "seeds"),
        ("train.optimizer=SGDM", "momentum"),
        ("train.schedule=OneCycleLR", "one-cycle"),
        ("train.schedule=CosineAnnealingLR", "cosine"),
        ("train.schedule=ReduceLROnPlateau", "plateau"),
        ("train.schedule={name: step, pct_start: 0.1}", None),
        ("train.schedule.step_size=3", None),
        ("train.precision=float16", "fp16"),
        ("model.activation=swish", "silu"),
        ("model.norm=BatchNorm2d", "batch"),
        ("target.metric=accuracy", "val_accuracy"),
        ("device=gpu", "cuda"),
    ],
)
def test_what_other_libraries_call_it_is_understood_and_answered(
    tmp_path: Path, override: str, meant: str | None
) -> None:
    with pytest.raises(InputError) as error:
        load_spec(write(tmp_path, SPEC), overrides=[override])
    text = str(error.value).splitlines()[0]
    assert meant is None or text.endswith(f"Did you mean '{meant}'?")


def test_every_name_of_the_table_of_aliases_is_one_of_ours() -> None:
    ours = {name for section in (*SECTIONS.values(), Spec) for name in section.model_fields}  # type: ignore[attr-defined]
    ours |= {
        *catalog.OPTIMIZERS,
        *catalog.MODELS,
        *catalog.ACTIVATIONS,
        *catalog.NORMS,
        *catalog.DATASETS,
        *SCHEDULES,
    }
    ours |= {*catalog.PRECISIONS, *catalog.METRICS_TO_REACH, "cuda", "grid", "one-at-a-time"}
    ours |= {name for schedule in SCHEDULES.values() for name in schedule.parameters}
    assert set(closest_name._OTHERS) <= ours


def test_several_mistakes_are_all_said(tmp_path: Path) -> None:
    text = (
        SPEC.replace("epochs: 3", "epochs: x")
        .replace("seeds: 2", "seeds: x")
        .replace("design: grid", "design: x")
    )
    with pytest.raises(InputError) as error:
        load_spec(write(tmp_path, text))
    lines = [line.replace(f"{tmp_path}/", "").split(":")[1] for line in str(error.value).splitlines()]
    assert lines == ["4", "7", "8"]


def test_a_factory_may_have_keys_of_its_own(tmp_path: Path) -> None:
    text = SPEC.replace(
        "{name: mlp, width: 32, activation: relu}", "{factory: 'mine:build', heads: 4, width: 8}"
    )
    text = text.replace("batch_size: [32, 64]", "heads.deep: [1], model.heads: [2, 4]")
    with pytest.raises(InputError, match=r"factors\.heads\.deep: no such field"):
        load_spec(write(tmp_path, text))
    spec = load_spec(write(tmp_path, text.replace("heads.deep: [1], ", ""))).spec
    assert spec.model.factory == "mine:build"
    assert spec.model.extras == {"heads": 4}


def test_a_factory_of_data_gets_keys_that_files_have_too(tmp_path: Path) -> None:
    own = "{factory: 'mine:load', path: here, labels: [1, 2], size: 3, depth: null, "
    data = load_spec(write(tmp_path, SPEC.replace("{name: digits, ", own))).spec.data
    assert data.factory_options == {"path": "here", "labels": [1, 2], "size": 3, "depth": None}
    folder = load_spec(
        write(tmp_path, SPEC.replace("name: digits", "name: folder, path: here, size: 3"))
    ).spec.data
    assert folder.of_files == {"path": "here", "size": [3, 3]}


def test_a_resolved_spec_is_a_valid_spec(tmp_path: Path) -> None:
    import yaml

    spec = load_spec(write(tmp_path, SPEC), device="cpu").spec
    again = load_spec(write(tmp_path, yaml.safe_dump(spec.resolved())), device="cpu").spec
    assert again.resolved() == spec.resolved()


def test_differences_are_listed_by_key_path() -> None:
    old = {"a": {"x": 1, "y": [1]}, "b": 2}
    assert difference(old, {"a": {"x": 2, "y": [1]}, "c": 3}) == [
        "a.x: 1 -> 2",
        "b: 2 -> (none)",
        "c: (none) -> 3",
    ]
    assert difference(old, old) == []
    assert difference({"a": None, "b": 1}, {"b": None}) == ["a: null -> (none)", "b: 1 -> null"]


FULL = """\
name: cifar
data:   {name: cifar10, stand_in: cifar10-like, validation: 5000, augment: {flip: true, translate: 2, cutout: 0}}
model:  {name: resnet9, width: 64, activation: relu}
train:  {optimizer: momentum, momentum: 0.9, nesterov: true, base_lr: 0.05, weight_decay: 5.0e-4, batch_size: 512,
         epochs: 16, schedule: {name: one-cycle}, label_smoothing: 0.1, precision: auto, grad_clip: null,
         accumulation_steps: 1}
factors: {batch_size: [64, 128, 256, 512], schedule: [constant, cosine, one-cycle, triangular],
          optimizer: [momentum, adam]}
design: grid              # or one-at-a-time, or {random: 20}
seeds: 3
target: {metric: val_accuracy, at_least: 0.90}
limits: {memory: 8GiB, trial_time: 10min}
early_stop: {patience: 4, min_delta: 0.001}
profiles: {cpu: {data: {limit: 4000}, train: {epochs: 4}, factors: {batch_size: [64, 256]}, seeds: 1}}
"""


@pytest.mark.parametrize(
    ("device", "change", "trials"),
    [
        ("cuda", "design: grid", 4 * 4 * 2 * 3),
        ("cpu", "design: grid", 2 * 4 * 2),
        ("cuda", "design: one-at-a-time", (1 + 3 + 3 + 1) * 3),
        ("cuda", "design: {random: 20}", 20 * 3),
    ],
)
def test_a_spec_that_uses_every_section_expands_as_it_says(
    tmp_path: Path, device: str, change: str, trials: int
) -> None:
    spec = load_spec(write(tmp_path, FULL.replace("design: grid", change)), device=device).spec
    assert len(expand(spec)) == trials
    assert (spec.data.limit, spec.train.epochs) == ((4000, 4) if device == "cpu" else (None, 16))


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        (
            "{cpu: {device: cuda}}",
            "small.yaml:1: profiles.cpu.device: is 'cuda', in what is merged in on cpu only. "
            "Remove it, or write it outside",
        ),
        ("{cuda: {device: cpu}}", "profiles.cuda.device: is 'cpu', in what is merged in on cuda only"),
        ("{cuda: {train: {epochs: 1}}, cpu: {device: cuda}}", "profiles.cpu.device: is 'cuda'"),
        (
            "{cpu: {profiles: {cuda: {seeds: 1}}}}",
            "profiles.cpu.profiles: is {'cuda': {'seeds': 1}}, in what is",
        ),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_profile_says_nothing_for_another_device(
    profiles: str, message: str, device: str, tmp_path: Path
) -> None:
    spec = "name: small\ndata: {name: spirals}\nmodel: {name: mlp}\ntrain: {base_lr: 0.1, batch_size: 8, epochs: 1}\n"
    path = write(tmp_path, f"profiles: {profiles}\n{spec}")
    with pytest.raises(InputError) as caught:
        load_spec(path, device=device)
    assert message in str(caught.value)
    with pytest.raises(InputError, match=r"--set: profiles\.cpu\.device: is 'cuda'"):
        load_spec(write(tmp_path, spec), overrides=["profiles.cpu.device=cuda"], device=device)


@pytest.mark.parametrize("own", ["auto", "cpu"])
def test_a_profile_may_name_its_own_device(own: str, tmp_path: Path) -> None:
    spec = "name: small\ndata: {name: spirals}\nmodel: {name: mlp}\ntrain: {base_lr: 0.1, batch_size: 8, epochs: 1}\n"
    path = write(tmp_path, f"{spec}profiles: {{cpu: {{device: {own}}}}}\n")
    assert load_spec(path, device="cpu").spec.device == own


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.width", "--set: model.width: must be at most 1e+06, is 1000000000000"),
        ("model.depth", "--set: model.depth: must be at most 10000, is 1000000000000"),
        ("seeds", "--set: seeds: must be 1 to 1000 seeds, is 1000000000000"),
        ("threads", "--set: threads: must be a number of threads from 1 to 1024, or auto, is 1000000000000"),
        ("train.epochs", "--set: train.epochs: must be at most 100000, is 1000000000000"),
    ],
)
def test_numbers_that_no_machine_gets_through_are_refused(key: str, message: str, tmp_path: Path) -> None:
    spec = "name: small\ndata: {name: spirals}\nmodel: {name: mlp}\ntrain: {base_lr: 0.1, batch_size: 8, epochs: 1}\n"
    with pytest.raises(InputError) as caught:
        load_spec(write(tmp_path, spec), overrides=[f"{key}={10**12}"])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            ["train.batch_size=30", "train.devices=4", "factors={}"],
            "batch_size 30 cannot be shared equally by 4 devices. Use a batch_size of 28 or 32",
        ),
        (
            ["train.parallel=fsdp", "train.devices=2", "train.implementation=fused"],
            "parallel fsdp cannot train with implementation: fused, whose kernels need whole parameters",
        ),
        (["train.parallel=dp"], "unknown 'dp'; known: ddp, fsdp. Did you mean 'ddp'?"),
        (["train.devices=0"], "must be at least 1, is 0"),
        (["train.num_gpus=2"], "Did you mean 'devices'?"),
    ],
)
def test_what_several_devices_cannot_do_is_refused(tmp_path: Path, changes: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        load_spec(write(tmp_path, SPEC), overrides=changes)
    assert sentence in str(error.value)


def test_a_run_of_before_there_were_several_devices_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, SPEC)
    assert not {"devices", "parallel", "sync_batchnorm"} & set(load_spec(path).spec.resolved()["train"])
    shared = load_spec(path, overrides=["train.devices=2"]).spec.resolved()["train"]
    assert (shared["devices"], "parallel" in shared) == (2, False)
