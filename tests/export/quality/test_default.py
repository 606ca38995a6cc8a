"""Which exports are ``fast`` without being asked: one GGUF in int4."""

import pytest

from sprat.errors import InputError
from sprat.export.calibrated import wanted_quality
from sprat.export.options import ExportOptions
from sprat.export.pipeline import export
from sprat.export.prepare import prepare
from sprat.runtime.files.gguf import GGUFFile

pytestmark = pytest.mark.usefixtures("short_texts")


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, "fast"),
        ({"quant": "int4"}, "fast"),
        ({"device": "rpi5-8gb", "quant": "int4"}, "fast"),
        ({"quality": "none"}, "none"),
        ({"quant": "q4_0"}, "none"),
        ({"quant": "q4_k_m"}, "none"),
        ({"quant": "int8"}, "none"),
        ({"quant": "f16"}, "none"),
        ({"formats": ["onnx"]}, "none"),
        ({"formats": ["gguf", "onnx"]}, "none"),
        ({"tensor_rules": [".=q4_0"]}, "none"),
        ({"quant": "q4_0", "quality": "fast"}, "fast"),
        ({"target_bpw": 5.0}, "balanced"),
    ],
)
def test_only_int4_in_one_gguf_is_fast_by_default(options, level, source, tmp_path):
    wanted = ExportOptions(**options)
    assert wanted_quality(prepare(source, tmp_path / "out", wanted), wanted).level == level


def test_the_default_has_the_bytes_and_the_name_of_int4(source, tmp_path):
    made, blind = export(source, tmp_path / "out"), export(source, tmp_path / "blind", quality="none")
    sizes = [result.bundle.artifact("gguf").stat().st_size for result in (made, blind)]
    assert 0.98 * sizes[1] <= sizes[0] <= 1.002 * sizes[1]
    manifest = made.bundle.manifest
    assert (manifest.recipe, manifest.quality.level) == ("int4", "fast")
    assert made.bundle.artifact("gguf").name.endswith("-INT4.gguf")
    assert "up to date" in export(source, tmp_path / "out", quality="fast").notes[-1]


def test_rules_keep_their_tensors(source, tmp_path):
    made = export(source, tmp_path / "out", tensor_rules=["attn_output=q8_0"])
    file = GGUFFile.open(made.bundle.artifact("gguf"))
    assert {file.weight(name).format.name for name in file.names() if "attn_output" in name} == {"Q8_0"}
    assert made.bundle.manifest.recipe == "int4 attn_output=q8_0"


def test_a_weight_of_the_speed_needs_a_device(source, tmp_path):
    with pytest.raises(InputError, match="--speed-weight asks whose speed counts"):
        export(source, tmp_path / "out", speed_weight=1.0)
    for wrong in ({"quality": "none"}, {"max_kld": 0.1}):
        with pytest.raises(InputError, match="leaves no choice"):
            export(source, tmp_path / "out", speed_weight=1.0, device="rpi5-8gb", **wrong)
    with pytest.raises(InputError, match="--speed-weight -1: expected 0 or a positive number"):
        export(source, tmp_path / "out", speed_weight=-1, device="rpi5-8gb")
