# Two commands matter: `make run` and `make test`.  Everything they need is made here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test lint bench terminology train-rare clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.serve: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the serving set into $(VENV) (first time: about a minute) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.serve
	@echo "Installing the development set into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.serve ## start the server on 127.0.0.1:8000 (settings: CDS_* in the environment)
	@$(BIN)/cds-server db upgrade
	@exec $(BIN)/cds-server serve

test: lint ## every test, on SQLite and PostgreSQL, plus lint, types and the import rule
	@$(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## the speed table of docs/benchmark.md
	@$(BIN)/python -m benchmarks.throughput --write docs/benchmark.md

terminology: $(VENV)/.dev ## rebuild the compiled terminology from its build-time sources
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[build]'
	@$(BIN)/python -m training.terminology

RARE_CASES ?= $(wildcard ../shared/rare/dev_cases.jsonl)
train-rare: $(VENV)/.dev ## train the rare-disease engine anew into var/rare (RARE_CASES=FILE: published cases; 20 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/cds-server train rare $(if $(RARE_CASES),--cases $(RARE_CASES))

clean: ## remove what was made (not ./var)
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
