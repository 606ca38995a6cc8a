"""CMake flags for llama-cpp-python."""

import subprocess
import sys

import pytest

from sprat.devices.cpu import this_cpu
from sprat.runtime.backends.llamacpp_build import cmake_args, install_command

AVX2 = {"avx2": True, "fma": True, "f16c": True, "bmi2": True, "avx512": False, "amx_int8": False}
SAPPHIRE_RAPIDS = dict.fromkeys((*AVX2, "avx512_vbmi", "avx512_vnni", "avx512_bf16", "amx_bf16", "avx_vnni"), True)


def test_a_cpu_with_amx_gets_the_flags_that_were_found_to_work():
    """With these flags an MoE model runs on which the default build aborts."""
    works = (
        "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "
        "-DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON"
    )
    assert set(works.split()) <= set(cmake_args(SAPPHIRE_RAPIDS).split())


@pytest.mark.parametrize("features", [AVX2, SAPPHIRE_RAPIDS, {}, {"neon": True}])
def test_ggml_does_not_detect_the_cpu(features):
    assert "-DGGML_NATIVE=OFF" in cmake_args(features)
    assert "AMX" not in cmake_args(features)


def test_missing_instruction_sets_are_off():
    arguments = cmake_args(AVX2).split()
    assert "-DGGML_AVX2=ON" in arguments
    assert "-DGGML_AVX512=OFF" in arguments
    assert "-DGGML_AVX=OFF" in cmake_args({"avx2": False}).split()


@pytest.mark.parametrize(
    ("has", "architecture"),
    [
        ((), "armv8-a"),  # Raspberry Pi 4
        (("dotprod", "fp16"), "armv8.2-a+dotprod+fp16"),  # Raspberry Pi 5
        (("dotprod", "fp16", "i8mm"), "armv8.2-a+dotprod+fp16+i8mm"),
    ],
)
def test_arm_cpus_get_an_architecture(has, architecture):
    features = {"neon": True} | {name: name in has for name in ("fp16", "dotprod", "sve", "i8mm", "bf16")}
    assert cmake_args(features) == f"-DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH={architecture}"


def test_the_module_prints_the_flags_of_this_cpu():
    command = [sys.executable, "-m", "sprat.runtime.backends.llamacpp_build"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == cmake_args(this_cpu().features)
    assert printed.strip() in install_command()
