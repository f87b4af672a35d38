# `make help` lists the targets; each one creates what it needs.
# PYTHON: the Python of the virtual environment; setup.sh looks for one otherwise.
PYTHON ?=
# tensorflow or jax; default: the one whose CUDA libraries are installed, else TensorFlow.
BACKEND ?= $(or $(KERAS_BACKEND),$(shell cat .venv/cuda 2>/dev/null),tensorflow)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: help setup run ui lint test test-fast bench lock reference clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## create the virtual environment from the lock files with hashes; with CUDA libraries for a GPU
	@PYTHON='$(PYTHON)' BACKEND='$(BACKEND)' ./setup.sh

# As `hemotune run --slots`: `make run SLOTS=0,1` runs on these two GPUs.
SLOTS ?= auto

run ui: export KERAS_BACKEND := $(BACKEND)

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

# Universal: for all Pythons from 3.11.0 and the machines in pyproject.toml's [tool.uv]. The lock files
# for GPUs hold what requirements.lock does not.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11.0 --generate-hashes --no-annotate --no-header
BESIDES = --constraint requirements.lock $$(sed -n 's/==.*//p' requirements.lock | sed 's/^/--no-emit-package /')

lock: setup  ## regenerate the lock files from pyproject.toml; add UPGRADE=--upgrade for the latest versions
	echo uv | $(LOCK) $(UPGRADE) - -o requirements-setup.lock
	$(LOCK) $(UPGRADE) --extra dev --extra dask pyproject.toml -o requirements.lock
	$(LOCK) $(UPGRADE) --extra cuda $(BESIDES) pyproject.toml -o requirements-cuda.lock
	$(LOCK) $(UPGRADE) --extra jax-cuda $(BESIDES) pyproject.toml -o requirements-jax-cuda.lock

reference: setup  ## write docs/reference.md from the settings' schema and dvc.yaml
	$(BIN)/python -m flows.reference

clean:  ## remove the virtual environment and everything that runs created, but not DVC's cache
	rm -rf .venv .study data/* reports/study.md reports/results.csv reports/times.csv reports/summary.csv reports/model_card.md reports/summary.txt reports/figures reports/validation
