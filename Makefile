# Two commands on a fresh machine: `make run` and `make test`. docs/start.md shows the pip commands they stand for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test test-all lint perf search-bench autotune-bench finder-bench gate-bench exhaustive compilers processors versions libraries fuzz chaos scale static
.PHONY: compat trackers peers release-check gpu-check gpu-perf picture schema clean

run: $(VENV)/installed
	$(BIN)/python -m bench run specs/cifar.yaml

# Each process has a stretch of the list, so that tests of a module share what is made for it. One that is done takes
# over from another.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(VENV)/installed-test
	$(PYTEST)

# And what is slow: kills and resumptions, random kernels, compilation for many targets, coverage of intervals.
test-all: test
	$(PYTEST) -m "slow and not exhaustive and not compilers and not libraries and not chaos and not compat and not release and not trackers and not peers"

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

perf: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/perf --benchmark-enable --benchmark-disable-gc -W default -s

# The tests that take many minutes: every kernel for every GPU that the gate knows, ten thousand steps, and the like.
exhaustive: $(VENV)/installed-test
	$(PYTEST) -m exhaustive $(ONLY)

# The CPU backend by other compilers: needs clang, libomp, aarch64-linux-gnu-gcc and its C library's headers.
compilers: $(VENV)/installed-test
	$(BIN)/python -m pytest -m compilers tests/kernels/cpu

# What compares with PyTorch's results, by the code that PyTorch has for other processors than this one.
processors: $(VENV)/installed-test
	ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m "processor and not slow" tests/kernels
	ATEN_CPU_CAPABILITY=default $(PYTEST) -m "processor and not slow" tests/kernels

# By the CPU backend: other libraries' kernels as they are, what Inductor and Helion write, and the whole of Triton's language.
libraries: $(VENV)/installed-test
	$(PIP) --no-deps liger-kernel==0.8.5 fla-core==0.6.0 flash-linear-attention==0.6.0 einops helion==1.5.1
	$(PYTEST) -m libraries -W default

# Random kernels through the CPU backend against NumPy: `FUZZ="FUZZ_KERNELS=5000 FUZZ_SEED=77"` for others and more.
# With FUSETUNE_CHECK_TILES=1 among them, the kernels check that the tiles that they keep are whole.
fuzz: $(VENV)/installed-test
	$(FUZZ) $(BIN)/python -m pytest -m exhaustive tests/kernels/cpu/test_fuzz.py

# Runs of every kind that are killed, starved of disk and torn, resumed, and held to undisturbed ones: 200 rounds.
# `CHAOS_ROUNDS=20 CHAOS_SEED=77 make chaos` for fewer or others; a round that fails prints its seed. Then 200 kills of
# writers of tuned launch configs: TUNING_KILLS and TUNING_SEED. Then 50 runs on a Ray cluster of this machine that loses
# nodes, actors, drivers, room and time: CLUSTER_ROUNDS and CLUSTER_SEED.
chaos: $(VENV)/installed-test
	$(BIN)/python -m pytest -m chaos -s tests/chaos tests/kernels/autotune

# 100,000 trials that only answer through the driver, on 64 pretended nodes of 8 devices, the report of them, and what a
# trial costs beyond Ray's own call on a cluster of this machine: 3 minutes. `SCALE="--trials 10000 --nodes 4"` for others
# without that cluster, `SCALE=--report-only` for the report of trainings with curves alone.
scale: $(VENV)/installed-test
	$(BIN)/python -m tests.perf.driver_scale $(SCALE)
	$(if $(SCALE),,$(BIN)/python -m tests.perf.ray_overhead)

# The tests under every pair of Triton and PyTorch that is supported, each in an environment of its own: about 6 GB and a
# few minutes a pair the first time. `ONLY=tests/kernels/test_launch.py` narrows them, `VERSIONS=3.9.0-2.15.0` the pairs,
# and `make -k versions` goes on after a pair that fails. A cap that pip's configuration sets on this machine is lifted.
# The oldest pair runs on the oldest Python that is found here, the newest on the newest: `PYTHON=python3.12` for another.
VERSIONS := 3.5.0-2.9.0 3.7.1-2.13.0 3.8.0-2.14.1 3.9.0-2.15.0

runs = $(firstword $(foreach python,$(1),$(if $(shell $(python) -c "import ensurepip, venv" 2>/dev/null && echo yes),$(python))))
pythons = $(foreach version,$(1),python$(version) $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(version).*/bin/python))
python-3.5.0-2.9.0 = $(call runs,$(call pythons,3.10 3.11 3.12))
python-3.9.0-2.15.0 = $(call runs,$(call pythons,3.14 3.13 3.12 3.11))

versions: $(VERSIONS:%=versions-%)

versions-%: build/versions/%/installed
	$(<D)/bin/python -m pytest -n auto --maxprocesses 4 $(or $(ONLY),tests/kernels tests/tuner tests/bench src/fusetune)

