"""End tokens, sampling defaults and tokenizer files from a checkpoint to every artifact, and to the engine."""

import json

import gguf
import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.errors import InputError
from sprat.export.inspection import inspect
from sprat.export.pipeline import export
from sprat.export.verify.source_model import load_source
from sprat.runtime.engine import Engine

ENDS = [1, 2, 3, 300]
CONFIG = {"eos_token_id": ENDS, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1}
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repeat_penalty": 1.1}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint whose author recommends sampling parameters, and which ends on four tokens."""
    folder = write_checkpoint(tmp_path_factory.mktemp("source") / "tiny", "qwen2")
    (folder / "generation_config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    return export(source, tmp_path_factory.mktemp("out") / "out", quant="int8", formats=("gguf", "onnx")).path


def sampling_of(engine):
    return {name: getattr(engine.sampling, name) for name in SAMPLING}


@pytest.mark.parametrize("kind", ["bundle", "gguf", "onnx", "checkpoint"])
def test_the_engine_ends_and_samples_as_the_checkpoint_says(source, bundle, kind):
    path = {"bundle": bundle, "gguf": next(bundle.glob("*.gguf")), "onnx": bundle / "model.onnx"}.get(kind)
    with load_source(source) if path is None else Engine.load(path) as engine:
        assert sorted(engine.tokenizer.eog_ids) == ENDS
        assert sampling_of(engine) == SAMPLING
        assert engine.sampling.min_p == 0.05


def test_a_call_overrides_the_model(bundle):
    with Engine.load(bundle) as engine:
        answers = {engine.generate("The", max_tokens=8, seed=seed, stop=[]).text() for seed in range(6)}
        greedy = {engine.generate("The", max_tokens=8, seed=seed, temperature=0).text() for seed in range(6)}
    assert len(answers) > 1
    assert len(greedy) == 1


def test_the_gguf_has_llama_cpps_keys(bundle):
    reader = gguf.GGUFReader(next(bundle.glob("*.gguf")))
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert keys["general.sampling.temp"] == pytest.approx(0.6)
    assert keys["general.sampling.top_p"] == pytest.approx(0.9)
    assert keys["general.sampling.top_k"] == 20
    assert keys["general.sampling.penalty_repeat"] == pytest.approx(1.1)
    assert keys["tokenizer.ggml.eos_token_id"] == 1
    assert keys["tokenizer.ggml.eot_token_id"] in ENDS
    assert keys["tokenizer.sprat.eog_token_ids"] == ENDS


def test_manifest_and_inspect_show_what_applies(source, bundle):
    assert json.loads((bundle / "manifest.json").read_text())["sampling"] == SAMPLING
    for path in (source, bundle, bundle / "model.onnx"):
        notes = "\n".join(inspect(path).notes)
        assert "<｜end▁of▁sentence｜> (1), <｜User｜> (2), <｜Assistant｜> (3)" in notes
        assert "temperature 0.6" in notes.replace("repeat_penalty 1.1, ", "")
        assert "min_p 0.05 (sprat's defaults)" in notes


def test_the_manifest_of_a_model_without_recommendations_has_no_sampling(tmp_path):
    out = export(write_checkpoint(tmp_path / "tiny", "qwen2"), tmp_path / "out", quant="int8").path
    assert "sampling" not in json.loads((out / "manifest.json").read_text())


def test_the_configs_for_others_have_all_of_it(bundle):
    genai = json.loads((bundle / "genai_config.json").read_text())
    assert genai["model"]["eos_token_id"] == ENDS
    expected = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "do_sample": True}
    assert {name: genai["search"][name] for name in expected} == pytest.approx(expected)
    assert json.loads((bundle / "generation_config.json").read_text()) == {**CONFIG, "do_sample": True}


def test_an_onnx_model_of_a_gguf_has_the_configs(bundle, tmp_path):
    out = export(next(bundle.glob("*.gguf")), tmp_path / "out", quant="f16", formats=("onnx",)).path
    config = json.loads((out / "generation_config.json").read_text())
    assert (config["eos_token_id"], config["temperature"]) == (ENDS, pytest.approx(0.6))
    with Engine.load(out) as engine:
        assert sorted(engine.tokenizer.eog_ids) == ENDS
        assert sampling_of(engine) == pytest.approx(SAMPLING)


def test_a_value_out_of_range_stops_the_export(source, tmp_path):
    folder = write_checkpoint(tmp_path / "tiny", "qwen2")
    (folder / "generation_config.json").write_text(json.dumps({"top_p": 7}))
    with pytest.raises(InputError, match=r"generation_config\.json: .*top_p is 7"):
        export(folder, tmp_path / "out", quant="int8")


def test_ids_of_a_gguf_that_name_no_token_are_left_out(source, bundle, tmp_path):
    """Files in the wild write 2**32 - 1 for "none"; llama.cpp ignores it."""
    path = tmp_path / "other.gguf"
    reader = gguf.GGUFReader(next(bundle.glob("*.gguf")))
    writer = gguf.GGUFWriter(path, "qwen2")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(key, list(field.contents()))
            else:
                writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_uint32("tokenizer.ggml.padding_token_id", 2**32 - 1)
    writer.add_int32("tokenizer.ggml.seperator_token_id", -1)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with Engine.load(path) as engine:
        assert engine.tokenizer.vocabulary.pad_id is None
        assert engine.generate("The", max_tokens=2).text() is not None
    out = export(path, tmp_path / "out", quant="int8").path
    keys = gguf.GGUFReader(next(out.glob("*.gguf"))).fields
    assert "tokenizer.ggml.padding_token_id" not in keys
    assert "tokenizer.ggml.seperator_token_id" not in keys


def test_the_tokenizer_json_of_an_onnx_bundle_has_all_tokens_and_no_bom(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_checkpoint(tmp_path / "tiny", "qwen2")
    path = folder / "tokenizer.json"
    n_tokens = len(json.loads(path.read_text())["model"]["vocab"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (folder / "added_tokens.json").write_text(json.dumps({"<tool_x>": n_tokens}))
    out = export(folder, tmp_path / "out", quant="int8", formats=("onnx",)).path
    library = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    assert library.token_to_id("<tool_x>") == n_tokens
    with Engine.load(out) as engine:
        assert n_tokens in engine.tokenizer.encode("say <tool_x> now")


def test_what_only_transformers_uses_of_a_generation_config_is_a_warning(tmp_path):
    folder = write_checkpoint(tmp_path / "source", "qwen2")
    (folder / "generation_config.json").write_text(json.dumps({"no_repeat_ngram_size": 3, "temperature": 0.6}))
    warnings = export(folder, tmp_path / "out", quant="int8").bundle.manifest.warnings
    assert warnings == ("not used of generation_config.json: no_repeat_ngram_size",)
