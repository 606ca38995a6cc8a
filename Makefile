# make demo   export a model, verify it, answer a prompt with it
# make test   the fast tests (no network, under three minutes)
# make test-arm   the kernels of 64-bit ARM, cross-compiled and run under qemu
# make test-sanitized   the kernels under the address and undefined-behaviour sanitizers
# make lint   ruff, mypy and the import-direction test
# Each makes .venv and installs what it needs. PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard */native/*.cpp */native/*.h */native/*.hpp */native/*/*) src/sprat/_core.cpp CMakeLists.txt

.PHONY: demo test test-all test-arm test-sanitized lint clean

demo: $(VENV)/.core
	$(BIN)/sprat demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

test-all: $(VENV)/.test $(VENV)/.llamacpp $(VENV)/.onnx $(VENV)/.browser
	$(BIN)/python -m pytest -m "slow or not slow"

# mypy reads the types of onnx and onnx-ir, so they are installed too.
lint: $(VENV)/.test $(VENV)/.lint $(VENV)/.onnx
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

# By name and not as extras of sprat, which would compile it once more.
$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet "pytest>=8.2" "hypothesis>=6.100"
	touch $@

$(VENV)/.lint: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet "ruff>=0.14" "mypy>=1.14"
	touch $@

# llama.cpp is compiled for this processor; the flags have one home (see its module for why).
$(VENV)/.llamacpp: $(VENV)/.core
	CMAKE_ARGS="$$($(BIN)/python -m sprat.runtime.backends.llamacpp_build)" $(BIN)/pip install --quiet "llama-cpp-python>=0.3.16"
	touch $@

$(VENV)/.onnx: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet "onnx>=1.21" "onnx-ir>=0.1.12" "onnxruntime>=1.24" "onnxruntime-genai>=0.9"
	touch $@

# To open the report in Chromium: apt install chromium. Without it those tests are skipped.
$(VENV)/.browser: $(BIN)/python
	$(BIN)/pip install --quiet "playwright>=1.50" "resvg-py>=0.5"
	touch $@

# The kernels without Python: every instruction set against plain C++.
CHECK := tests/runtime/kernels/native_check.cpp $(filter-out %/bind.cpp %/bind_layers.cpp,$(wildcard */native/*.cpp))
CHECK_FLAGS := -std=gnu++20 -Wall -Wextra -Wno-psabi -Wno-maybe-uninitialized -I.
ISA = -DSPRAT_ISA_TABLE=isa_$(1) -DSPRAT_ISA_NAME='"$(1)"' -DSPRAT_ISA_HEADER='"runtime/native/isa/$(2).hpp"' -c runtime/native/isa/table.cpp

# Debian: apt install g++-aarch64-linux-gnu qemu-user. Static, so that qemu needs no ARM libraries. Once as a processor
# with i8mm and once as one without.
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_RUN ?= qemu-aarch64
test-arm:
	mkdir -p build/arm
	$(ARM_CXX) -O2 $(CHECK_FLAGS) $(call ISA,plain,plain) -o build/arm/plain.o
	$(ARM_CXX) -O2 $(CHECK_FLAGS) $(call ISA,neon,neon) -march=armv8.2-a+dotprod -o build/arm/neon.o
	$(ARM_CXX) -O2 $(CHECK_FLAGS) $(call ISA,i8mm,neon) -march=armv8.2-a+dotprod+i8mm -o build/arm/i8mm.o
	$(ARM_CXX) -O2 $(CHECK_FLAGS) -static -pthread -o build/arm/check $(CHECK) $(addprefix build/arm/,plain.o neon.o i8mm.o)
	$(ARM_RUN) -cpu max build/arm/check
	$(ARM_RUN) -cpu neoverse-n1 build/arm/check

# The same on this machine under the address and undefined-behaviour sanitizers; x86-64 only, its four sets.
SANITIZE := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
AVX2 := -mavx2 -mfma -mf16c
AVX512 := $(addprefix -mavx512,f bw dq vl vbmi vnni)
test-sanitized:
	mkdir -p build/sanitized
	$(CXX) $(SANITIZE) $(CHECK_FLAGS) $(call ISA,plain,plain) -o build/sanitized/plain.o
	$(CXX) $(SANITIZE) $(CHECK_FLAGS) $(AVX2) $(call ISA,avx2,avx2) -o build/sanitized/avx2.o
	$(CXX) $(SANITIZE) $(CHECK_FLAGS) $(AVX2) -mavxvnni $(call ISA,avxvnni,avx2) -o build/sanitized/avxvnni.o
	$(CXX) $(SANITIZE) $(CHECK_FLAGS) $(AVX2) $(AVX512) $(call ISA,avx512,avx512) -o build/sanitized/avx512.o
	$(CXX) $(SANITIZE) $(CHECK_FLAGS) -pthread -o build/sanitized/check $(CHECK) build/sanitized/*.o
	build/sanitized/check

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
