# `make help` lists the targets; each one creates what it needs.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: help setup run ui lint test test-fast bench lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed  ## create the virtual environment from the lock file with hashes

# uv installs the 2.5 GB in seconds where pip takes minutes; pip only installs uv. Bytecode is
# compiled here once: with PYTHONDONTWRITEBYTECODE set, every process would otherwise compile all
# its imports again.
.venv/installed: requirements.lock requirements-setup.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
	touch $@

# As `hemotune run --slots`: `make run SLOTS=0,1` runs on these two GPUs.
SLOTS ?= auto

run: setup  ## run the study of params.yaml (default: the drawn sample) and print the results table
	$(BIN)/hemotune run --slots $(SLOTS)

ui: setup  ## start Prefect's server, serve the deployments and print the address
	$(BIN)/hemotune ui

lint: setup  ## check style, types and layers, and change nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# One more worker than cores: the flow's tests wait as much as they compute.
test: setup  ## run all tests
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

test-fast: setup  ## run the tests that need neither TensorFlow nor a study, in less than a minute
	$(BIN)/python -m pytest -m "not slow" -n $$(getconf _NPROCESSORS_ONLN)

bench: setup  ## run the benchmarks and print their table
	$(BIN)/python -m benchmarks

# 3.11.0, so that the lock file also includes packages that only older Pythons need.
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11.0 --generate-hashes --no-annotate --no-header

lock: setup  ## regenerate both lock files from pyproject.toml; add UPGRADE=--upgrade for the latest versions
	$(LOCK) $(UPGRADE) --all-extras pyproject.toml -o requirements.lock
	echo uv | $(LOCK) $(UPGRADE) - -o requirements-setup.lock

clean:  ## remove the virtual environment and everything that runs created, but not DVC's cache
	rm -rf .venv .study data/* reports/study.md reports/results.csv reports/times.csv reports/model_card.md reports/summary.txt reports/figures reports/validation
