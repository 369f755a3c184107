# Everything a clean clone needs is Python >= 3.11, pip and make. `make help` lists the commands.
PYTHON ?= python3
EXTRAS ?= dev,docs,postgres,onnx
PYTEST_ARGS ?=
JOBS ?= 2
STORAGE ?= dynarch-results

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
STAMP := $(VENV)/.installed
# Processes that share the tests; they would share what a debugger or a profiler of one test needs, hence JOBS=0.
PARALLEL = $(shell $(BIN)/python -c 'import xdist' 2>/dev/null && echo '-n $(JOBS) --dist loadscope --no-loadscope-reorder')
LAWS := tests/test_layers.py tests/test_public_names.py tests/test_packaging.py tests/test_errors.py

# Ray would re-launch its workers through a package manager that happens to be the parent process.
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow check lint docs ui wheel clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install dynarch with pinned dependencies

demo: setup ## search the digits example (a few minutes on two cores)
	$(BIN)/dynarch search examples/digits.toml

test: setup ## run the tests; PYTEST_ARGS="-k exits" passes options on, JOBS=4 starts more processes
	$(BIN)/python -m pytest -rs $(PARALLEL) $(PYTEST_ARGS)

test-slow: setup ## run the tests that take minutes
	$(BIN)/python -m pytest -rs -m slow $(PYTEST_ARGS)

check: lint ## lint, formatting, types, and the laws of the house
	$(BIN)/python -m pytest -q $(LAWS)

lint: setup .typecheck/dynarch ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p dynarch

docs: setup ## build the documentation into build/site; open build/site/index.html, no server needed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

ui: setup ## show the recorded searches in the browser; STORAGE=dir names their folder
	$(BIN)/dynarch ui --storage $(STORAGE)

wheel: setup ## build dist/dynarch-*.whl
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove everything that these commands made, the virtual environment too
	rm -rf $(VENV) .typecheck build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is an order-only prerequisite: it is a link whose date says nothing about us.
# torch comes first, alone, so that a wrong index is reported before the other hundred packages load.
$(STAMP): constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing the pinned dependencies into $(VENV) (a few minutes the first time) ..."
	$(PIP) 'setuptools>=77' torch
	$(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "dynarch needs Python >= 3.11; choose one with: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The repository root is the package, so type checkers need to see it under its import name.
.typecheck/dynarch:
	@mkdir -p .typecheck
	@ln -sfn .. $@
