"""Control groups of both versions, on trees of plain files: which folders, which files, which contents."""

import pytest

from sprat.devices.emulate.cgroups import Limits, find_tree, plan_groups
from sprat.errors import EmulationError

LIMITS = Limits(memory_bytes=7 << 30, cores=(0, 2, 3), cpu_share=0.5, disk="254:0", read_bytes_per_second=90_000_000)
CONTROLLERS = ("memory", "cpuset", "cpu", "blkio")


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def version_1(root, together=()):
    """``/proc/self`` of a process in ``/jobs/7``; one tree per controller, except those ``together``."""
    mounts, groups = [], []
    for number, names in enumerate([*([name] for name in CONTROLLERS if name not in together), list(together)]):
        if names:
            place = root / "cgroup" / ",".join(names)
            mounts.append(f"30 25 0:{number} / {place} rw,nosuid - cgroup cgroup rw,{','.join(names)}")
            groups.append(f"{number + 1}:{','.join(names)}:/jobs/7")
    mounts.append(f"40 25 0:50 / {root / 'unified'} rw - cgroup2 cgroup2 rw")
    groups.append("0::/elsewhere")
    return _proc(root, mounts, groups)


def version_2(root, controllers="cpuset cpu io memory pids"):
    """``/proc/self`` of a process in ``/user/me/run.scope`` of a version 2 tree."""
    tree = root / "cgroup"
    write(tree / "cgroup.controllers", controllers)
    write(tree / "cgroup.procs", "1\n2\n")
    for folder in ("user", "user/me", "user/me/run.scope"):
        write(tree / folder / "cgroup.procs")
        write(tree / folder / "cgroup.controllers", "cpu memory")
        write(tree / folder / "cgroup.subtree_control")
    write(tree / "user/me/run.scope/cgroup.procs", "4711\n")
    mounts = [f"28 23 0:24 / {tree} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"]
    return _proc(root, mounts, ["0::/user/me/run.scope"]), tree


def _proc(root, mounts, groups):
    write(root / "proc" / "mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n" + "\n".join(mounts) + "\n")
    write(root / "proc" / "cgroup", "\n".join(groups) + "\n")
    return root / "proc"


def test_version_1_has_a_group_per_controller(tmp_path):
    tree = find_tree(version_1(tmp_path))
    write(tmp_path / "cgroup/cpuset/jobs/7/cpuset.mems", "0-1\n")
    groups = plan_groups(tree, LIMITS, "sprat-1")
    assert tree.version == 1
    assert [group.folder for group in groups] == [
        tmp_path / "cgroup" / name / "jobs/7/sprat-1" for name in ("memory", "cpuset", "cpu", "blkio")
    ]
    assert dict(entry for group in groups for entry in group.files) == {
        "memory.limit_in_bytes": "7516192768",
        "memory.swappiness": "0",
        "cpuset.cpus": "0,2,3",
        "cpuset.mems": "0-1",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "blkio.throttle.read_bps_device": "254:0 90000000",
    }


def test_version_1_controllers_that_are_mounted_together_share_a_group(tmp_path):
    groups = plan_groups(find_tree(version_1(tmp_path, together=("cpuset", "cpu"))), LIMITS, "sprat-1")
    assert len(groups) == 3
    assert len({group.folder for group in groups}) == 3


def test_without_a_disk_there_is_no_read_limit(tmp_path):
    limits = Limits(memory_bytes=1 << 30, cores=(0,), cpu_share=1.0)
    groups = plan_groups(find_tree(version_1(tmp_path)), limits, "sprat-1")
    assert [group.folder.parts[-4] for group in groups] == ["memory", "cpuset", "cpu"]


def test_version_2_has_one_group_below_the_nearest_ancestor_that_enables_controllers(tmp_path):
    proc, tree = version_2(tmp_path)
    write(tree / "user/me/cgroup.subtree_control", "cpuset cpu io memory")
    (group,) = plan_groups(find_tree(proc), LIMITS, "sprat-1")
    assert group.folder == tree / "user/me/sprat-1"
    assert dict(group.files) == {
        "memory.max": "7516192768",
        "memory.swap.max": "0",
        "cpuset.cpus": "0,2,3",
        "cpu.max": "150000 100000",
        "io.max": "254:0 rbps=90000000",
    }


def test_version_2_enables_missing_controllers(tmp_path):
    proc, tree = version_2(tmp_path)
    write(tree / "cgroup.subtree_control", "cpu memory")
    (group,) = plan_groups(find_tree(proc), LIMITS, "sprat-1")
    assert group.folder == tree / "sprat-1"  # the root may contain processes
    assert (tree / "cgroup.subtree_control").read_text(encoding="ascii") == "+cpuset +io"


def test_version_2_skips_groups_that_contain_processes(tmp_path):
    proc, tree = version_2(tmp_path)
    for folder in ("user/me", "user/me/run.scope"):
        write(tree / folder / "cgroup.subtree_control", "cpuset cpu io memory")
    write(tree / "user/me/cgroup.procs", "99\n")
    write(tree / "user/cgroup.subtree_control", "cpuset cpu io memory")
    (group,) = plan_groups(find_tree(proc), LIMITS, "sprat-1")
    assert group.folder == tree / "user/sprat-1"


def test_version_2_without_permission_is_an_error_with_a_remedy(tmp_path):
    proc, tree = version_2(tmp_path)
    (tree / "cgroup.subtree_control").mkdir()  # a folder cannot be written, not even by root
    with pytest.raises(EmulationError, match="run as root, or under `systemd-run"):
        plan_groups(find_tree(proc), LIMITS, "sprat-1")


@pytest.mark.parametrize("controllers", ["cpu pids", ""])
def test_a_missing_controller_is_named(tmp_path, controllers):
    proc, _ = version_2(tmp_path, controllers)
    with pytest.raises(EmulationError, match=r"lacks .*memory"):
        find_tree(proc)


def test_no_control_groups_at_all(tmp_path):
    with pytest.raises(EmulationError, match="lacks memory, cpuset, cpu, blkio"):
        find_tree(_proc(tmp_path, [], ["0::/"]))
