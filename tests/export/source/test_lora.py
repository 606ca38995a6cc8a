"""LoRA adapters merged while exporting, with PEFT's own merge as the judge."""

import json

import numpy as np
import pytest
from safetensors_files import bf16, save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, ConfigError, InputError
from sprat.export.pipeline import export
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.lora import AdapterOption
from sprat.export.verify.verify import verify
from sprat.runtime.files.gguf import GGUFFile

Q = "model.layers.0.self_attn.q_proj"
PREFIX = "base_model.model."
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def write_adapter(folder, tensors=None, **settings):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    save(folder / "adapter_model.safetensors", factors(Q) if tensors is None else tensors)
    return folder


def factors(module, r=4, n_out=64, n_in=64, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"{PREFIX}{module}.lora_A.weight": rng.standard_normal((r, n_in)).astype(np.float32),
        f"{PREFIX}{module}.lora_B.weight": rng.standard_normal((n_out, r)).astype(np.float32),
    }


def base(folder, architecture="qwen2", kind="F32", **changes):
    write_checkpoint(folder, architecture, **changes)
    tensors = weights(CONFIGS[architecture] | changes)
    save(folder / "model.safetensors", {n: bf16(w) if kind == "BF16" else w for n, w in tensors.items()}, kind)
    return folder


def opened(folder, *adapters, scale=1.0):
    return Checkpoint.open(folder, adapters=[AdapterOption(path, scale) for path in adapters])


def test_a_weight_gets_scale_times_b_times_a(tmp_path):
    source, adapter = base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    a, b = factors(Q).values()
    expected = weights(CONFIGS["qwen2"])[f"{Q}.weight"] + 0.5 * 8 / 4 * b @ a
    checkpoint = opened(source, adapter, scale=0.5)
    checkpoint.verify_complete()
    np.testing.assert_allclose(checkpoint.weight("blk.0.attn_q.weight").dequantize(), expected, atol=1e-6)
    assert checkpoint.warnings == ["the LoRA adapter adapter is merged into 1 tensors, scale 0.5"]


