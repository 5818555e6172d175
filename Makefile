# Everything from a bare machine: Python 3.10 or newer, git and make are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# setuptools warns of every editable install that folders of the same name may shadow it
PIP    := PYTHONWARNINGS="ignore:Editable installation" \
          $(BIN)/python -m pip --disable-pip-version-check -q
# as many processes as there are cores, at most 8; each computes in one thread
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: help run test check app bench clean
.DEFAULT_GOAL := help

help:     ## Show what there is.
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

run: $(VENV)/.core  ## Separate the bundled demo song with the default model.
	@$(BIN)/python scripts/demo.py --output out/demo

app: $(VENV)/.dev  ## Start the web app.
	$(BIN)/python app.py

test: $(VENV)/.dev  ## Install what is missing and run the fast tests.
	@scripts/system-packages.sh ffmpeg
	$(PYTEST) -m "not slow"

check: $(VENV)/.dev  ## Lint, check formatting and types, run all tests.
	@scripts/system-packages.sh ffmpeg chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

bench: $(VENV)/.dev  ## Measure speed and memory, beside the peers that are installed.
	$(BIN)/python scripts/bench.py

clean:    ## Remove what the targets above made.
	rm -rf $(VENV) build dist out *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing separator into $(VENV) (PyTorch is large: some minutes) ..."
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing separator and its tools into $(VENV) (some minutes) ..."
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.core
