"""Limits of control groups, versions 1 and 2, from the files of a made-up machine."""

import re
from pathlib import Path

import pytest

from sprat.devices import container, machine
from sprat.devices.affinity import Threads, default_threads
from sprat.devices.container import container_available_bytes, container_cpus, container_memory_bytes, own_groups

GIB = 1 << 30
UNLIMITED_V1 = 0x7FFFFFFFFFFFF000


class Groups:
    """A folder with ``proc`` and the mounted trees, to which a test writes groups."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self._mountinfo = ""
        (folder / "proc").mkdir()
        self.process_is_in("")
        monkeypatch.setattr(container, "_PROC", folder / "proc")

    def mount(self, name, kind, options="rw", root="/"):
        self._mountinfo += f"30 25 0:26 {root} {self.folder / name} rw - {kind} {kind} {options}\n"
        (self.folder / "proc" / "mountinfo").write_text(self._mountinfo)

    def process_is_in(self, cgroup):
        (self.folder / "proc" / "cgroup").write_text(cgroup)

    def write(self, group, **files):
        (self.folder / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.folder / group / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    return Groups(tmp_path, monkeypatch)


@pytest.fixture
def v1(groups):
    """Version 1, with the CPU controllers in one tree, as most distributions mount them."""
    groups.mount("memory", "cgroup", "rw,memory")
    groups.mount("cpu", "cgroup", "rw,cpu,cpuacct")
    groups.process_is_in("4:memory:/docker/a\n1:cpu,cpuacct:/docker/a\n0::/\n")
    groups.write("memory", memory__limit_in_bytes=UNLIMITED_V1)
    groups.write("memory/docker/a", memory__limit_in_bytes=UNLIMITED_V1)
    groups.write("cpu/docker/a", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    return groups


@pytest.fixture
def v2(groups):
    groups.mount("all", "cgroup2")
    groups.process_is_in("0::/pod/a\n")
    groups.write("all/pod/a", memory__max="max", memory__high="max", cpu__max="max 100000")
    return groups


@pytest.mark.parametrize("version", ["v1", "v2", "groups"])
def test_without_a_limit_the_machine_decides(version, request):
    request.getfixturevalue(version)
    assert (container_memory_bytes(), container_available_bytes(), container_cpus()) == (None, None, None)


def test_version_1_limits_memory_and_time(v1):
    stat = "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\ntotal_rss 5"
    v1.write("memory/docker/a", memory__limit_in_bytes=GIB, memory__usage_in_bytes=GIB // 2 + 400, memory__stat=stat)
    v1.write("cpu/docker/a", cpu__cfs_quota_us=150000)
    assert (container_memory_bytes(), container_available_bytes(), container_cpus()) == (GIB, GIB // 2, 1.5)


def test_version_2_limits_memory_and_time(v2):
    stat = "anon 5\ninactive_file 300\nactive_file 100"
    v2.write("all/pod/a", memory__max=GIB, memory__current=GIB // 2 + 400, memory__stat=stat, cpu__max="50000 100000")
    assert (container_memory_bytes(), container_available_bytes(), container_cpus()) == (GIB, GIB // 2, 0.5)


def test_the_throttling_limit_of_version_2_counts_too(v2):
    v2.write("all/pod/a", memory__max=GIB, memory__high=GIB // 4)
    assert container_memory_bytes() == GIB // 4


def test_a_limit_of_an_ancestor_holds(v1):
    v1.write("memory/docker", memory__limit_in_bytes=GIB)
    v1.write("cpu", cpu__cfs_quota_us=200000, cpu__cfs_period_us=100000)
    assert (container_memory_bytes(), container_cpus()) == (GIB, 2.0)


def test_a_limit_of_a_sibling_does_not_hold(v2):
    v2.write("all/pod/b", memory__max=GIB, cpu__max="50000 100000")
    assert (container_memory_bytes(), container_cpus()) == (None, None)


@pytest.mark.parametrize("root", ["/docker/a", "/"])
def test_the_mount_inside_a_container_is_its_own_group(groups, root):
    groups.mount("memory", "cgroup", "rw,memory", root=root)
    groups.process_is_in("4:memory:/docker/a\n")
    groups.write("memory", memory__limit_in_bytes=GIB)
    assert container_memory_bytes() == GIB
    assert list(own_groups("memory")) == [groups.folder / "memory"]


def test_both_versions_at_once_give_the_smaller_limit(v1):
    v1.mount("unified", "cgroup2")
    v1.write("unified", memory__max=GIB)
    v1.write("memory/docker/a", memory__limit_in_bytes=2 * GIB)
    assert container_memory_bytes() == GIB


def test_memory_of_this_machine_is_the_containers(v2):
    v2.write("all/pod/a", memory__max=64 << 20, memory__current=60 << 20, memory__stat="anon 5")
    assert (machine.memory_bytes(), machine.available_bytes()) == (64 << 20, 4 << 20)


def test_more_in_use_than_allowed_leaves_nothing(v2):
    v2.write("all/pod/a", memory__max=GIB, memory__current=2 * GIB)
    assert container_available_bytes() == 0


@pytest.mark.parametrize(
    ("speeds", "quota", "expected"),
    [
        ({0: 2.4, 1: 2.4, 2: 2.4, 3: 2.4}, "max", Threads(4)),
        ({0: 2.4, 1: 2.4, 2: 2.4, 3: 2.4}, "250000", Threads(2)),
        ({0: 2.4, 1: 2.4}, "50000", Threads(1)),
        ({0: 2.4, 1: 2.4}, "900000", Threads(2)),
        ({0: 0.6, 1: 0.6, 2: 2.4}, "max", Threads(1, (2,))),
        ({0: 150, 1: 150, 4: 700, 5: 700, 8: 1024}, "max", Threads(3, (8, 4, 5))),
        ({0: 150, 1: 150, 4: 700, 5: 700, 8: 1024}, "200000", Threads(2, (8, 4))),
        ({3: 1.0, 7: 2.0}, "100000", Threads(1, (7,))),
    ],
)
def test_threads_are_the_big_cores_within_the_quota(v2, monkeypatch, speeds, quota, expected):
    v2.write("all/pod/a", cpu__max=f"{quota} 100000")
    monkeypatch.setattr("sprat.devices.affinity.core_speeds", lambda: speeds)
    assert default_threads() == expected


def test_the_page_on_containers_names_every_file_that_is_read():
    page = (Path(__file__).parents[2] / "docs" / "containers.md").read_text(encoding="utf-8")
    source = Path(container.__file__).read_text(encoding="utf-8")
    read = {"cgroup", "mountinfo", *re.findall(r'"((?:memory|cpu)\.\w+)"', source)}
    assert len(read) > 8
    assert not [name for name in read if name not in page]