def test_rows_that_are_read_in_chunks_are_the_same_as_the_whole(tmp_path):
    checkpoint = opened(base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter"))
    tensor = checkpoint.tensors["blk.0.attn_q.weight"]
    chunks = [chunk.view(np.float32) for chunk in tensor.chunks(3 * 64 * 4)]
    assert len(chunks) > 5
    np.testing.assert_allclose(np.concatenate(chunks), tensor.weight().dequantize(), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "folder", "scale"),
    [("a", "a", 1), ("a:0.5", "a", 0.5), ("a:-1", "a", -1), ("C:a", "C:a", 1), ("a:b:2", "a:b", 2), (":2", ":2", 1)],
)
def test_the_option_is_a_folder_and_a_scale(text, folder, scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option = AdapterOption.parse(text)
    assert (str(option.folder), option.scale) == (folder, scale)


def test_an_existing_folder_wins_over_a_scale(tmp_path):
    (tmp_path / "a:2").mkdir()
    assert AdapterOption.parse(str(tmp_path / "a:2")) == AdapterOption(tmp_path / "a:2")
    with pytest.raises(InputError, match="the scale is nan"):
        AdapterOption.parse(str(tmp_path / "b:nan"))


def test_the_manifest_names_the_adapter_and_verify_wants_it(tmp_path):
    source, adapter = base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    result = export(source, tmp_path / "out", quant="f32", lora=[f"{adapter}:0.01"])
    (recorded,) = result.bundle.manifest.source.adapters
    assert (recorded.name, recorded.scale) == ("adapter", 0.01)
    with pytest.raises(InputError, match=r"with the adapters of its export: --lora adapter:0\.01"):
        verify(result.path, source, max_tokens=64, backends=["reference"])
    found = verify(result.path, source, max_tokens=64, backends=["reference"], lora=[f"{adapter}:0.01"])
    assert found.quality["reference"].mean_kld < 1e-6


def test_another_scale_or_adapter_is_another_export(tmp_path):
    source, adapter = base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    hashes = {opened(source).hash(), opened(source, adapter).hash(), opened(source, adapter, scale=0.5).hash()}
    other = write_adapter(tmp_path / "other" / "adapter", factors(Q, seed=1))
    assert len(hashes | {opened(source, other).hash(), opened(source, adapter, other).hash()}) == 5


def test_a_merged_weight_beyond_the_range_stops_the_export(tmp_path):
    adapter = write_adapter(tmp_path / "adapter", {n: w * 1e5 for n, w in factors(Q).items()})
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight holds"):
        export(base(tmp_path / "base"), tmp_path / "out", quant="f16", lora=[adapter])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"a_new_kind": 3}, "a_new_kind is 3, a field that sprat does not know"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
    ],
)
def test_kinds_of_adapters_that_are_not_merged_are_named(settings, problem, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", **settings)
    with pytest.raises(ConfigError, match=problem) as error:
        opened(base(tmp_path / "base"), adapter)
    assert "merge_and_unload" in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "settings", "problem"),
    [
        (factors("model.layers.9.self_attn.q_proj"), {}, "q_proj.weight' is missing in the base model"),
        (factors(Q, n_in=32), {}, r"is \(64, 64\) in the base model and \(64, 32\) in the adapter"),
        (factors(Q, r=2), {}, "its rank is 2; adapter_config.json says r 4"),
        (factors(Q), {"use_dora": True}, "use_dora and the tensors contradict"),
        ({f"{PREFIX}{Q}.lora_A.weight": np.ones((4, 64), np.float32)}, {}, "expected lora_A and lora_B"),
        ({f"{PREFIX}{Q}.weight": np.ones((64, 64), np.float32)}, {}, "no tensor is one of LoRA"),
        ({f"{PREFIX}{Q}.lora_C.weight": np.ones((4, 64), np.float32)}, {}, "a kind of adapter that sprat does not"),
    ],
)
def test_adapters_that_do_not_fit_are_named(tensors, settings, problem, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", tensors, **settings)
    with pytest.raises(CheckpointError, match=problem):
        opened(base(tmp_path / "base"), adapter)


def test_nan_in_an_adapter_is_found(tmp_path):
    tensors = factors(Q)
    tensors[f"{PREFIX}{Q}.lora_A.weight"][0, 0] = np.nan
    with pytest.raises(CheckpointError, match="lora_A"):
        opened(base(tmp_path / "base"), write_adapter(tmp_path / "adapter", tensors)).verify_complete()


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_no_adapter(missing, tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / missing).unlink()
    with pytest.raises(CheckpointError, match=f"contains no {missing}"):
        opened(base(tmp_path / "base"), adapter)
    with pytest.raises(CheckpointError, match="no such folder"):
        opened(tmp_path / "base", tmp_path / "nowhere")


def test_an_adapter_given_as_the_source_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="a PEFT adapter without its base model"):
        Checkpoint.open(write_adapter(tmp_path / "adapter"))


def test_an_adapter_needs_a_folder(tmp_path):
    source = export(base(tmp_path / "base"), tmp_path / "out").bundle.artifact("gguf")
    with pytest.raises(CheckpointError, match="--lora needs a checkpoint folder"):
        opened(source, write_adapter(tmp_path / "adapter"))


