"""Which cores threads are pinned to."""

from __future__ import annotations

import pytest

from sprat.devices import machine
from sprat.devices.affinity import Threads, default_threads, fast_core_ids
from sprat.devices.profile import load_profile

# A Pixel 8 as Linux numbers it: little cores first. 1 at 2.91, 4 at 2.37, 4 at 1.7 GHz.
PIXEL_8 = {0: 1.704, 1: 1.704, 2: 1.704, 3: 1.704, 4: 2.367, 5: 2.367, 6: 2.367, 7: 2.367, 8: 2.914}


def test_little_cores_of_the_device_get_no_threads():
    assert fast_core_ids(load_profile("pixel-8"), PIXEL_8) == (8, 4, 5, 6, 7)


def test_a_board_with_equal_cores_is_not_pinned():
    assert fast_core_ids(load_profile("rpi5-8gb"), dict.fromkeys(range(4), 2.4)) == ()


@pytest.mark.parametrize("other", [dict.fromkeys(range(2), 3.0), dict.fromkeys(range(9), 2.4), {**PIXEL_8, 8: 3.3}, {}])
def test_another_machine_is_not_pinned(other):
    assert fast_core_ids(load_profile("pixel-8"), other) == ()


# Capacities and kHz of each core in /sys, as Linux lists them: four A55 before four A76; one X3, four A715, four A510;
# clocks alone, of a kernel without capacities.
RK3588 = [(398, 1_800_000)] * 4 + [(1024, 2_400_000)] * 4
TENSOR_G3 = [(160, 1_704_000)] * 4 + [(610, 2_367_000)] * 4 + [(1024, 2_914_000)]
CLOCKS_ONLY = [(None, 600_000)] * 2 + [(None, 2_000_000)] * 2


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (RK3588, Threads(4, (4, 5, 6, 7))),
        (TENSOR_G3, Threads(5, (8, 4, 5, 6, 7))),
        (CLOCKS_ONLY, Threads(2, (2, 3))),
        ([(1024, 2_400_000)] * 4, Threads(4)),
    ],
)
def test_big_cores_of_the_system_get_the_threads(tmp_path, monkeypatch, topology, expected):
    for core, (capacity, khz) in enumerate(topology):
        folder = tmp_path / f"cpu{core}"
        (folder / "cpufreq").mkdir(parents=True)
        (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{khz}\n")
        if capacity is not None:
            (folder / "cpu_capacity").write_text(f"{capacity}\n")
    monkeypatch.setattr(machine, "_SYSFS_CPU", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(len(topology))))
    monkeypatch.setattr("sprat.devices.affinity.container_cpus", lambda: None)
    assert default_threads() == expected
