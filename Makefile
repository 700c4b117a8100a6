# `make` alone lists the targets. `make demo` and `make test` need nothing but Python >= 3.11 (and make).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

PY := .ci/env .venv/bin/python
PYTEST := $(PY) -m pytest
# What a laptop runs; GPU tests join in where there is one.
GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU')
QUICK := not faults and not cluster$(if $(filter-out 0,$(GPU)),, and not gpu)
# Two processes, a test file each at a time and the long ones first: a local Spark of small tables waits more than it
# computes. PARALLEL= takes them one after the other.
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
# make test ARGS='-k gate -x'
ARGS ?=

.PHONY: help docs setup weights demo lint test test-unit test-spark test-server test-e2e test-faults test-histories test-mutants test-cluster \
	test-gpu gpu-kit bench notebooks zip wheel env-archive lock clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv with all dependencies; install Java 17 where it is missing and apt can
	@.ci/setup

weights: setup ## trained weights (casia-webface) into the cache: 87 MB, once
	@$(PY) -m bench.weights

demo: setup ## index pictures into an embedded Milvus (own ones: IMAGES=folder BASIS=basis.csv)
	@$(PY) -m bench.demo $(if $(IMAGES),--images '$(IMAGES)') $(if $(BASIS),--basis '$(BASIS)')

lint: setup ## ruff and mypy
	@.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: lint ## lint, then every test but the long and the cluster ones; counts by kind, and why tests were skipped, at the end
	@mkdir -p build
	$(PY) -m bench.weights || echo 'Tests that need trained weights are skipped.'
	code=0
	$(PYTEST) -m '$(QUICK)' $(PARALLEL) --junitxml=build/tests.xml --durations=40 $(ARGS) || code=$$?
	if [[ -f build/tests.xml ]]; then .venv/bin/python .ci/counts build/tests.xml; fi
	exit $$code

test-unit: setup ## no JVM, no server: seconds
	@$(PYTEST) tests/unit $(ARGS)

test-spark: setup ## a local Spark session with Delta
	@$(PYTEST) tests/spark $(ARGS)

# MILVUS_URI: what any server can be asked without being killed; its collections t… and faces_… are made and dropped.
test-server: setup ## the Milvus contract on milvus-lite and the wheel's server, or on yours: MILVUS_URI=http://host:19530
	@$(PYTEST) $(if $(MILVUS_URI),tests/milvus/test_contract.py tests/milvus/test_promotion.py -k server,tests/milvus -m 'not cluster') $(ARGS)

test-e2e: setup ## whole jobs, by spark-submit on a standalone cluster among others
	@$(PYTEST) tests/e2e -m 'not faults' $(ARGS)

test-faults: setup ## the long tests: killed at every step and resumed, races, a short history, 100,000 random images
	@$(PYTEST) -m faults $(ARGS)

# HOURS=0.5 for less; SEED= begins elsewhere. What is found is printed as one command that plays it again.
HOURS ?= 2
SEED ?= 0
test-histories: setup ## random histories of people, pictures and jobs against what is promised (HOURS=2)
	@$(PY) -m tests.histories --minutes "$$(.venv/bin/python -c 'print(60 * $(HOURS))')" --seed $(SEED) $(ARGS)

test-mutants: setup ## mutation testing of the gate and the decision function (an hour)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock.txt -e '.[mutation]'
	$(PY) -m tests.mutants jobs.governance.decide
	$(PY) -m tests.mutants jobs.governance.gate

test-cluster: setup ## against a real Milvus cluster
	@$(PYTEST) -m cluster $(ARGS)

test-gpu: setup ## needs a CUDA device
	@$(PYTEST) -m gpu $(ARGS)

gpu-kit: setup ## dist/gpu-kit: measures a GPU in some minutes on a machine without a registry (python3 run.py --out results)
	@$(PY) -m bench.gpu.kit $(ARGS)

bench: setup ## benchmarks of the images (15 minutes on two cores) and the tables of docs/speed.md; others: NAME='loading index_types erasing'
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock.txt -e '.[bench]'
	$(PY) -m bench $(NAME)

notebooks: setup ## execute the notebooks and write their outputs (some minutes on two cores); one: NAME=bench
	@$(PY) notebooks/execute.py $(NAME)

docs: setup ## settings.md, api.md, decisions/milvus-servers.md: made from the settings model, docstrings of udfs, facts
	@$(PY) -c 'from jobs.settings import reference; print(reference(), end="")' > docs/settings.md
	$(PY) -m docs.api > docs/api.md
	$(PY) -m tests.milvus.servers.page > docs/decisions/milvus-servers.md

zip: setup ## dist/face_reindex-VERSION.zip, for spark-submit --py-files
	@.venv/bin/python setup.py --quiet pyfiles
	ls dist/*.zip

wheel: setup ## dist/face_reindex-VERSION-py3-none-any.whl
	@rm -rf build/lib build/bdist.*
	.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	ls dist/*.whl

# Nodes need the same Python at the same path, or at PYTHON_PREFIX; PIP_ARGS chooses another index (torch without CUDA).
env-archive: setup ## dist/environment.tar.gz: everything but Python itself, for spark.archives (about 3 GB with CUDA)
	@rm -rf build/environment
	mkdir -p dist
	.venv/bin/python -m venv build/environment
	build/environment/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c requirements.lock.txt .
	.venv/bin/venv-pack --prefix build/environment --output dist/environment.tar.gz --force \
		$(if $(PYTHON_PREFIX),--python-prefix '$(PYTHON_PREFIX)')
	chmod 644 dist/environment.tar.gz  # venv-pack leaves it to its user alone; executors may be another

lock: setup ## write requirements.lock.txt anew from .venv
	@head=$$(grep '^#' requirements.lock.txt)
	{ echo "$$head"; .venv/bin/python -m pip freeze --all --exclude-editable --exclude pip; } > requirements.lock.txt.new
	mv requirements.lock.txt.new requirements.lock.txt

clean: ## what builds, tests and the demo left
	@rm -rf build dist .demo spark-warehouse metastore_db derby.log .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## and .venv
	@rm -rf .venv face_reindex.egg-info
