"""Two processes that export to one OUT at the same moment: one wins, the other is refused or finds its own result."""

import json
import os
import random
import time

import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import ExportError
from sprat.export.pipeline import export
from sprat.runtime.files.bundle import Bundle

RACES = 60 if os.environ.get("SPRAT_ATTACK") == "whole" else 2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "student", "qwen2")


def race(source, out, exports):
    """Start all exports at once, each in a process: what each raised, or None."""
    pipes, start = [], time.monotonic() + 0.05
    for options in exports:
        reading, writing = os.pipe()
        if os.fork() == 0:
            while time.monotonic() < start:
                pass
            try:
                export(source, out, **options)
                result = None
            except ExportError as error:
                result = str(error)
            except BaseException as error:  # noqa: BLE001 - the parent fails the test
                result = f"unexpected {error!r}"
            os.write(writing, json.dumps(result).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    results = []
    for reading in pipes:
        with os.fdopen(reading) as pipe:
            results.append(json.loads(pipe.read()))
    for _ in exports:
        os.wait()
    return results


EXPECTED = ("another process is writing this output", "another bundle exists there")


@pytest.mark.parametrize("recipes", [("int4", "int4"), ("int4", "int8"), ("int8", "f16", "int4")])
@pytest.mark.parametrize("force", [False, True])
def test_one_export_wins_and_the_others_say_why_they_did_not(recipes, force, source, tmp_path):
    rng = random.Random(58)
    for number in range(RACES):
        out = tmp_path / f"out{number}"
        if force and rng.random() < 0.5:
            export(source, out, quant="bf16")
        results = race(source, out, [{"quant": quant, "force": force} for quant in recipes])
        assert any(result is None for result in results), results
        assert all(result is None or any(text in result for text in EXPECTED) for result in results), results
        if not force and len(set(recipes)) == len(recipes):
            assert results.count(None) == 1, results
        Bundle.open(out).check()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(out.name)] == [out.name]
