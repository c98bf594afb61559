# Two commands on a fresh machine: `make demo` and `make test`.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
PLUGIN = $(wildcard gnn_metriplectic/lammps/plugin/*.cpp gnn_metriplectic/lammps/plugin/*.h)
.DEFAULT_GOAL := help

.PHONY: help demo test test-all test-pyg lint format benchmark clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

# Torch first, at its tested version: other packages would draw in any (or a CUDA build of gigabytes).
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[md,video]"
	touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY) ## install, train on the ideal gas, score, report (outputs/demo)
	$(BIN)/gnnm-train experiment=ideal_gas out=outputs/demo $(if $(wildcard outputs/demo/last.ckpt),ckpt_path=last)
	@echo "Open outputs/demo/report.html in a browser."

test: $(DEV) ## the fast tests, about five minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not pyg"

test-all: $(DEV) ## the slow tier too, the pyg extra included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not pyg"
	$(MAKE) test-pyg

test-pyg: $(DEV) ## torch-cluster and torch-scatter give what the defaults give (compiles them: 12 minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check setuptools wheel ninja
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e ".[pyg]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m pyg

lint: $(DEV) ## ruff and clang-format, as pre-commit and CI run them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(PLUGIN)

format: $(DEV) ## let them put the files in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(PLUGIN)

benchmark: $(READY) ## speed of training and rollout, as a table
	$(BIN)/python scripts/benchmark.py

clean: ## remove what tests and builds leave
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