ADAPTERS = {
    "linear": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "all linear": {"target_modules": "all-linear", "r": 3},
    "rank-stabilized": {"target_modules": ["k_proj", "up_proj"], "use_rslora": True, "lora_alpha": 5},
    "patterns": {
        "target_modules": ["q_proj", "o_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "^model.layers.2.*o_proj": 6},
        "alpha_pattern": {"o_proj": 3},
    },
    "dora": {"target_modules": ["q_proj", "gate_proj"], "use_dora": True},
    "biases": {"target_modules": ["q_proj", "k_proj"], "bias": "all"},
    "own biases": {"target_modules": ["q_proj", "v_proj"], "bias": "lora_only"},
    "bias of b": {"target_modules": ["q_proj", "v_proj"], "lora_bias": True},
    "modules to save": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "norms": {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "half": {"target_modules": ["q_proj"], "scale": 0.5},
}


def transformers_model(folder):
    AutoModelForCausalLM = pytest.importorskip("transformers").AutoModelForCausalLM  # noqa: N806

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def trained_adapter(model, settings, folder):
    """A PEFT model whose adapter is random and saved to ``folder``."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    torch.manual_seed(1)
    found = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if parameter.requires_grad:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
                if "bias" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    found.save_pretrained(folder)
    return found.eval()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "deepseek2"])
@pytest.mark.parametrize("case", ADAPTERS)
def test_merged_weights_are_those_of_peft(case, architecture, tmp_path):
    settings = dict(ADAPTERS[case])
    scale = settings.pop("scale", 1.0)
    if (architecture != "qwen2" and settings.get("bias") == "lora_only") or (
        "lora_bias" in settings and architecture != "qwen2"
    ):
        pytest.skip("the architecture has no biases")
    if architecture == "deepseek2":
        settings["target_modules"] = (
            ["kv_b_proj", "o_proj"] if "embed" not in case and case != "head" else settings["target_modules"]
        )
        settings.pop("rank_pattern", None)
    source = base(tmp_path / "base", architecture, tie_word_embeddings=False)
    model = trained_adapter(transformers_model(source), settings, tmp_path / "adapter")
    if scale != 1:
        for module in model.modules():
            if hasattr(module, "scaling") and isinstance(module.scaling, dict):
                module.scaling["default"] *= scale
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    theirs = Checkpoint.open(tmp_path / "merged")
    ours = opened(source, tmp_path / "adapter", scale=scale)
    ours.verify_complete()
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name in ours.names():
        expected = theirs.weight(name).dequantize()
        np.testing.assert_allclose(ours.weight(name).dequantize(), expected, atol=2e-5, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_a_tied_head_is_kept_apart_as_the_adapter_was_trained(target, tmp_path):
    """PEFT's merge would change both, and with them the logits of the model that was trained."""
    torch = pytest.importorskip("torch")
    source = base(tmp_path / "base", "qwen2", tie_word_embeddings=True)
    model = trained_adapter(transformers_model(source), {"target_modules": [target]}, tmp_path / "adapter")
    tokens = list(range(20))
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0, -1].numpy()
    bundle = export(source, tmp_path / "out", quant="f32", lora=[tmp_path / "adapter"])
    assert any("both are kept apart" in warning for warning in bundle.bundle.manifest.warnings)
    assert expected.shape == logits(bundle.bundle, tokens).shape
    np.testing.assert_allclose(logits(bundle.bundle, tokens), expected, atol=1e-3, rtol=1e-3)


def logits(bundle, tokens):
    from sprat.runtime.arch.gguf_keys import spec_from_metadata
    from sprat.runtime.backends.reference import ReferenceBackend

    with GGUFFile.open(bundle.artifact("gguf")) as file:
        backend = ReferenceBackend(spec_from_metadata(file.metadata, file), file, dense_bytes=1 << 26)
        stream = backend.new_stream(64)
        return np.asarray(stream.forward(tokens)).reshape(-1)


@pytest.mark.slow
def test_two_adapters_are_merged_one_after_the_other(tmp_path):
    peft = pytest.importorskip("peft")
    source = base(tmp_path / "base")
    model = transformers_model(source)
    for number in (1, 2):
        trained_adapter(
            transformers_model(source), {"target_modules": ["q_proj"], "r": number + 1}, tmp_path / str(number)
        )
        model = peft.PeftModel.from_pretrained(model, tmp_path / str(number)).merge_and_unload()
    model.save_pretrained(tmp_path / "merged")
    theirs = Checkpoint.open(tmp_path / "merged").weight("blk.0.attn_q.weight").dequantize()
    ours = opened(source, tmp_path / "1", tmp_path / "2").weight("blk.0.attn_q.weight").dequantize()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
