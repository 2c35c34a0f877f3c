# Each target sets up .venv by itself, and again when a lock file changes.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
LOCK_FILE ?= requirements-dev.lock
PIP     = $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-quick soak lint bench results lock clean

demo: $(STAMP)
	$(BIN)/creative-bandit demo

# Whole files go to one process, which keeps what it has compiled and the servers it has started.
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# What needs no server, no real data, no killed process and no more than a few seconds.
test-quick: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not (slow or kills or postgres or real_data)"

# Hours; SOAK_RUNS=5 SOAK_SECONDS=20 are minutes. The figures are appended to soak.jsonl.
soak: $(STAMP)
	$(BIN)/python -m pytest tests/soak -s -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The benchmarks have an environment of their own, with the libraries they compare with.
bench:
	@$(MAKE) --no-print-directory VENV=.venv-bench LOCK_FILE=requirements-bench.lock .venv-bench/.installed
	.venv-bench/bin/python -m pytest tests/benchmarks -s -q

# Plays all presets of docs/simulations.md on two processes; half an hour. What is finished in .cache/results is not played again.
results: $(STAMP)
	$(BIN)/python -m tools.preset_results docs/results.md

$(STAMP): $(LOCK_FILE) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "creative-bandit needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 demo"; exit 1; }
	@echo "setting up $(VENV) (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --no-deps -r $(LOCK_FILE)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# Needs uv; see CONTRIBUTING.md.
LOCK = uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --excludes excludes.txt \
	--generate-hashes --no-emit-index-url --no-header
lock:
	$(LOCK) pyproject.toml requirements.in -o requirements.lock
	$(LOCK) pyproject.toml requirements.in requirements-dev.in -c requirements.lock -o requirements-dev.lock
	$(LOCK) pyproject.toml requirements.in requirements-dev.in requirements-bench.in -c requirements-dev.lock \
		-o requirements-bench.lock

clean:
	rm -rf .venv .venv-bench .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
