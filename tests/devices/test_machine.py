"""What this machine reports about itself."""

import pytest

from sprat.devices import cpu, machine
from sprat.devices.machine import available_bytes, cache_bytes, core_clocks, memory_bytes


def test_this_machine_has_memory():
    assert 2**20 < available_bytes() < memory_bytes()


def test_memory_is_known_without_meminfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    assert available_bytes() == memory_bytes() // 2 > 2**20


def test_every_core_has_a_clock():
    clocks = core_clocks()
    assert clocks
    assert all(0.1 < clock < 10 for clock in clocks.values())


def cache_entry(folder, **entries):
    folder.mkdir(parents=True)
    for name, text in entries.items():
        (folder / name).write_text(f"{text}\n")


def test_a_kernel_that_lists_caches_without_sizes_gives_a_default(tmp_path, monkeypatch):
    cache_entry(tmp_path / "index0", level=1, type="Data")
    cache_entry(tmp_path / "index1", level=2)
    cache_entry(tmp_path / "index2", level=3, type="Unified", size="unknown")
    monkeypatch.setattr(cpu, "_SYSFS_CACHES", tmp_path)
    monkeypatch.setattr(cpu, "core", None)
    found = cpu.this_cpu()
    assert found.cache_bytes == {}
    assert cache_bytes(found) == found.n_cores * (256 << 10)


@pytest.mark.parametrize(("size", "expected"), [("512K", 512 << 10), ("2M", 2 << 20), ("65536", 65536)])
def test_sizes_of_caches_have_units(tmp_path, monkeypatch, size, expected):
    cache_entry(tmp_path / "index0", level=1, type="Instruction", size="32K")
    cache_entry(tmp_path / "index1", level=2, type="Unified", size=size)
    monkeypatch.setattr(cpu, "_SYSFS_CACHES", tmp_path)
    monkeypatch.setattr(cpu, "core", None)
    assert cpu.this_cpu().cache_bytes == {"l2": expected}


def test_a_machine_without_a_folder_of_caches_gives_a_default(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_SYSFS_CACHES", tmp_path / "none")
    monkeypatch.setattr(cpu, "core", None)
    assert cache_bytes(cpu.this_cpu()) > 0


@pytest.mark.parametrize(
    ("capacities", "speeds"),
    [((150, 1024), (150, 1024)), ((1024, 1024), (0.6, 2.4)), ((), (0.6, 2.4))],
)
def test_the_speed_of_a_core_is_its_capacity_or_else_its_clock(tmp_path, monkeypatch, capacities, speeds):
    for core, khz in enumerate((600_000, 2_400_000)):
        cache_entry(tmp_path / f"cpu{core}" / "cpufreq", cpuinfo_max_freq=khz)
    for core, capacity in enumerate(capacities):
        (tmp_path / f"cpu{core}" / "cpu_capacity").write_text(f"{capacity}\n")
    monkeypatch.setattr(machine, "_SYSFS_CPU", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    assert machine.core_speeds() == dict(enumerate(speeds))
