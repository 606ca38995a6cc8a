"""The procedure on a subject that only records its calls: what runs, in which order, what the record says."""

from pathlib import Path

import pytest
from bench_records import MODEL

from sprat.devices.bench import procedure
from sprat.devices.bench.digest import file_digest
from sprat.devices.bench.procedure import Bench, Procedure, Setup
from sprat.devices.bench.resources import BusyMeter, cached_bytes, drop_cached, peak_rss_bytes, this_machine
from sprat.devices.bench.results import BenchTest, Label

SETUP = Setup(model=MODEL, backend="native", threads=2)


class Clock:
    """Time that advances only when the subject works."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(procedure.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(procedure.time, "monotonic", lambda: self.now)


class Recorder:
    """A subject whose steps take the given seconds; the last value repeats."""

    def __init__(self, clock, seconds=(0.1,)):
        self._clock, self._seconds = clock, list(seconds)
        self.done = []

    def _step(self, what):
        self.done.append(what)
        self._clock.now += self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0]

    def rewind(self, depth):
        self.done.append(f"rewind {depth}")

    def prefill(self, n_tokens):
        self._step(f"prefill {n_tokens}")

    def decode(self):
        self._step("decode")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_prompt_is_warmed_up_until_stable_and_then_repeated(clock):
    subject = Recorder(clock, [2.0, 1.0, 1.01, 0.5, 0.25, 0.5])
    record = Bench(subject, SETUP, Procedure(repetitions=3)).measure(BenchTest.prefill(64, depth=8))
    assert subject.done.count("prefill 64") == 3 + 3
    assert subject.done[:3] == ["rewind 8", "rewind 8", "prefill 64"]
    assert record.samples_tps == pytest.approx((128.0, 256.0, 128.0))
    assert (record.ttft_ms.p50, record.ttft_ms.worst) == pytest.approx((500.0, 500.0))
    assert record.inter_token_ms is None
    assert record.label is Label.MEASURED


def test_generated_tokens_are_timed_one_by_one(clock):
    subject = Recorder(clock, [0.1] * 32 + [0.1, 0.1, 0.1, 0.7] + [0.1])
    record = Bench(subject, SETUP, Procedure(repetitions=1)).measure(BenchTest.decode(20))
    times = record.inter_token_ms
    assert times.n == 20
    assert (times.p50, times.p99, times.worst) == pytest.approx((100.0, 700.0, 700.0))
    assert record.samples_tps == pytest.approx((20 / 2.6,))
    assert record.ttft_ms is None


def test_a_standard_deviation_over_ten_percent_gives_a_note(clock):
    subject = Recorder(clock, [1.0, 1.0, 1.0, 1.5, 1.0])
    record = Bench(subject, SETUP, Procedure(repetitions=3)).measure(BenchTest.prefill(8))
    assert any("standard deviation of" in note for note in record.notes)


def test_an_unstable_subject_gives_a_note(clock):
    subject = Recorder(clock, [1.0, 2.0, 4.0, 8.0, 16.0, 1.0])
    record = Bench(subject, SETUP, Procedure(repetitions=2)).measure(BenchTest.prefill(8))
    assert "not stable after 5 warm-up runs" in record.notes


def test_a_sustained_run_has_separate_speeds(clock):
    subject = Recorder(clock, [1.0] * 2 + [1.0] * 2 + [1.0] * 10 + [2.0])
    record = Bench(subject, SETUP, Procedure(repetitions=2, sustained_s=100)).measure(BenchTest.prefill(8))
    assert record.samples_tps == (8.0, 8.0)
    assert (record.sustained.first_tps, record.sustained.sustained_tps) == (8.0, 4.0)
    assert record.sustained.seconds == pytest.approx(100.0)
    assert len(record.sustained.series) == 10 + 45


def test_the_next_test_waits_until_the_machine_is_cool(clock, monkeypatch):
    temperatures = [40.0, 70.0, 60.0, 41.0, 41.0]

    class Cooling:
        def __init__(self):
            self.notes = []

        def temperature_c(self):
            return temperatures.pop(0) if len(temperatures) > 1 else temperatures[0]

        def __getattr__(self, name):
            return lambda: None

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(procedure.time, "sleep", sleep)
    record = Bench(Recorder(clock), SETUP, Procedure(repetitions=1), Cooling()).measure(BenchTest.prefill(8))
    assert clock.now == pytest.approx(2.0 + 3 * 0.1)  # two seconds of waiting, two of warm-up, one sample
    assert record.before.temperature_c == 41.0


def test_a_busy_machine_gives_a_note(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 1\n", encoding="ascii")
    meter = BusyMeter(stat)
    stat.write_text("cpu  50100 0 100 51000 0 0 0 0 0 0\n", encoding="ascii")
    assert meter.share() == pytest.approx(0.5, abs=0.01)
    assert BusyMeter(tmp_path / "none").share() is None
    notes = procedure._warnings((1.0, 1.0), 0.5, throttled=True)
    assert any("other programs used 50%" in note for note in notes)
    assert any("throttled" in note for note in notes)
    assert procedure._warnings((1.0, 1.0), 0.05, throttled=False) == []


def test_cached_pages_of_a_file_are_counted_and_dropped(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(bytes(3 * 4096 + 100))
    assert cached_bytes(path) == 3 * 4096 + 100
    drop_cached(path)
    if Path("/proc/mounts").read_text(encoding="ascii").find(f" {tmp_path} tmpfs") < 0:
        assert cached_bytes(path) <= 3 * 4096 + 100


def test_this_machine_and_process_are_described():
    machine = this_machine(0.25)
    assert machine.n_cores >= 1
    assert machine.memory_bytes > 1 << 28
    assert machine.busy_share == 0.25
    assert peak_rss_bytes() > 1 << 20


def test_the_digest_of_a_large_file_is_that_of_a_sample(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 4096 * 70)  # 70 MiB
    whole, sample = file_digest(path), file_digest(path, whole_bytes=1)
    assert whole.startswith("sha256:")
    assert sample.startswith("sampled:")
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert file_digest(path, whole_bytes=1) != sample
    with path.open("ab") as file:
        file.write(b"!")
    assert len({file_digest(path, whole_bytes=1), sample, whole}) == 3
