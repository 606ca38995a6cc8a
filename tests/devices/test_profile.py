from pathlib import Path

import msgspec
import pytest

from sprat.devices.profile import Basis, find_profile, load_profile, parse_profile, profile_names
from sprat.errors import DeviceError

PROFILES = Path(__file__).parents[2] / "devices/profiles"

PI5 = """
name = "board"
title = "A board"
soc = "A chip"
[[cores]]
kind = "Cortex-A76"
count = 4
clock_ghz = { value = 2.4, basis = "published", source = "brief" }
features = ["neon"]
int8_ops_per_cycle = { value = 64, basis = "published", source = "guide" }
f32_ops_per_cycle = { value = 16, basis = "published", source = "guide" }
[memory]
total_bytes = { value = 8e9, basis = "published", source = "brief" }
system_bytes = { value = 1e9, basis = "assumed", source = "idle" }
peak_gbps = { value = 17.1, basis = "published", source = "brief" }
sustained_gbps = { value = 11.4, basis = "measured", source = "us" }
[[storage]]
kind = "microSD"
sequential_mbps = { value = 90, basis = "assumed", source = "bus" }
"""


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid_and_has_sources(name):
    profile = load_profile(name)
    assert profile.name == name
    assert 0 < profile.usable_bytes < profile.memory.total_bytes.value
    assert all(len(cores.clock_ghz.source) > 10 for cores in profile.cores)


def test_the_documented_devices_have_profiles():
    boards = {"rpi4-4gb", "rpi4-8gb", "rpi5-4gb", "rpi5-8gb", "rpi5-16gb", "rpi-zero-2w", "orange-pi-5-16gb"}
    others = {"jetson-orin-nano-8gb", "jetson-orin-nx-16gb", "pixel-8", "galaxy-s24", "n100-mini-16gb", "laptop-8gb"}
    homes = {"home-4c-8gb-4gpu", "home-8c-16gb-8gpu", "home-20gb-12gpu"}
    assert set(profile_names()) >= boards | others | homes


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_what_plans_and_reports_need(name):
    profile = load_profile(name)
    assert profile.memory.sustained_gbps
    assert profile.memory.cache_bytes
    assert profile.power
    assert profile.thermal
    for storage in profile.storage:
        assert storage.capacity_bytes
        assert storage.random_4kib_mbps
        assert storage.random_1mib_mbps
    for cores in profile.cores:
        assert cores.int8_gops > cores.f32_gflops > 0


def test_the_profile_of_a_raspberry_pi_5_has_the_values_of_its_product_brief():
    pi = load_profile("rpi5-8gb")
    assert (pi.n_cores, pi.cores[0].kind, pi.cores[0].clock_ghz.value) == (4, "Cortex-A76", 2.4)
    assert pi.memory.total_bytes.value == 8 << 30
    assert pi.memory.peak_gbps.value == pytest.approx(4.267 * 32 / 8, abs=0.05)
    assert "dotprod" in pi.cores[0].features


def test_an_unknown_name_gets_the_nearest_one_as_a_hint():
    with pytest.raises(DeviceError, match="unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'"):
        load_profile("rpi5-8g")


def test_a_name_cannot_be_a_path():
    with pytest.raises(DeviceError, match="unknown device"):
        load_profile("../profiles/rpi5-8gb")


def test_each_value_has_its_own_basis():
    profile = parse_profile("board", PI5.encode())
    assert profile.memory.system_bytes.basis is Basis.ASSUMED
    assert profile.memory.sustained_gbps is not None
    assert profile.memory.sustained_gbps.basis is Basis.MEASURED


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("soc =", "sock =", "unknown field `sock`|missing required field `soc`"),
        ('title = "A board"\n', "", "missing required field `title`"),
        ("value = 2.4", "value = 0", r"> 0.*cores\[0\].clock_ghz|> 0.*clock_ghz"),
        ('basis = "measured"', 'basis = "guessed"', "Invalid enum value 'guessed'"),
        ('source = "us"', 'source = ""', "length >= 1"),
        ("count = 4", "count = 0", ">= 1"),
        ("value = 1e9", "value = 9e9", "system_bytes is 9,000,000,000, of 8,000,000,000 bytes"),
        ("value = 8e9", "value = inf", "memory.total_bytes is inf, expected at most"),
        ("value = 8e9", "value = nan", "memory.total_bytes is nan|Expected `float` > 0"),
        ("value = 8e9", "value = -1", "> 0"),
        ("value = 2.4", "value = 2400", r"cores\[0\].clock_ghz is 2,400, expected at most 20"),
        (
            "int8_ops_per_cycle =",
            "# int8_ops_per_cycle =",
            "cores without int8_ops_per_cycle or f32_ops_per_cycle",
        ),
        (
            'source = "bus" }',
            'source = "bus" }\nrandom_4kib_mbps = { value = 91, basis = "assumed", source = "?" }',
            r"microSD: random_4kib_mbps is 91 MB/s, more than sequential_mbps \(90\)",
        ),
        ("value = 11.4", "value = 20", r"sustained_gbps is 20 GB/s, more than peak_gbps \(17.1\)"),
        ('name = "board"', 'name = "bored"', "its name key is 'bored'"),
        ("[memory]", "[memory", "Invalid|Expected|expected"),
    ],
)
def test_a_wrong_value_is_named(old, new, complaint):
    assert old in PI5
    with pytest.raises(DeviceError, match=complaint) as caught:
        parse_profile("board", PI5.replace(old, new).encode())
    assert "'board'" in str(caught.value)


def test_the_error_for_a_profile_of_the_user_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "sprat" / "devices" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(PI5)
    with pytest.raises(DeviceError, match=r"mine\.toml: device profile 'mine': its name key is 'board'"):
        load_profile("mine")


def test_a_file_is_a_profile_whatever_it_is_called(tmp_path):
    file = tmp_path / "a friend's.toml"
    file.write_bytes((PROFILES / "rpi5-8gb.toml").read_bytes().replace(b'name = "rpi5-8gb"', b'name = "friend"'))
    assert (
        find_profile(file)
        == find_profile(str(file))
        == msgspec.structs.replace(load_profile("rpi5-8gb"), name="friend")
    )
    assert find_profile("rpi5-8gb") == load_profile("rpi5-8gb")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("./nothing.toml", r"nothing\.toml: no such file; expected a device profile"),
        (Path("nothing"), r"nothing: no such file"),
        (5, "device is 5, expected the name of a profile"),
        ("raspberrypi5", "did you mean 'rpi5-4gb', 'rpi5-8gb' or 'rpi5-16gb'"),
        ("RK3588", "did you mean 'orange-pi-5-16gb'"),
    ],
)
def test_a_device_that_is_not_found_says_what_was_expected(device, message):
    with pytest.raises(DeviceError, match=message):
        find_profile(device)


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "friend.toml"
    file.write_text("name = 'friend'\n")
    with pytest.raises(DeviceError, match=r"friend\.toml: device profile: .*missing required field"):
        find_profile(file)


def test_the_example_of_the_documentation_is_a_profile(tmp_path):
    page = (Path(__file__).parents[2] / "docs/device-profiles.md").read_text()
    file = tmp_path / "friend.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0])
    assert find_profile(file).usable_bytes == 7 << 30
