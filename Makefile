# `make` alone prints every target. A new machine needs Python 3.11 (with venv) and make; the rest is installed here.
PYTHON    ?= python3
CUSTOMERS ?= 20000
RUN_DIR   ?= runs/demo
SPEC      ?= job_configs/journeys/demo.yaml
AS_OF     ?= 2026-07-31
DATA      ?= ../shared/data

# RUN_DIR=gs://…: Vertex AI trains, by JOB in ENV; what must lie on this disk (the simulated tables, the key) is in runs/cloud.
ON_GCS    := $(filter gs://%,$(RUN_DIR))
LOCAL     := $(if $(ON_GCS),runs/cloud,$(RUN_DIR))
SOURCE    := $(LOCAL)/source
KEY_FILE  := $(LOCAL).key
JOB       ?= job_configs/python_package_job.yaml
ENV       ?= integration
# EVENTS=bigquery://project.dataset.events: the simulated tables are loaded there, and the key's pads into PADS, a table
# that few may read; the scores go into the same dataset.
EVENTS    ?= $(SOURCE)/events.parquet
IN_BQ     := $(filter bigquery://%,$(EVENTS))
DATASET   := $(basename $(EVENTS))
PADS      ?= $(DATASET)_keys.pads
KEYS      := $(if $(IN_BQ),--pads $(PADS),--key_file $(KEY_FILE))
SCORES    ?= $(if $(IN_BQ),$(DATASET).scores,$(RUN_DIR)/scores.parquet)

# Two test processes; tests that share a module's fixture keep to one of them, in the order that tests/conftest.py gives.
TWICE := -n 2 --dist loadgroup --no-loadscope-reorder

# Where soaks write their many small databases and files: in memory, where there is such a place, a case takes a quarter less.
MEMORY := $(firstword $(wildcard /dev/shm /tmp))

BIN := .venv/bin
PY  := $(BIN)/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## make .venv with the locked dependencies

# --no-deps: the lock names every package; left to look for dependencies, pip takes a release that came out since, and
# stops because that one has no hash.
.venv/.installed: requirements.lock setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "error: the lock file is for Python 3.11; name one with PYTHON=…")'
	$(PYTHON) -m venv .venv
	@echo "installing the locked dependencies (about 3 GB, a few minutes)"
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## simulate customers and walk the whole way: events, journeys, records, training, report, scores
	@mkdir -p $(SOURCE)
	$(PY) -m preprocessing.simulate --customers $(CUSTOMERS) --seed 7 --output $(SOURCE)/events.parquet
	@test -f $(KEY_FILE) || $(PY) -m preprocessing.keys --new $(KEY_FILE)
ifneq ($(IN_BQ),)
	$(PY) -m preprocessing.loading --files $(addprefix $(SOURCE)/,events.parquet customers.parquet assignments.parquet) --to $(DATASET)
	$(PY) -m preprocessing.keys --key_file $(KEY_FILE) --to_bigquery $(PADS)
endif
	$(PY) -m preprocessing.task --spec $(SPEC) --events $(EVENTS) --run_dir $(RUN_DIR) $(KEYS) --overwrite
ifneq ($(ON_GCS),)
	$(PY) -m deploy.submit --job $(JOB) --env $(ENV) --run_dir $(RUN_DIR)
else
	$(PY) -m preprocessing.keys --key_file $(KEY_FILE) --ids $(SOURCE)/truth.parquet --column customer_id --output $(SOURCE)/truth_by_key.parquet
	$(PY) -m trainer.task --run_dir $(RUN_DIR) --truth $(SOURCE)/truth_by_key.parquet
endif
	$(PY) -m deploy.predict --model $(RUN_DIR)/model --spec $(SPEC) --events $(EVENTS) --as_of $(AS_OF) --output $(SCORES) $(KEYS)
	@$(PY) -m trainer.summary --run_dir $(RUN_DIR)

init: install ## write a first journey spec from a look at your table: make init EVENTS=file [SPEC=my.yaml]
	$(PY) -m preprocessing.init --events $(EVENTS) --output $(if $(filter file,$(origin SPEC)),my.yaml,$(SPEC))

notebook: install ## run notebooks/journeys.ipynb, check what it shows, leave it with its pictures in build/ (minutes)
	$(BIN)/pytest tests/test_notebook.py

test: install check ## lint, check types and run the tests (some 17 minutes on 2 cores)
	$(BIN)/pytest $(TWICE) -m "not slow"

test-slow: install ## the longer tests too: thousands of random tables, what order is worth in the simulator
	$(BIN)/pytest $(TWICE) -m slow

soak-stops: install ## kill a training twenty times, some of them while it writes a checkpoint (10 minutes)
	$(BIN)/pytest -s -m slow tests/trainer/test_stops.py

soak: soak-inputs soak-journeys soak-kills soak-stops ## all four soaks, one after the other (three hours)

soak-inputs: install ## specs, names, files of events, records, instances: thousands of odd and broken ones each (an hour or more)
	TMPDIR=$(MEMORY) PARCOURS_SOAK=$${PARCOURS_SOAK:-1} $(BIN)/pytest -n 2 tests/preprocessing/test_fuzz_spec.py tests/preprocessing/test_fuzz_names.py tests/preprocessing/test_fuzz_tables.py tests/trainer/test_fuzz_records.py tests/deploy/test_instances.py

soak-journeys: install ## journeys.sql against its plain-Python reference on 10,000 random cases, row for row (an hour)
	TMPDIR=$(MEMORY) PARCOURS_CASES=$${PARCOURS_CASES:-10000} $(BIN)/pytest -n 2 -m slow tests/preprocessing/test_reference.py

soak-kills: install ## SIGKILL ten times in each step, at random moments; then two whole runs that must be the same (half an hour)
	$(BIN)/pytest -s -m slow tests/test_kills.py tests/test_reproducible.py

bench: install ## how fast each part is, in ratios of one run (some 18 minutes, quiet machine): docs/speed.md
	$(PY) -m tests.bench.speed --output docs/speed.md

bench-quality: install ## LSTM beside LightGBM and logistic regression on DATA (docs/datasets.md) and simulated customers (four hours)
	$(PY) -m tests.bench.quality --data $(DATA) --output docs/quality.md

bench-rare: install ## are rare purchases told honestly, at 2 %, 0.5 % and 0.1 % (an hour or more, 10 GB of disk)
	$(PY) -m tests.bench.rare --output docs/rare.md

bench-serving: install ## the server beside the model in process, on the model of `make run` (5 minutes, quiet machine)
	$(PY) -m tests.bench.serving --model $(RUN_DIR)/model --output docs/serving_speed.md

bench-bigquery: install ## journeys out of BigQuery: our source beside Beam's own, against a local server (5 minutes)
	$(PY) -m tests.bench.bigquery --output docs/bigquery_speed.md

cloud-local: install ## local servers that speak Google Cloud's protocols, until Ctrl-C (docs/cloud.md)
	$(PY) -m tests.cloud

bench-influence: install ## is a campaign's effect told right, where the simulator knows it (some 19 minutes)
	$(PY) -m tests.bench.influence --output docs/influence_bars.md

check: install ## ruff, mypy, and the arrows between modules (pyproject.toml)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: install ## build the documents and the reference into build/docs; a broken link is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs

audit: install ## an SBOM of the locked dependencies, dist/parcours.cdx.json, and what is known against them (asks the network)
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements.lock --output-reproducible --of JSON -o dist/parcours.cdx.json
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

sdist: install ## build dist/parcours-*.tar.gz, the package that Vertex AI and Beam workers install
	$(BIN)/python -m build --sdist --no-isolation --outdir dist

lock: install ## write requirements.lock anew from setup.py, with hashes, and what of it the images install
	$(BIN)/uv pip compile setup.py --all-extras --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --upgrade -o requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	echo 'tensorflow[and-cuda]' | $(BIN)/uv pip compile - -c requirements.lock --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links | awk '/^[a-z]/ {keep = /^nvidia-/} keep' > deploy/gpu.lock
	$(PY) -m deploy.locks

clean: ## remove builds and caches; .venv and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install run init notebook test test-slow soak soak-inputs soak-journeys soak-kills soak-stops bench bench-quality bench-rare bench-serving bench-bigquery cloud-local check docs audit sdist lock clean
