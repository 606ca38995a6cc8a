"""A probe gives a valid profile; its rates depend on the machine and are not tested."""

import os

import msgspec
import pytest
from quick_probe import RATES, shorten_probe

from sprat.devices.parts import Basis
from sprat.devices.probe import KernelRates, measure_again, probe
from sprat.devices.probe import storage as probe_storage
from sprat.devices.probe.storage import random_rate, storage_rates
from sprat.devices.profile import contradictions, load_profile, parse_profile, profile_names, save_profile, user_folder
from sprat.errors import DeviceError
from sprat.runtime.kernels.rates import kernel_rates
from sprat.runtime.kernels.reference import ReferenceKernels


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    """Less memory, a smaller file, shorter times."""
    shorten_probe(monkeypatch, tmp_path / "config")


def fake_rates(_n_threads):
    return RATES


def test_a_probe_gives_a_consistent_profile_of_measured_values(tmp_path):
    steps = []
    found = probe("this-machine", tmp_path, fake_rates, steps.append)
    assert steps[:2] == ["memory", "kernels"]
    assert steps[-1] == "storage"
    assert contradictions(found.profile) == []
    assert found.profile.n_cores == len(os.sched_getaffinity(0))
    assert found.profile.memory.read_gbps.basis is Basis.MEASURED
    assert found.profile.compute.int8_gops.value == 200
    assert set(found.read_bytes_per_s) >= {1, found.profile.n_cores}


def test_the_file_that_is_measured_has_no_name_so_a_killed_probe_leaves_none(tmp_path):
    with probe_storage._test_file(tmp_path) as path:
        assert path.stat().st_size > 0
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shares", "kept", "steps"),
    [([0.02], 0.02, 2), ([None], None, 2), ([0.7, 0.05], 0.05, 4), ([0.7, 0.5, 0.6], 0.5, 6)],
)
def test_a_probe_beside_busy_programs_is_repeated_and_says_so(tmp_path, monkeypatch, shares, kept, steps):
    remaining = iter(shares)

    class Meter:
        def share(self):
            return next(remaining)

    monkeypatch.setattr("sprat.devices.probe.BusyMeter", Meter)
    reported = []
    found = probe("this-machine", tmp_path, fake_rates, reported.append)
    assert (found.busy_share, len(reported)) == (kept, steps + 1)
    noted = "other programs used 50% of the cores"
    assert (noted in found.profile.compute.int8_gops.source) is (kept == 0.5)
    assert (noted in found.profile.memory.read_gbps.source) is (kept == 0.5)


def test_a_saved_profile_is_found_by_its_name(tmp_path):
    profile = probe("my-board", tmp_path, fake_rates).profile
    path = save_profile(profile)
    assert path == user_folder() / "my-board.toml"
    assert "my-board" in profile_names()
    assert load_profile("my-board") == profile
    assert parse_profile("my-board", path.read_bytes()) == profile
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rpi5-8gb", "My Board", "../evil", ""])
def test_a_name_of_a_shipped_profile_or_with_other_characters_is_refused(tmp_path, name):
    profile = msgspec.structs.replace(load_profile("rpi5-8gb"), name=name)
    with pytest.raises(DeviceError, match="for example 'my-"):
        save_profile(profile)
    assert not user_folder().exists()


def test_a_config_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    profile = msgspec.structs.replace(load_profile("rpi5-8gb"), name="mine")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="cannot be written"):
        save_profile(profile)


def test_storage_has_rates_for_six_block_sizes(tmp_path):
    rates = storage_rates(tmp_path)
    assert [rate.block_bytes for rate in rates] == [4096, 16384, 65536, 262144, 1 << 20, 8 << 20]
    assert all(min(rate.random_bytes_per_s, rate.sequential_bytes_per_s, rate.cached_bytes_per_s) > 0 for rate in rates)


def test_an_existing_file_has_a_random_read_rate(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(bytes(3 << 20))
    assert random_rate(path, 1 << 20) > 0


def test_a_second_probe_reads_other_blocks(tmp_path, monkeypatch):
    """The host may have cached the blocks of the first probe."""
    path, offsets = tmp_path / "model", []
    path.write_bytes(bytes(8 << 20))
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: offsets[-1].append(at) or read(fd, views, at))
    for _ in range(2):
        offsets.append([])
        random_rate(path, 4 << 10)
    assert offsets[0][:20] != offsets[1][:20]


def test_a_full_or_missing_folder_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(DeviceError, match="cannot be measured"):
        storage_rates(tmp_path / "none")
    monkeypatch.setattr(probe_storage, "_FILE_BYTES", 1 << 60)
    with pytest.raises(DeviceError, match="free; choose another folder"):
        storage_rates(tmp_path)


def test_measuring_again_replaces_only_memory_and_kernels(tmp_path):
    profile = probe("this-machine", tmp_path, fake_rates).profile
    faster = KernelRates(name="other", int8_ops_per_s=4e11, one_token_ops_per_s=1, f32_ops_per_s=1, call_s=1)
    again = measure_again(profile, lambda _n: faster)
    assert again.compute.int8_gops.value == 400
    assert again.storage == profile.storage
    assert again.cores == profile.cores


def test_the_reference_kernels_have_rates(monkeypatch):
    monkeypatch.setattr("sprat.runtime.kernels.rates._SECONDS", 0.0)
    monkeypatch.setattr("sprat.runtime.kernels.rates._N_TOKENS", 4)
    rates = kernel_rates(ReferenceKernels(dense_bytes=1 << 26), "reference")
    assert rates.name == "reference"
    assert min(rates.int8_ops_per_s, rates.one_token_ops_per_s, rates.f32_ops_per_s, rates.call_s) > 0
