"""The onnx backend shares prefixes, saves sessions and takes drafts: its caches are sprat's."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.generate.speculate.pace import Pace

PATTERN = np.random.default_rng(2).integers(2, 60, 12).tolist()


@pytest.fixture(scope="module", params=["llama", "deepseek2"])
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    source = write_checkpoint(folder / "source", request.param)
    return export(source, folder / "out", quant="f32", formats=("onnx",)).path


def answer(engine, prompt):
    generation = engine.generate(prompt, max_tokens=10, temperature=0)
    return [piece.token_id for piece in generation], generation.summary.timings


def test_prefixes_sessions_and_drafts_give_the_same_answers(bundle, tmp_path):
    prompt = [*PATTERN * 6, 7]
    with Engine.load(bundle, backend="onnx", prefix_cache=False, speculate="off") as plain:
        expected, _ = answer(plain, prompt)
    with Engine.load(bundle, backend="onnx", prefix_cache=tmp_path / "cache") as engine:
        object.__setattr__(engine.frontend.speculation, "pace", Pace(4, always=True))
        assert answer(engine, [*PATTERN * 6, 9])[1].cache_n == 0
        found, timings = answer(engine, prompt)
        assert (found, timings.cache_n) == (expected, 72)
        assert answer(engine, prompt)[1].draft_n_accepted > 0  # of the answer before
        with engine.session() as session:
            answer(session, prompt)
            session.save(tmp_path / "session")
    with Engine.load(bundle, backend="onnx", prefix_cache=tmp_path / "cache") as engine:
        assert answer(engine, prompt)[1].cache_n >= 72
        with engine.restore(tmp_path / "session") as session:
            assert answer(session, prompt)[0] == expected