.PRECIOUS: build/versions/%/installed
build/versions/%/installed: pyproject.toml constraints.txt
	@test -x $(@D)/bin/python || $(or $(if $(filter file,$(origin PYTHON)),$(python-$*)),$(PYTHON)) -m venv $(@D)
	@echo "installing triton and torch $* into $(@D)"
	grep -vE '^(torch|triton)==' constraints.txt > $(@D)/constraints.txt
	PIP_CONFIG_FILE=/dev/null $(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(@D)/constraints.txt triton==$(word 1,$(subst -, ,$*)) torch==$(word 2,$(subst -, ,$*)) -e '.[test]'
	@touch $@

# Beside Hugging Face's kernels and transformers, installed before and after ours, in build/compat: 2 GB the first time.
compat: $(VENV)/installed-test
	$(BIN)/python -m pytest -m compat tests/distribution

# Trackio, wandb and MLflow as they are, without a network, in build/trackers: 270 MB beside what .venv has. Trackio needs an
# older Pillow than ours.
trackers: build/trackers/installed
	build/trackers/bin/python -m pytest -m trackers -W default tests/bench/tracking

# An environment of its own that has what .venv has.
define environment-over-venv
@test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
@$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> "$$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/packages.pth"
endef

build/trackers/installed: $(VENV)/installed-test
	$(environment-over-venv)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		trackio==0.43.0 wandb==0.31.0 mlflow-skinny==3.17.2 'sqlalchemy>=2' alembic
	@touch $@

# Build sdist and wheel, install the wheel in build/release, and run there what `make run` and `make test` run: 2 GB.
release-check: $(VENV)/installed-test
	$(PIP) build twine
	$(BIN)/python -m pytest -m release tests/distribution

# What the machine code of every kernel says, without a GPU: minutes; one target with `python -m fusetune.kernels.static --target`.
static: $(VENV)/installed
	$(BIN)/python -m fusetune.kernels.static

# On a machine with a GPU: is everything right there? And how fast, beside PyTorch's own?
gpu-check: $(VENV)/installed-test
	@mkdir -p results
	$(BIN)/python -m pytest -m gpu -v --junitxml=results/gpu-check.xml

gpu-perf: $(VENV)/installed-test
	$(BIN)/python -m pytest -m gpu tests/perf --benchmark-enable --benchmark-disable-gc -W default -s

# Searchers replayed side by side on recorded tables of learning curves: minutes; `SEARCH_BENCH="--seeds 60"` for more.
search-bench: $(VENV)/installed
	$(BIN)/python -m fusetune.bench.search_bench.replay $(SEARCH_BENCH)

# Rules of the autotuner replayed on recorded landscapes: a minute or two. To record the landscapes again, on an idle
# machine: `python -m fusetune.bench.autotune_bench.record --again`, a quarter of an hour.
autotune-bench: $(VENV)/installed
	$(BIN)/python -m fusetune.bench.autotune_bench.replay $(AUTOTUNE_BENCH)

# The gate's decision beside the rules of others, replayed on recorded processes: a minute or two. To record processes on
# this machine for a quarter of an hour: `GATE_BENCH="--record FILE"`.
gate-bench: $(VENV)/installed
	$(BIN)/python -m fusetune.bench.gate_bench.replay $(GATE_BENCH)

# Finders of a learning rate and of a batch size, ours and those of others, trained and run for real: about a quarter of an
# hour of processor time. `FINDER_BENCH=rates` or `FINDER_BENCH=batches` for one of the two, `--json FILE` for all trainings.
finder-bench: build/peers/installed
	build/peers/bin/python -m fusetune.bench.finder_bench $(FINDER_BENCH)

# The finders of others as they are: torch-lr-finder, fastai, Lightning and accelerate, in build/peers beside what .venv has.
peers: build/peers/installed
	build/peers/bin/python -m pytest -m peers -W default tests/bench/finder_bench

# torch stays what .venv has. fastai is installed without torchvision, which its finder does not need.
build/peers/installed: $(VENV)/installed-test
	$(environment-over-venv)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		torch-lr-finder==0.2.2 lightning==2.6.6 accelerate==1.15.0 \
		fastcore==2.2.41 fastprogress==1.1.6 fasttransform==0.0.5 plum-dispatch==2.9.0 fastdownload==0.0.8 cloudpickle
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps fastai==2.8.12
	@touch $@

# The README's picture, from the page of a run in results/examples: needs Chromium.
picture: $(VENV)/installed-test
	$(BIN)/python -m tests.bench.page.picture

schema: $(VENV)/installed
	$(BIN)/python -m bench schema > specs/spec.schema.json
	$(BIN)/python -m bench schema kernels > specs/kernels.schema.json

clean:
	rm -rf $(VENV) build *.egg-info

# torch is installed first and alone: pip then keeps it, where a bare dependency could pull a larger build over it.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# What an editable install of the former layout left here names a backend for Triton that is gone.
	@rm -rf fusetune.egg-info
	@echo "installing PyTorch and the suite into $(VENV) (a few minutes the first time)"
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) -c constraints.txt -e '.[test]'
	@touch $@
