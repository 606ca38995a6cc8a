"""Mounts and groups of a process, from the files of a made-up ``/proc/self``."""

from pathlib import Path

from sprat.devices.control_groups import GroupMount, group_mounts, group_paths

MOUNTINFO = r"""22 27 0:21 / /proc rw - proc proc rw
30 25 0:26 /docker/a /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /mnt/control\040groups rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_have_version_controllers_root_and_folder(tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    assert list(group_mounts(tmp_path)) == [
        GroupMount(1, ("rw", "cpu", "cpuacct"), Path("/docker/a"), Path("/sys/fs/cgroup/cpu,cpuacct")),
        GroupMount(2, ("rw", "nsdelegate"), Path("/"), Path("/mnt/control groups")),
    ]


def test_a_group_per_controller_and_one_of_version_2(tmp_path):
    (tmp_path / "cgroup").write_text("4:memory:/a\n1:cpu,cpuacct:/b:c\n0::/d\n")
    assert group_paths(tmp_path) == {"memory": "/a", "cpu": "/b:c", "cpuacct": "/b:c", "": "/d"}


def test_a_system_without_control_groups_has_none(tmp_path):
    assert not list(group_mounts(tmp_path))
    assert group_paths(tmp_path) == {}
