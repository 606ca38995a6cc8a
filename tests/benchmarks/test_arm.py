"""benchmarks/arm.py: the gate that compares instruction counts, and the reading of a disassembly."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def arm_counts(monkeypatch):
    """Imports a module of benchmarks/arm_counts by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"arm_counts.{name}")
    for name in [name for name in sys.modules if name.startswith("arm_counts")]:
        del sys.modules[name]


@pytest.fixture
def table(arm_counts, tmp_path):
    gate = arm_counts("gate")
    gate.save({"cortex-a72": {"Q4_0, 1 token": 0.5}}, "12", tmp_path / "table.json")
    return json.loads((tmp_path / "table.json").read_text())


@pytest.mark.parametrize(
    ("now", "version", "fails"), [(0.505, "12", 0), (0.52, "12", 1), (0.55, "14", 0), (0.65, "14", 1)]
)
def test_more_instructions_fail_and_another_compiler_gets_more_room(arm_counts, table, now, version, fails):
    complaints = arm_counts("gate").complaints({"cortex-a72": {"Q4_0, 1 token": now}}, version, table)
    assert len(complaints) == fails
    assert all("0.5000" in line and f"{now:.4f}" in line and "--save" in line for line in complaints)


def test_work_that_was_not_counted_is_named(arm_counts, table):
    (complaint,) = arm_counts("gate").complaints({"cortex-a72": {}}, "12", table)
    assert complaint.startswith("cortex-a72, Q4_0, 1 token: was not counted")


def test_the_committed_table_has_every_gated_processor(arm_counts):
    table = json.loads(arm_counts("gate").TABLE.read_text())
    assert set(table["instructions_per_product"]) == {"cortex-a72", "cortex-a76", "armv9-a+i8mm"}
    assert all(len(row) >= 10 and min(row.values()) > 0 for row in table["instructions_per_product"].values())


def test_instructions_are_runs_times_lengths(arm_counts):
    emulator = arm_counts("emulator")
    blocks = Counter({emulator.Block(0x1000, 7): 3, emulator.Block(0x2000, 5): 2})
    assert emulator.instructions(blocks) == 31


def test_every_work_counts_its_products_and_bytes(arm_counts):
    by_name = {work.name: work for work in arm_counts("works").works(("Q4_0",))}
    one, many = by_name["Q4_0, 1 token"], by_name["Q4_0, 48 tokens"]
    assert many.products == 48 * one.products
    assert one.n_bytes == many.n_bytes == one.products * 18 // 32
    assert by_name["Q4_0, experts of 48 tokens"].products == 96 * 3 * 256 * 2048


def test_a_published_decode_is_the_slower_of_reading_and_computing(arm_counts):
    published = arm_counts("published")
    cost = published.TokenCost(1e9, 0.0, 570e6)
    row = published.Published("a model", "q4_0", "Q4_0", "plain", 1, 1.0, "nobody", cost)
    assert published.predicted(row, lambda *_: 1e-9) == pytest.approx(11.4e9 / 570e6)
    assert published.predicted(row, lambda *_: 1.0) == pytest.approx(9.6)


def test_steps_of_a_repeated_instruction_are_left_out(arm_counts):
    cycles, block = arm_counts("cycles"), arm_counts("emulator").Block
    code = cycles._Code([0, 2], ["rep stosq", "ret"])
    assert cycles._without_repeated(Counter({block(0, 1): 900, block(2, 1): 1}), code) == Counter({block(2, 1): 1})


def test_the_error_of_the_method_is_the_median_and_the_worst(arm_counts):
    rows = {name: {"error": error} for name, error in (("a", 0.1), ("b", 0.3), ("c", 0.2))}
    assert arm_counts("clock").summary(rows) == {"median": 0.2, "worst": 0.3}


def test_compulsory_lines_are_weights_activations_and_results(arm_counts):
    product = arm_counts("caches").Product("Q4_0", 4096, 2048, 2)
    assert product.compulsory_lines == (4096 * 64 * 18 + 2 * 2048 * 5.5 + 4 * 2 * 4096) / 64
