"""docs/devices.md as its command writes it: complete tables, one label per column."""

import importlib.util
from pathlib import Path

import msgspec
import pytest
from bench_records import MODEL, measurement
from report_page import LIMITS

import sprat
from sprat.devices.bench.results import Label
from sprat.devices.plan.efficiency import load_efficiency

COMMAND = Path(__file__).parents[1] / "docs" / "make_devices.py"


@pytest.fixture(scope="module")
def document():
    spec = importlib.util.spec_from_file_location("make_devices", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plans = {model: sprat.plan(model) for model in ("demo", "deepseek-v2-lite", "r1-distill-llama-70b")}
    hostile = msgspec.structs.replace(MODEL, name="a|b\n<script>")
    results = [
        measurement(model=hostile, notes=("other programs used 40% of the cores",)),
        measurement(label=Label.EMULATED, device="rpi5-8gb", emulation=LIMITS),
        measurement(label=Label.PREDICTED, device="rpi5-8gb"),
    ]
    return "\n".join(module.document(plans, results))


def tables(document):
    """Header and rows of every table, cell by cell."""
    for block in document.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            yield [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_has_as_many_cells_as_its_header(document):
    found = list(tables(document))
    assert len(found) == 5  # the overview, measured, emulated, and two models
    for header, rule, *rows in found:
        assert len(rule) == len(header)
        assert rows
        assert {len(row) for row in rows} == {len(header)}


def test_no_column_mixes_labels_and_predictions_of_a_results_file_are_left_out(document):
    for header, _, *_ in tables(document):
        labels = {label for label in Label if any(label in title for title in header)}
        assert len(labels) <= 1
    assert document.count("| native |") == 2


def test_notes_of_records_are_below_the_table(document):
    assert "With reservations:\n\n- a¦b ‹script> Q4_0, tg128: other programs used 40% of the cores" in document


def test_the_errors_of_the_run_after_the_fit_are_stated(document):
    provenance = load_efficiency().provenance
    text = " ".join(document.split())
    assert f"fitted on {provenance.date} to {len(provenance.cases)} kinds of passes" in text
    assert f"the worst {provenance.check.worst_error:.1%}. They are not checked on other machines" in text


def test_a_model_that_fits_no_device_gets_a_sentence(document):
    assert "`r1-distill-llama-70b` fits none of them" in document


def test_names_from_results_are_escaped(document):
    assert "<script>" not in document
