"""The free memory of a provider's device: from its driver's program or files, or from the profile."""

import os

import pytest

from sprat.devices.profile import load_profile
from sprat.runtime.backends.providers.free_memory import FreeMemory, free_memory
from sprat.runtime.backends.providers.settings import ProviderSettings

CARD = load_profile("home-8c-16gb-8gpu").accelerator
WEBGPU, CUDA = ProviderSettings.of("webgpu"), ProviderSettings.of("cuda")


@pytest.fixture(autouse=True)
def no_driver(tmp_path, monkeypatch):
    """Nothing of this machine's drivers; a folder for programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def nvidia_smi(no_driver):
    """Writes a program of this name, which prints and ends with a status."""

    def write(printed, status=0):
        program = no_driver / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{printed}'\nexit {status}\n")
        program.chmod(0o755)

    return write


def amd_card(sysfs, name, total, used):
    folder = sysfs / "class" / "drm" / name / "device"
    folder.mkdir(parents=True)
    (folder / "mem_info_vram_total").write_text(f"{total}\n")
    (folder / "mem_info_vram_used").write_text(f"{used}\n")


def test_nvidias_program_is_asked_first(nvidia_smi, tmp_path):
    nvidia_smi("3071\\n5120\\n")
    assert free_memory(WEBGPU, CARD, tmp_path) == FreeMemory(5120 << 20, "nvidia-smi")  # the most
    second = ProviderSettings.of("cuda", {"device_id": "0"})
    assert free_memory(second, CARD, tmp_path) == FreeMemory(3071 << 20, "nvidia-smi")


@pytest.mark.parametrize(("printed", "status"), [("[N/A]\\n", 0), ("Failed to initialize NVML\\n", 9), ("", 0)])
def test_a_driver_without_an_answer_leaves_the_profile(nvidia_smi, tmp_path, printed, status):
    nvidia_smi(printed, status)
    found = free_memory(CUDA, CARD, tmp_path)
    assert found == FreeMemory((8 << 30) - (600 << 20), "the profile's GeForce RTX 4060")
    assert free_memory(CUDA, None, tmp_path) is None


@pytest.mark.skipif(os.name != "posix", reason="sysfs is Linux's")
def test_amds_files_are_read(tmp_path):
    amd_card(tmp_path, "card0", 8 << 30, 3 << 30)
    amd_card(tmp_path, "card1", 2 << 30, 1 << 30)
    (tmp_path / "class" / "drm" / "card2" / "device").mkdir(parents=True)  # of another maker
    assert free_memory(WEBGPU, CARD, tmp_path) == FreeMemory(5 << 30, "the driver")
    assert free_memory(CUDA, None, tmp_path) is None  # cuda does not run on it
