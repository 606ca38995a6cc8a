"""What this machine reports about itself."""

from sprat.devices import machine
from sprat.devices.machine import available_bytes, core_clocks, memory_bytes


def test_this_machine_has_memory():
    assert 2**20 < available_bytes() < memory_bytes()


def test_memory_is_known_without_meminfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    assert available_bytes() == memory_bytes() // 2 > 2**20


def test_every_core_has_a_clock():
    clocks = core_clocks()
    assert clocks
    assert all(0.1 < clock < 10 for clock in clocks.values())
