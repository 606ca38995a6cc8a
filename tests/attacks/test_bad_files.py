"""Files whose inner blocks are NaN, infinite or huge: loading looks at the first and last block of a tensor only."""

from __future__ import annotations

import numpy as np
import pytest
from bad_weights import KINDS, bad_block
from command_line import run
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendError, ConfigError
from sprat.export.pipeline import export
from sprat.quant.formats.read_only import any_format
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile

every_backend = pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "reference"])


@pytest.fixture(scope="module", params=["deepseek2", "llama"])
def artifact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return export(write_checkpoint(folder / "tiny", request.param), folder / "out", quant="int8").bundle.artifact()


def inner_tensors(artifact):
    with GGUFFile.open(artifact) as file:
        infos = file.tensors.values()
        return [info for info in infos if info.nbytes > 2 * any_format(info.format_type).block_bytes]


def damaged(artifact, info, kind, path):
    """A copy with all blocks of one tensor bad, except the first and the last."""
    content = np.fromfile(artifact, np.uint8)
    stored = any_format(info.format_type)
    inner = slice(info.offset + stored.block_bytes, info.end - stored.block_bytes)
    content[inner] = bad_block(stored, content[inner], kind)
    content.tofile(path)
    return path


def answer(path, backend):
    """The log probabilities of an answer, or the error instead of it."""
    try:
        with Engine.load(path, backend=backend) as engine:
            return [piece.logprob for piece in engine.generate("The quick brown fox", max_tokens=2, temperature=0)]
    except (BackendError, ConfigError) as error:
        return error


@pytest.mark.slow
@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_comes_from_bad_blocks(artifact, tmp_path, backend, kind):
    for info in inner_tensors(artifact):
        found = answer(damaged(artifact, info, kind, tmp_path / "bad.gguf"), backend)
        if isinstance(found, list):
            assert kind == "largest", info.name
            assert np.isfinite(found).all(), info.name
        else:
            assert "rope_freqs" in str(found) or "weights are damaged" in str(found), info.name


@every_backend
def test_the_command_fails_and_names_the_remedy(artifact, tmp_path, backend, capsys):
    with GGUFFile.open(artifact) as file:
        path = damaged(artifact, file.tensors["token_embd.weight"], "nan", tmp_path / "bad.gguf")
    code, _, error = run(capsys, "run", path, "The quick brown fox", "--backend", backend)
    assert code != 0
    assert "sprat inspect --check" in " ".join(error.split())
