"""``sprat export --lora`` and ``--ignore-config-field`` on the command line."""

import json
import shlex

import numpy as np
import pytest
from command_line import run
from safetensors_files import save
from tiny_checkpoint import write_checkpoint

from sprat.progress import Progress


def adapter(folder):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    prefix = "base_model.model.model.layers.0.mlp.up_proj.lora"
    a, b = np.full((2, 64), 0.01, np.float32), np.full((96, 2), 0.01, np.float32)
    save(folder / "adapter_model.safetensors", {f"{prefix}_A.weight": a, f"{prefix}_B.weight": b})
    return folder


def test_the_message_about_an_unknown_field_is_the_command_that_works(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model", "qwen2", a_new_field=3)
    code, _, error = run(capsys, "export", source, tmp_path / "out")
    assert code == 2
    option = error.split("computation, add ")[1].split("\n")[0]
    code, out, error = run(capsys, "export", source, tmp_path / "out", *shlex.split(option))
    assert code == 0, error
    assert "note: fields of config.json that were ignored on request: a_new_field" in out


def test_the_next_command_after_a_merge_verifies_it(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model", "qwen2")
    lora = f"{adapter(tmp_path / 'tuned')}:0.5"
    code, out, error = run(capsys, "export", source, tmp_path / "out", "--lora", lora, "--quant", "f32")
    assert code == 0, error
    assert "note: the LoRA adapter tuned is merged into 1 tensors, scale 0.5" in out
    command = out.split("next:  sprat ")[1].split("   then:")[0]
    options = ("--max-tokens", "64", "--backend", "reference", "--max-kld", "1e-6")
    code, out, error = run(capsys, *shlex.split(command), *options)
    assert code == 0, out + error


def test_an_option_for_an_absent_field_is_an_error(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model")
    code, _, error = run(capsys, "export", source, tmp_path / "out", "--ignore-config-field", "no_such")
    assert code == 2
    assert "no_such cannot be ignored: it is not in the file, or sprat knows it" in error


def test_optimum_refuses_options_that_it_would_ignore(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model", "qwen2")
    code, _, error = run(capsys, "export", source, tmp_path / "out", "--exporter", "optimum", "--lora", "x")
    assert code == 2
    assert "--lora: optimum exports the source as it is" in error


def test_what_optimum_made_is_printed(tmp_path, capsys, monkeypatch):
    from sprat.cli.artifacts import export as module
    from sprat.export.onnx.optimum import OptimumExport
    from sprat.quant.quality import QualityMeter

    meter = QualityMeter()
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    meter.add(logits, logits, np.arange(8) % 5)
    traced = OptimumExport(path=tmp_path / "out", n_quantized=3, n_unquantized=1, quality=meter.result())
    monkeypatch.setattr(module, "export_with_optimum", lambda *_, **__: traced)
    code, out, _ = run(capsys, "export", "model", tmp_path / "out", "--exporter", "optimum")
    assert code == 0
    assert "3 products quantized, 1 left in float" in out
    code, out, _ = run(capsys, "export", "model", tmp_path / "out", "--exporter", "optimum", "--json")
    assert json.loads(out)["n_quantized"] == 3


def test_the_plan_of_the_device_is_printed(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model", "qwen2")
    code, out, error = run(capsys, "export", source, tmp_path / "out", "--device", "rpi5-8gb")
    assert code == 0, error
    assert "fits on rpi5-8gb" in out


def test_a_dry_run_prints_sizes_and_writes_nothing(tmp_path, capsys):
    source, out = write_checkpoint(tmp_path / "model", "qwen2"), tmp_path / "out"
    code, text, error = run(capsys, "export", source, out, "--device", "rpi5-8gb", "--dry-run")
    assert code == 0, error
    for part in ("nothing was written", "fits on rpi5-8gb", "| attn_q ", ".gguf", "free on the disk: ", "time: about "):
        assert part in text
    found = json.loads(run(capsys, "export", source, out, "--dry-run", "--json")[1])
    assert found["size_bytes"] == sum(found["files"].values())
    assert found["free_bytes"] > 0
    assert found["missing_bytes"] == 0
    assert found["tensor_groups"][0]["role"] == "token_embd"
    assert found["plan"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_optimum_has_no_dry_run(tmp_path, capsys):
    code, _, error = run(capsys, "export", tmp_path, tmp_path / "out", "--exporter", "optimum", "--dry-run")
    assert (code, "--dry-run: optimum's sizes are not known" in error) == (2, True)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, "nothing is lost: the same command begins again"),
        (Progress(1 << 20, 1 << 30, "reading the source"), "nothing is lost: the same command begins again"),
        (
            Progress(3 << 20, 6 << 20, "blk.1.attn_q.weight", resumes=True),
            "3.0 MiB of 6.0 MiB are written; the same command continues",
        ),
        (
            Progress(3, 6, "layer 4 of 6"),
            "nothing was written meanwhile; the same command goes on from what was measured",
        ),
    ],
)
@pytest.mark.parametrize("command", ["export", "quantize"])
def test_ctrl_c_says_that_the_same_command_continues(command, state, expected, tmp_path, capsys, monkeypatch):
    def interrupted(*_arguments, progress, **_options):
        if state:
            progress(state)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"sprat.cli.artifacts.{command}.{command}", interrupted)
    code, _, error = run(capsys, command, "a", tmp_path / "b")
    assert code == 130
    assert error.splitlines()[-1].startswith(f"sprat: interrupted; {expected}")


@pytest.mark.parametrize("template", [None, "{{ x }", [{"name": "rag", "template": "{{ messages }}"}]])
def test_the_next_command_of_a_model_that_cannot_chat_works(template, tmp_path, capsys):
    source = write_checkpoint(tmp_path / "model", "qwen2")
    config = json.loads((source / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (source / "chat_template.jinja").unlink(missing_ok=True)
    (source / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template else {}))
    )
    code, out, error = run(capsys, "export", source, tmp_path / "out")
    assert code == 0, error
    command = out.split("then:  sprat ")[-1].strip()
    assert command.endswith(" 'a prompt' --raw")
    code, _, error = run(capsys, *shlex.split(command), "-n", "1")
    assert code == 0, error
