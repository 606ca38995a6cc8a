# make demo   export a model, verify it, answer a prompt with it
# make test   the fast tests (no network, under three minutes)
# make lint   ruff, mypy and the import-direction test
# Each makes .venv and installs what it needs. PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard */native/*.cpp */native/*.h */native/*.hpp */native/*/*) src/sprat/_core.cpp CMakeLists.txt

.PHONY: demo test test-all lint clean

demo: $(VENV)/.core
	$(BIN)/sprat demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

test-all: $(VENV)/.test $(VENV)/.llamacpp
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_direction.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv python3-dev" >&2; exit 1; }

# An editable install: a change in Python is seen at once, a change in C++ rebuilds.
$(VENV)/.core: $(BIN)/python pyproject.toml $(NATIVE)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet -e ".[test]"
	touch $@

$(VENV)/.lint: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet "ruff>=0.14" "mypy>=1.14"
	touch $@

# llama.cpp is compiled for this processor; the flags have one home (see its module for why).
$(VENV)/.llamacpp: $(VENV)/.core
	CMAKE_ARGS="$$($(BIN)/python -m sprat.runtime.backends.llamacpp_build)" $(BIN)/pip install --quiet -e ".[llamacpp]"
	touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
