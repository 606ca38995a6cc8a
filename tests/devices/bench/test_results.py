"""Results files: records round-trip, and an invalid line is an error that names it."""

import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from bench_records import LIMITS, measurement

from sprat.devices.bench import results
from sprat.devices.bench.results import (
    BenchTest,
    Label,
    Measurement,
    check_place,
    gather_notes,
    read_results,
    write_results,
)
from sprat.errors import ResultsError

DOCUMENT = Path(__file__).parents[3] / "docs" / "bench-results.md"
EXPORTED = [getattr(results, name) for name in results.__all__]
RECORDS = [found for found in EXPORTED if isinstance(found, type) and issubclass(found, msgspec.Struct)]


def test_records_round_trip(tmp_path):
    records = [
        measurement(),
        measurement(label=Label.EMULATED, device="rpi5-8gb", emulation=LIMITS),
        measurement(label=Label.PREDICTED, device="rpi5-8gb", machine=None, error_share=0.15),
    ]
    write_results(tmp_path / "results.jsonl", records)
    assert read_results(tmp_path / "results.jsonl") == records
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_line_is_plain_json(tmp_path):
    write_results(tmp_path / "results.jsonl", [measurement(work=BenchTest.decode(128, depth=4096))])
    record = json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8"))
    assert record["schema"] == 1
    assert record["label"] == "measured"
    assert record["work"] == {"test": "tg128 @ d4096", "n_prompt": 0, "n_gen": 128, "depth": 4096}
    assert record["samples_tps"] == [10.0, 12.0, 11.0]
    assert record["joules_per_token"] is None


def test_tests_have_the_names_of_llama_bench():
    assert BenchTest.prefill(512).test == "pp512"
    assert BenchTest.decode(128).test == "tg128"
    assert BenchTest.prefill(512, depth=4096).test == "pp512 @ d4096"


def test_a_label_names_its_device():
    assert measurement().label_text == "measured"
    assert measurement(device="rpi5-8gb").label_text == "measured on rpi5-8gb"
    assert measurement(label=Label.EMULATED, device="x", emulation=LIMITS).label_text == "emulated on x"
    assert measurement(label=Label.PREDICTED, device="x").label_text == "predicted for x"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": Label.PREDICTED}, "expected a device"),
        ({"label": Label.EMULATED, "device": "x"}, "emulation limits belong"),
        ({"emulation": LIMITS}, "emulation limits belong"),
    ],
)
def test_a_label_without_its_device_or_limits_is_an_error(changed, message):
    with pytest.raises(ValueError, match=message):
        measurement(**changed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"schema": 0}, "version 0, expected 1"),
        ({"schema": 2}, "version 2, expected 1"),
        ({"label": "guessed"}, "guessed"),
        ({"samples_tps": []}, "samples_tps"),
        ({"samples_tps": [0.0]}, "samples_tps"),
        ({"surprise": 1}, "surprise"),
        ({"label": "predicted"}, "expected a device"),
    ],
)
def test_an_invalid_record_is_an_error_with_its_line(line, message, tmp_path):
    path = tmp_path / "results.jsonl"
    good = msgspec.to_builtins(measurement())
    path.write_text(f"{json.dumps(good)}\n{json.dumps(good | line)}\n", encoding="utf-8")
    with pytest.raises(ResultsError, match=rf"line 2.*{re.escape(message)}"):
        read_results(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no results"), (b"\n\n", "no results"), (b"{", "line 1"), (b"[]", "line 1"), (b"\xff{}", "line 1")],
)
def test_another_kind_of_file_is_an_error(content, message, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=message):
        read_results(path)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be written"):
        write_results(tmp_path / "file" / "out.jsonl", [])


def test_a_missing_file_and_a_missing_folder_are_errors(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path / "none.jsonl")
    with pytest.raises(ResultsError, match="cannot be written"):
        write_results(tmp_path / "none" / "results.jsonl", [measurement()])


@pytest.mark.parametrize("record", RECORDS)
def test_the_documentation_has_every_key(record):
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [key for key in record.__struct_fields__ if f"`{key}`" not in text] == []


def test_the_documentation_has_the_version():
    assert f"| `schema` | version of the record, {results.SCHEMA} |" in DOCUMENT.read_text(encoding="utf-8")
    assert Measurement.__struct_fields__[0] == "schema"


def test_notes_that_differ_only_in_a_percentage_are_merged_into_its_range():
    busy = "other programs used {}% of the CPU during the test: close them and run again"
    records = [
        measurement(work=BenchTest.prefill(64), notes=("the sensor x disappeared", busy.format(88))),
        measurement(work=BenchTest.prefill(512), notes=(busy.format(9),)),
        measurement(work=BenchTest.decode(16), notes=(busy.format(90), "the sensor x disappeared")),
        measurement(),
    ]
    assert gather_notes(records) == {
        "the sensor x disappeared": ["pp64", "tg16"],
        busy.format("9 to 90"): ["pp64", "pp512", "tg16"],
    }


def test_a_single_note_is_not_changed():
    assert gather_notes([measurement(notes=("17% of 40% is little",))]) == {"17% of 40% is little": ["tg128"]}


def test_later_results_are_appended_and_other_files_are_never_replaced(tmp_path):
    path = tmp_path / "results.jsonl"
    path.touch()
    for records in ([measurement()], [measurement(work=BenchTest.decode(128))]):
        check_place(path)
        write_results(path, records)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # an editor dropped the newline
    write_results(path, [measurement()])
    assert len(read_results(path)) == 3
    path.write_text("# notes of mine\n")
    for call in (lambda: check_place(path), lambda: write_results(path, [measurement()])):
        with pytest.raises(ResultsError, match=r"results\.jsonl: exists, and results cannot be appended to it"):
            call()
    assert path.read_text() == "# notes of mine\n"


def test_results_are_not_written_to_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultsError, match="not a regular file"):
        check_place(tmp_path / "pipe")
