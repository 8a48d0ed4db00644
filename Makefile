# Two commands are the whole set-up: make run, make test.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= workspace
ARRIVALS ?= data/arrivals

.DEFAULT_GOAL := help
.PHONY: help run ui test slow lint compile clean

help:  ## What can be made
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed $(ARRIVALS)/manifest.json  ## Simulate three batches, train, evaluate, register, promote
	@$(BIN)/crosswatch run --batches $(ARRIVALS) --workspace $(WORKSPACE)

ui: $(VENV)/installed  ## Open MLflow on what was written (http://127.0.0.1:5000)
	@test -f $(WORKSPACE)/mlflow.db || { echo "Nothing to show yet: make run first."; exit 2; }
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 \
	  --backend-store-uri sqlite:///$(abspath $(WORKSPACE))/mlflow.db

test: $(VENV)/tested  ## Lint, types, import contracts, tests
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest

slow: $(VENV)/tested  ## The slow tests
	$(BIN)/pytest -m slow

lint: $(VENV)/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

compile: $(VENV)/installed  ## Compile the pipelines into the package
	$(BIN)/python -m pipelines.compile

clean:  ## Remove what make run wrote (not the deliveries)
	rm -rf $(WORKSPACE)

$(ARRIVALS)/manifest.json: | $(VENV)/installed
	@$(BIN)/crosswatch simulate --out $(ARRIVALS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || \
	  { echo "Python 3.11 is needed; name it with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e . -c constraints.txt
	@touch $@

$(VENV)/tested: pyproject.toml constraints.txt | $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@
