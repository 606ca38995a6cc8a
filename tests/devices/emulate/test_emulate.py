"""Commands run under a device's limits; no group is left, however the process ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprat.devices.bench.resources import this_machine
from sprat.devices.emulate import emulate
from sprat.devices.emulate.cgroups import ControlGroup
from sprat.devices.emulate.cleanup import clean_up
from sprat.devices.emulate.emulate import Emulator, choose_storage, plan_emulation
from sprat.devices.profile import load_profile
from sprat.errors import DeviceError, EmulationError

PROFILE = load_profile("rpi5-8gb")
HOLDS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in background processes
from pathlib import Path
from sprat.devices.emulate.emulate import plan_emulation
from sprat.devices.profile import load_profile
import subprocess
profile = load_profile("rpi-zero-2w")
with plan_emulation(profile, profile.storage[0], Path(sys.argv[1])).limited() as prefix:
    child = subprocess.Popen([*prefix, sys.executable, "-c", "import time; print('in', flush=True); time.sleep(60)"])
    child.wait()
"""


def can_create_groups():
    """Whether this user can create control groups; in containers often not."""
    try:
        with plan_emulation(PROFILE, PROFILE.storage[0], Path(__file__)).limited():
            return True
    except EmulationError:
        return False


needs_groups = pytest.mark.skipif(not can_create_groups(), reason="no permission to create control groups")


def wait_for(condition):
    """Whether ``condition`` becomes true within a minute."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_the_limits_are_those_of_the_device(tmp_path):
    emulator = plan_emulation(PROFILE, choose_storage(PROFILE, "NVMe"), tmp_path)
    described = emulator.emulation
    assert described.memory_bytes == min(PROFILE.usable_bytes, this_machine().memory_bytes)
    assert described.n_cores == min(4, len(os.sched_getaffinity(0)))
    assert described.storage == "NVMe"
    assert described.read_bytes_per_second in {None, 450_000_000}
    assert any(sentence.startswith("memory bandwidth: rpi5-8gb reads 11.4 GB/s") for sentence in described.not_emulated)
    assert any("Cortex-A76" in sentence for sentence in described.not_emulated)


def test_an_unknown_storage_gets_the_nearest_kind_as_a_hint():
    assert choose_storage(PROFILE, "microsd").kind == "microSD"
    assert choose_storage(PROFILE, None).kind == "NVMe"
    with pytest.raises(DeviceError, match="did you mean 'nvme'"):
        choose_storage(PROFILE, "NVM")


@needs_groups
def test_a_child_runs_under_all_limits_and_no_group_is_left(tmp_path):
    emulator = plan_emulation(PROFILE, PROFILE.storage[0], tmp_path)
    with emulator.limited() as prefix:
        shown = subprocess.run([*prefix, "cat", "/proc/self/cgroup"], capture_output=True, text=True, check=True).stdout
        for group in emulator.groups:
            for name, value in group.files:
                if name != "cpuset.cpus":  # printed as ranges
                    assert (group.folder / name).read_text(encoding="ascii").split() == value.split()
    assert shown.count(f"/sprat-{os.getpid()}") == len(emulator.groups)
    assert [group.folder for group in emulator.groups if group.folder.exists()] == []


@needs_groups
def test_a_child_that_exceeds_the_memory_limit_is_killed(tmp_path):
    zero = load_profile("rpi-zero-2w")
    with plan_emulation(zero, zero.storage[0], tmp_path).limited() as prefix:
        command = [*prefix, sys.executable, "-c", f"bytearray(b'x') * {zero.usable_bytes + (64 << 20)}"]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@needs_groups
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_groups_and_children_are_removed_when_the_parent_is_killed(how, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout.readline() == b"in\n"
        pattern = f"**/sprat-{parent.pid}"
        groups = list(Path("/sys/fs/cgroup").glob(pattern))
        members = {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}
        parent.send_signal(how)
    assert groups
    assert members
    assert wait_for(lambda: not any(group.exists() for group in groups))
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members))


def test_groups_are_removed_when_a_later_one_cannot_be_created(tmp_path):
    made, refused = tmp_path / "made", tmp_path / "none" / "refused"
    planned = plan_emulation(PROFILE, PROFILE.storage[0], tmp_path)
    groups = (ControlGroup(made, ()), ControlGroup(refused, ()))
    with (
        pytest.raises(EmulationError, match="cannot be set up"),
        Emulator(planned.limits, planned.emulation, groups).limited(),
    ):
        pass
    assert not made.exists()


def test_cleanup_returns_the_groups_that_it_could_not_remove(tmp_path, monkeypatch):
    monkeypatch.setattr("sprat.devices.emulate.cleanup._TIMEOUT_SECONDS", 0.05)
    stuck, gone = tmp_path / "stuck", tmp_path / "gone"
    (stuck / "inside").mkdir(parents=True)
    gone.mkdir()
    assert clean_up([stuck, gone, tmp_path / "never"]) == [stuck]
    assert not gone.exists()


def test_a_file_that_is_not_on_a_disk_gets_no_read_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(emulate, "_disk_of", lambda _file: None)
    emulator = plan_emulation(PROFILE, PROFILE.storage[0], tmp_path)
    assert emulator.emulation.read_bytes_per_second is None
    assert any(sentence.startswith("storage speed:") for sentence in emulator.emulation.not_emulated)
