"""A message about a key of a GGUF names the file: commands take several."""

import pytest
from gguf import GGUFValueType
from split_gguf import rewrite
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import ConfigError, TokenizerError
from sprat.export.pipeline import export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return export(write_checkpoint(folder / "source", "qwen2"), folder / "out", quant="q8_0").bundle.artifact()


@pytest.mark.parametrize(
    "use",
    [
        sprat.Engine.load,
        sprat.inspect,
        lambda path: sprat.plan(path, devices=["rpi5-8gb"]),
        lambda path: sprat.export(path, path.with_name("again")),
    ],
    ids=["load", "inspect", "plan", "export"],
)
def test_a_key_that_is_not_supported(use, model, tmp_path):
    changed = {"qwen2.attention.sliding_window": ([GGUFValueType.UINT32], 64)}
    path = rewrite(model, tmp_path / "window.gguf", changed)
    with pytest.raises(ConfigError) as caught:
        use(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: metadata: qwen2.attention.sliding_window is 64; sprat supports only 0")
    assert message.endswith("use a GGUF of a supported architecture, or convert the model again")


def test_a_tokenizer_that_is_not_supported(model, tmp_path):
    path = rewrite(model, tmp_path / "new.gguf", {"tokenizer.ggml.pre": ([GGUFValueType.STRING], "of-tomorrow")})
    with pytest.raises(
        TokenizerError, match=r"new\.gguf: unknown pre-tokenizer \(tokenizer\.ggml\.pre\) 'of-tomorrow'"
    ):
        sprat.Engine.load(path)
