"""A mix of formats for a device that does not hold the model's recipe."""

from dataclasses import replace

from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.app.plan import plan, plan_mix, read_model
from sprat.export.calibrated import calibrate
from sprat.export.options import ExportOptions
from sprat.export.prepare import prepare
from sprat.progress import no_progress


def test_v2_lite_has_a_mix_that_stays_in_the_memory_of_8_gb():
    model, found = read_model("deepseek-v2-lite"), plan("deepseek-v2-lite", devices=["rpi5-8gb"])[0]
    mix = plan_mix(model, found)
    assert not found.fits
    assert mix.fits
    assert mix.spare_bytes < mix.usable_bytes // 100
    assert mix.prediction.decode_tokens_per_s > 2 * found.prediction.decode_tokens_per_s


def test_there_is_no_mix_where_none_is_needed_or_none_fits():
    model = read_model("deepseek-v2-lite")
    fits, too_large = plan("deepseek-v2-lite", devices=["rpi5-16gb", "rpi-zero-2w"])
    assert plan_mix(model, fits) is None
    assert plan_mix(model, too_large) is None


def test_plan_prints_the_mix(capsys):
    _, out, _ = run(capsys, "plan", "deepseek-v2-lite", "--device", "rpi5-8gb")
    assert "note: a mix of formats in 6.8 GiB" in out
    assert "its KL divergence is unknown" in out
    assert "note: a mix" not in run(capsys, "plan", "deepseek-v2-lite", "--device", "rpi5-8gb", "--quant", "int4")[1]


def test_a_calibrated_export_without_a_size_stays_in_the_memory_of_its_device(tmp_path):
    options = ExportOptions(quality="fast", quant="int8", device="rpi5-8gb")
    prepared = prepare(write_checkpoint(tmp_path / "source", "qwen2"), tmp_path / "out", options)
    footprint = prepared.plan.footprint
    tight = replace(prepared.plan, usable_bytes=footprint.total_bytes - footprint.weight_bytes // 4)
    assert not tight.fits
    found = calibrate(replace(prepared, plan=tight), options, no_progress)
    assert found.plan.fits
    assert 0.5 * footprint.weight_bytes < found.plan.footprint.weight_bytes <= 0.75 * footprint.weight_bytes
    assert sum(group.size_bytes for group in found.artifacts["gguf"].groups) <= 0.75 * footprint.weight_bytes
