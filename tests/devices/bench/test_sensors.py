"""Sensors on trees of files like sysfs: read where present, None elsewhere, with a note when they disappear."""

import time

import pytest

from sprat.devices.bench.results import Moment
from sprat.devices.bench.sensor_log import SensorLog
from sprat.devices.bench.sensors import EnergyCounter, Gauge, Sensors


@pytest.fixture(autouse=True)
def _no_firmware(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def write(root, files):
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="ascii")


def firmware(tmp_path, answer):
    """A ``vcgencmd`` that prints ``answer``."""
    command = tmp_path / "bin" / "vcgencmd"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f"#!/bin/sh\necho {answer}\n", encoding="ascii")
    command.chmod(0o755)


def test_a_machine_without_sensors_gives_none(tmp_path):
    sensors = Sensors(tmp_path)
    values = (sensors.temperature_c(), sensors.clock_ghz(), sensors.power_w(), sensors.energy_j(), sensors.throttling())
    assert values == (None, None, None, None, None)
    assert sensors.notes == []


def test_temperature_is_of_the_hottest_zone_and_clock_of_the_fastest_core(tmp_path):
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": 48312,
            "sys/class/thermal/thermal_zone1/temp": 61000,
            "sys/class/thermal/thermal_zone2/temp": "",  # some zones have no sensor
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": 1800000,
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": 2400000,
        },
    )
    sensors = Sensors(tmp_path)
    assert sensors.temperature_c() == 61.0
    assert sensors.clock_ghz() == pytest.approx(2.4)
    assert sensors.notes == []


def test_power_is_that_of_the_board_if_a_rail_feeds_all_others(tmp_path):
    ina = "sys/class/hwmon/hwmon1"
    write(tmp_path, {"sys/class/hwmon/hwmon0/name": "nvme", "sys/class/hwmon/hwmon0/power1_input": 99_000_000})
    write(tmp_path, {f"{ina}/name": "ina3221", f"{ina}/in1_input": 5000, f"{ina}/curr1_input": 2000})
    write(tmp_path, {f"{ina}/in2_input": 1000, f"{ina}/curr2_input": 500, f"{ina}/in2_label": "VDD_CPU"})
    assert Sensors(tmp_path).power_w() == pytest.approx(5.0 * 2.0 + 1.0 * 0.5)
    write(tmp_path, {f"{ina}/in1_label": "VDD_IN"})
    assert Sensors(tmp_path).power_w() == pytest.approx(10.0)


def test_power_of_a_single_monitor(tmp_path):
    write(tmp_path, {"sys/class/hwmon/hwmon3/name": "ina226", "sys/class/hwmon/hwmon3/power1_input": 7_250_000})
    assert Sensors(tmp_path).power_w() == pytest.approx(7.25)


def test_energy_counts_packages_once_and_handles_wraparound(tmp_path):
    package = "sys/class/powercap/intel-rapl:0"
    write(tmp_path, {f"{package}/energy_uj": 900_000, f"{package}/max_energy_range_uj": 1_000_000})
    write(tmp_path, {"sys/class/powercap/intel-rapl:0:0/energy_uj": 5, "sys/class/powercap/intel-rapl/name": "x"})
    sensors = Sensors(tmp_path)
    assert sensors.energy_j() == 0.0
    write(tmp_path, {f"{package}/energy_uj": 300_000})
    assert sensors.energy_j() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("bits", "now", "count"), [("0x0", False, 0), ("0x50005", True, 5), ("0x50000", False, 5), ("0x80008", True, 8)]
)
def test_throttling_is_read_from_the_firmware(tmp_path, bits, now, count):
    firmware(tmp_path, f"throttled={bits}")
    state = Sensors(tmp_path).throttling()
    assert (state.now, state.count) == (now, count)


def test_a_failing_vcgencmd_gives_one_note(tmp_path):
    firmware(tmp_path, "error")
    sensors = Sensors(tmp_path)
    assert (sensors.throttling(), sensors.throttling()) == (None, None)
    assert sensors.notes == ["vcgencmd failed during the test"]


def test_a_sensor_that_disappears_gives_a_note_and_the_others_are_read(tmp_path):
    zones = [tmp_path / f"sys/class/thermal/thermal_zone{number}/temp" for number in (0, 1)]
    write(tmp_path, {zones[0]: 40000, zones[1]: 50000})
    sensors = Sensors(tmp_path)
    with SensorLog(sensors, interval_s=60) as log:
        zones[1].unlink()
    assert log.before.temperature_c == 50.0
    assert log.after.temperature_c == 40.0
    assert sensors.notes == ["the sensor thermal_zone1 disappeared during the test"]
    zones[0].unlink()
    assert sensors.temperature_c() is None
    assert len(sensors.notes) == 2


class Scripted:
    """Sensors with given readings."""

    def __init__(self, **readings):
        self._readings = {name: iter(values) for name, values in readings.items()}
        self.notes = []

    def __getattr__(self, name):
        return lambda: next(self._readings[name]) if name in self._readings else None


def log_of(**readings):
    """A finished log of two readings."""
    with SensorLog(Scripted(**readings), interval_s=60) as log:
        time.sleep(0.01)
    return log


def test_energy_comes_from_a_counter_if_there_is_one():
    assert log_of(energy_j=[2.0, 7.5], power_w=[1.0, 1.0]).joules() == 5.5


def test_energy_is_the_integral_of_power_without_a_counter():
    log = log_of(power_w=[4.0, 8.0])
    assert log.joules() == pytest.approx(6.0 * (log.after.seconds - log.before.seconds))


@pytest.mark.parametrize("readings", [{}, {"power_w": [4.0, None]}, {"energy_j": [4.0, None]}])
def test_energy_is_none_if_a_sensor_is_missing_or_disappears(readings):
    assert log_of(**readings).joules() is None


def test_a_log_has_readings_until_its_end_and_no_empty_ones(tmp_path):
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": 45000})
    with SensorLog(Sensors(tmp_path), interval_s=0.001) as log:
        deadline = time.monotonic() + 20
        while len(log.moments()) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
    moments = log.moments()
    assert len(moments) >= 5
    assert {moment.temperature_c for moment in moments} == {45.0}
    assert [moment.seconds for moment in moments] == sorted(moment.seconds for moment in moments)
    with SensorLog(Sensors(tmp_path / "empty"), interval_s=60) as empty:
        pass
    assert empty.moments() == ()
    assert isinstance(empty.before, Moment)


def test_a_changed_count_means_throttling(tmp_path):
    count = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    write(tmp_path, {count: 3})
    with SensorLog(Sensors(tmp_path), interval_s=60) as still:
        pass
    assert still.throttled() is False
    with SensorLog(Sensors(tmp_path), interval_s=60) as hot:
        count.write_text("4", encoding="ascii")
    assert hot.throttled() is True
    assert log_of().throttled() is None


def test_a_gauge_is_the_product_of_its_files(tmp_path):
    write(tmp_path, {"volt": 12, "ampere": 3})
    gauge = Gauge("rail", (tmp_path / "volt", tmp_path / "ampere"), 0.5)
    assert gauge.read() == 18.0
    assert EnergyCounter(gauge, 100.0).read() == 0.0
