# All set-up is done by the targets: `make train` and `make test` need python3 (3.11 or 3.12) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(shell git ls-files '*.py' 2>/dev/null | xargs grep -l '^@njit' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup train test slow gpu bench lint types floors clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(STAMP)  ## .venv with the locked versions and the package, editable

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.11 or 3.12 (make PYTHON=python3.11 ...)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "make: $(PYTHON) has no working venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	# torch first: a looser requirement met before it would pull a second, larger build.
	$(BIN)/python -m pip install --quiet --constraint requirements.lock $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Numba does not see that a kernel called from another file has changed: drop its cache when any has.
$(VENV)/.kernels: $(STAMP) $(KERNELS)
	find placement_gym agents \( -name '*.nbi' -o -name '*.nbc' \) -delete
	touch $@

train: $(VENV)/.kernels  ## captures the default model, trains the default agent, prints the comparison (about 3 minutes)
	$(BIN)/python -m experiments.train experiment=quickstart

test: $(VENV)/.kernels lint types floors  ## default tests, lint, types, import floors
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(VENV)/.kernels  ## learning tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

gpu: $(VENV)/.kernels  ## tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench: $(VENV)/.kernels  ## measures and prints the figures of the README
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

floors: $(STAMP)  ## import-linter
	$(BIN)/lint-imports

clean:  ## removes everything that the targets made
	rm -rf $(VENV) outputs multirun build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
