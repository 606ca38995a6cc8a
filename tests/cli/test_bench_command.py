"""``sprat bench`` as a user types it, on a tiny model: tables, JSON, files, labels, comparisons, emulation."""

import csv
import io
import json
import os
import re
from pathlib import Path

import command_line
import msgspec
import pytest
from bench_records import measurement
from tiny_checkpoint import write_checkpoint

from sprat.app.bench.speculation import SpeculationSpeed
from sprat.app.bench.trace import TraceReport
from sprat.cli import main
from sprat.cli.output.bench_tables import print_speculation, print_trace
from sprat.devices.bench.results import BenchTest, Label, read_results, write_results
from sprat.devices.emulate.emulate import plan_emulation
from sprat.devices.profile import load_profile
from sprat.errors import EmulationError

QUICK = ("-p", "8", "-n", "4", "-r", "2", "-t", "1")


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``sprat bench ARGUMENTS``."""
    return command_line.run(capsys, "bench", *arguments)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    main(["export", str(write_checkpoint(folder / "tiny-moe", "deepseek2")), str(folder / "out"), "--quant", "int8"])
    return folder / "out"


def test_the_first_table_is_llama_benchs(bundle, capsys):
    code, out, _ = run(capsys, bundle, *QUICK, "-d", "0,16", "--backend", "reference")
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert code == 0
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == [
        *("model", "size", "params", "backend", "threads", "test"),
        "t/s, measured",
    ]
    tests = [line.split("|")[6].strip() for line in table[2:6]]
    assert tests == ["pp8", "tg4", "pp8 @ d16", "tg4 @ d16"]
    assert all(re.search(r"\d+\.\d\d ± \d+\.\d\d", line) for line in table[2:6])
    assert "TTFT, ms (p50 / p99)" in out
    assert out.splitlines()[-1].startswith("next:")


def test_the_packaged_student_is_measured_in_int4(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, _ = run(capsys, "demo", *QUICK, "--json", "--backend", "reference")
    assert code == 0
    assert json.loads(out.splitlines()[0])["model"]["quant"] == "IQ4_XS"  # the format of most of its weights


def test_json_prints_one_record_per_test_and_a_file_holds_the_same(bundle, tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    code, out, err = run(capsys, bundle, *QUICK, "--json", "-o", path)
    records = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [record["work"]["test"] for record in records] == ["pp8", "tg4"]
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == records
    prefill, decode = read_results(path)
    assert prefill.label is Label.MEASURED
    assert prefill.ttft_ms.n == 2
    assert decode.inter_token_ms.n == 8
    assert decode.model.quant == "Q8_0"
    assert decode.model.digest.startswith("sha256:")
    assert decode.peak_rss_bytes > 10 << 20
    assert set(decode.memory_map) == {"resident weights", "experts", "cache", "buffers"}
    assert set(decode.versions) >= {"sprat", "python", "numpy"}


def test_csv_has_a_line_per_test(capsys, monkeypatch):
    records = [measurement(work=BenchTest.prefill(8)), measurement()]
    monkeypatch.setattr("sprat.cli.boards.bench.bench", lambda *_, **__: records)
    code, out, _ = run(capsys, "bundle", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["test"], row["backend"], row["label"], row["mean_tps"]) for row in rows] == [
        ("pp8", "native", "measured", "11.0"),
        ("tg128", "native", "measured", "11.0"),
    ]


def test_a_trace_shows_kernels_and_layers(bundle, capsys):
    code, out, _ = run(capsys, bundle, *QUICK, "-p", "0", "--trace", "--json")
    measured, trace = (json.loads(line) for line in out.splitlines())
    rows = trace["rows"]
    assert code == 0
    assert measured["label"] == trace["label"] == "measured"
    assert {row["layer"] for row in rows} == {-1, 0, 1, 2, 3}
    assert {"embed", "linear", "experts", "route", "rms_norm", "rope"} <= {row["kernel"] for row in rows}
    assert sum(row["ms"] for row in rows) <= trace["wall_ms"]
    print_trace(msgspec.convert(trace, TraceReport))
    table = capsys.readouterr().out
    assert table.startswith("tg4, measured: ")
    assert all(f"| {kernel} " in table for kernel in ("experts", "route", "layer"))


def test_a_preset_needs_no_weights_and_is_written_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ("--shape", "smollm2-135m", "--layers", "1", "--quant", "q8_0", *QUICK)
    code, out, err = run(capsys, *arguments, "--json")
    (file,) = (tmp_path / "sprat" / "shapes").iterdir()
    written = file.stat().st_mtime_ns
    record = json.loads(out.splitlines()[0])
    assert (code, err) == (0, "")
    assert record["model"]["random_weights"]
    assert record["settings"]["shape"] == "smollm2-135m"
    code, out, err = run(capsys, *arguments, "-p", "0")
    assert code == 0
    assert file.stat().st_mtime_ns == written
    assert f" of random weights are kept in {file.parent}; remove them with: sprat bench --clear-cache" in out
    size = file.stat().st_size
    code, out, _ = run(capsys, "--clear-cache", "--json")
    assert (code, json.loads(out)) == (0, {"folder": str(file.parent), "freed_bytes": size})
    assert not file.exists()
    assert run(capsys, "--clear-cache")[1] == f"0 B of random weights removed from {file.parent}\n"


def test_results_are_compared_side_by_side(tmp_path, capsys):
    write_results(tmp_path / "a.jsonl", [measurement(samples_tps=(10.0, 10.1, 9.9))])
    write_results(tmp_path / "b.jsonl", [measurement(samples_tps=(12.0, 12.1, 11.9), backend="llamacpp")])
    code, out, _ = run(capsys, "--compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert code == 0
    assert "1.200" in out
    assert "faster" in out
    assert "differs: backend: native -> llamacpp" in out
    code, out, _ = run(capsys, "--compare", tmp_path / "b.jsonl", tmp_path / "a.jsonl", "--json")
    record = json.loads(out)
    assert record["verdict"] == "slower"
    assert record["ratio"]["low"] < 1 / 1.2 < record["ratio"]["high"] < 1


def test_an_emulated_device_has_its_own_column(bundle, tmp_path, capsys):
    profile = load_profile("rpi5-8gb")
    try:
        with plan_emulation(profile, profile.storage[0], tmp_path).limited():
            pass
    except EmulationError as error:
        pytest.skip(str(error))
    path = tmp_path / "results.jsonl"
    code, out, _ = run(capsys, bundle, *QUICK, "--device", "rpi5-8gb", "--emulate", "-o", path)
    records = read_results(path)
    assert code == 0
    assert {record.label_text for record in records} <= {"emulated on rpi5-8gb", "predicted for rpi5-8gb"}
    assert records[0].emulation.memory_bytes <= profile.usable_bytes
    assert "t/s, emulated on rpi5-8gb" in out
    assert "not emulated: memory bandwidth" in out
    assert not list(Path("/sys/fs/cgroup").glob(f"**/sprat-{os.getpid()}"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give either a MODEL"),
        (("model.gguf", "--shape", "deepseek-v2-lite"), "give either a MODEL"),
        (("model.gguf", "-p", "0", "-n", "0"), "no test to run"),
        (("model.gguf", "-p", "many"), "separated by commas"),
        (("model.gguf", "--sustained", "nan"), "'nan' is not a valid integer"),
        (("model.gguf", "-t", "100000"), "1<=x<=1024"),
        (("model.gguf", "--emulate"), "no device was named"),
        (("model.gguf", "--device", "rpi5-8g", "--emulate"), "did you mean 'rpi5-8gb'"),
        (("model.gguf", "--device", "rpi-zero-2w"), "this machine is not a rpi-zero-2w"),
        (("no-such-file.gguf",), "no-such-file.gguf"),
        ((".",), ".: not a bundle; export it first:  sprat export . OUT"),
        (("model.gguf", "-o", "none/results.jsonl"), "none/results.jsonl: cannot be written"),
        (("--shape", "deepseek-v2-light"), "did you mean 'deepseek-v2-lite'"),
        (("--shape", "smollm2-135m", "--layers", "31"), "expected 1 to 30"),
        (("--shape", "smollm2-135m", "--quant", "q4_9"), "unknown"),
        (("--compare", "a.jsonl", "b.jsonl"), "a.jsonl: cannot be read"),
    ],
)
def test_a_user_error_prints_one_line_and_exits_with_2(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert expected in err


def test_an_error_of_the_child_process_is_the_commands_error(bundle, capsys):
    code, out, err = run(capsys, bundle, *QUICK, "--backend", "nativ")
    assert (code, out) == (2, "")
    assert "did you mean 'native'" in err


def test_a_preset_larger_than_the_disk_is_refused_before_writing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sprat.export.write.writer.free_bytes", lambda _folder: 1 << 30)
    code, _, err = run(capsys, "--shape", "deepseek-r1")
    assert code == 2
    assert "are free" in err
    assert [path.name for path in (tmp_path / "sprat" / "shapes").iterdir()] == []


@pytest.mark.slow
def test_speculation_is_measured_in_pairs(bundle, capsys):
    code, out, _ = run(capsys, bundle, "--speculate", "-r", "1", "--backend", "reference", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [each["answers"] for each in found] == ["commands", "json", "quotes", "prose"]
    for each in found:
        assert each["ratio"] > 0
        assert each["draft_n"] >= each["draft_n_accepted"]
        assert each["tokens"] > 0


def test_speculation_as_a_table(capsys):
    print_speculation(
        [
            SpeculationSpeed(
                answers="json",
                tokens=1234,
                plain_per_second=10,
                per_second=15,
                ratio=1.5,
                draft_n=90,
                draft_n_accepted=80,
            )
        ]
    )
    assert "1,234" in (table := capsys.readouterr().out)
    assert "1.50" in table


def test_speculation_needs_a_model(capsys):
    code, _, err = run(capsys, "--speculate")
    assert (code, "--speculate needs a MODEL" in err) == (2, True)
