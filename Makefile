# `make demo` and `make test` need only Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow mutants lint bench clean

demo: $(VENV)/.installed  ## set up, render the built-in world, run the study, print the table
	$(BIN)/trichord demo --out $(DEMO)

# Tests of one file run in the same process, which shares its fixtures. Compiled modules are kept for the processes of tests.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test: $(VENV)/.installed-dev  ## the fast tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev  ## the tests that take minutes
	$(PYTEST) -m slow

mutants: $(VENV)/.installed-dev  ## faults put into a copy of the source one by one, each of which the tests must notice
	$(BIN)/python tests/helpers/mutants.py

lint: $(VENV)/.installed-dev  ## style, types, import contracts
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## all benchmarks; figures go to benchmarks/RESULTS.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "trichord needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
