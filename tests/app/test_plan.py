"""Every way to name a model, and the verdicts of the examples in the documents."""

import json

import pytest
from published_configs import PUBLISHED
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.app.plan import assumed_dimensions, read_model
from sprat.devices.plan.plan import Verdict
from sprat.devices.plan.text import headline
from sprat.devices.profile import profile_names
from sprat.errors import DeviceError, FormatError, InputError
from sprat.export.pipeline import export
from sprat.text import human_bytes


def one(model, device, **options):
    return sprat.plan(model, devices=[device], **options)[0]


def test_the_smallest_distilled_model_fits_the_computer_that_guides_recommend():
    plan = one("r1-distill-qwen-1.5b", "home-4c-8gb-4gpu")
    assert plan.verdict is Verdict.FITS
    assert plan.footprint.quant == "int8"


def test_it_does_not_fit_a_zero_and_the_plan_has_the_missing_bytes():
    plan = one("r1-distill-qwen-1.5b", "rpi-zero-2w")
    assert plan.verdict is Verdict.TOO_LARGE
    assert plan.missing_bytes == plan.footprint.total_bytes - plan.usable_bytes > 10**8
    assert f"{human_bytes(plan.missing_bytes)} more memory needed" in headline(plan)


@pytest.mark.parametrize(
    ("model", "device"), [("r1-distill-qwen-7b", "home-8c-16gb-8gpu"), ("r1-distill-llama-8b", "home-20gb-12gpu")]
)
def test_the_other_home_computers_run_the_models_that_guides_recommend(model, device):
    assert one(model, device).verdict is Verdict.FITS


def test_v2_lite_in_int4_fits_16_gb_and_streams_on_8():
    verdicts = {plan.profile.name: plan.verdict for plan in sprat.plan("deepseek-v2-lite")}
    assert set(verdicts) == set(profile_names())
    assert verdicts["rpi5-16gb"] is Verdict.FITS
    assert verdicts["rpi5-8gb"] is Verdict.STREAMED
    assert verdicts["rpi-zero-2w"] is Verdict.TOO_LARGE


@pytest.mark.parametrize("size", ["r1-distill-qwen-14b", "r1-distill-qwen-32b", "r1-distill-llama-70b", "deepseek-r1"])
def test_large_models_get_a_verdict_on_every_device(size):
    plans = sprat.plan(size)
    assert len(plans) == len(profile_names())
    assert any(plan.verdict is Verdict.TOO_LARGE for plan in plans)


def test_fields_of_a_config_that_the_user_knows_are_ignored(tmp_path):
    folder = write_checkpoint(tmp_path / "source", "qwen2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"my_field": 5}))
    for path in (folder, folder / "config.json"):
        with pytest.raises(InputError, match="add --ignore-config-field my_field"):
            sprat.plan(path, devices=["rpi5-8gb"])
        assert sprat.plan(path, devices=["rpi5-8gb"], ignore_config_fields=["my_field"])[0].fits
    assert sprat.inspect(folder, ignore_config_fields=["my_field"]).architecture == "qwen2"
    for call in (sprat.plan, sprat.inspect):
        with pytest.raises(InputError, match="no_field cannot be ignored"):
            call(folder, ignore_config_fields=["my_field", "no_field"])
    bundle = sprat.export(folder, tmp_path / "out", ignore_config_fields=["my_field"]).bundle.path
    for call, model in ((sprat.plan, "deepseek-v2-lite"), (sprat.plan, bundle), (sprat.inspect, bundle)):
        with pytest.raises(InputError, match="--ignore-config-field needs a checkpoint folder"):
            call(model, ignore_config_fields=["my_field"])


def test_assumed_dimensions_of_a_preset_are_named():
    assert "hidden_size" in assumed_dimensions("ai-sage/GigaChat3-10B-A1.8B")
    assert assumed_dimensions("deepseek-v2-lite") == assumed_dimensions("nothing") == []


def test_a_checkpoint_its_config_and_its_preset_have_the_same_footprint(tmp_path):
    folder = write_checkpoint(tmp_path / "source", "deepseek2")
    bare = tmp_path / "config.json"
    bare.write_bytes((folder / "config.json").read_bytes())
    footprints = {read_model(str(path)).footprints for path in (folder, folder / "config.json", bare)}
    assert len(footprints) == 1
    published = tmp_path / "qwen.json"
    published.write_text(json.dumps(PUBLISHED["DeepSeek-R1-Distill-Qwen-7B"]))
    assert read_model(str(published)).footprints == read_model("r1-distill-qwen-7b").footprints


def test_a_file_and_its_bundle_are_planned_as_they_are(tmp_path):
    bundle = export(write_checkpoint(tmp_path / "source", "deepseek2"), tmp_path / "out", quant="int8").bundle
    planned = read_model(str(bundle.path))
    assert planned.footprints == read_model(str(bundle.artifact("gguf"))).footprints
    as_it_is, *smaller = planned.footprints
    assert as_it_is.quant == "as it is"
    assert as_it_is.weight_bytes == sum(group.size_bytes for group in bundle.manifest.tensor_groups)
    assert [footprint.quant for footprint in smaller] == ["int4"]
    assert [footprint.quant for footprint in read_model(str(bundle.path), quant="q4_k").footprints] == ["q4_k"]


def test_a_longer_context_takes_more_memory_and_a_budget_replaces_the_device_s():
    short, long = (one("r1-distill-llama-8b", "rpi5-16gb", context=length, quant="int4") for length in (1024, 65536))
    assert long.footprint.cache_bytes == 64 * short.footprint.cache_bytes
    assert one("r1-distill-llama-8b", "rpi5-16gb", memory="3GB").verdict is Verdict.TOO_LARGE


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match="did you mean 'deepseek-v2-lite'"):
        sprat.plan("deepseek-v2-lit")
    with pytest.raises(InputError, match=r"existing bundle, GGUF file, checkpoint folder or config"):
        sprat.plan(str(tmp_path / "none.gguf"))
    with pytest.raises(DeviceError, match="did you mean 'rpi5-8gb'"):
        one("demo", "rpi5-8g")
    with pytest.raises(FormatError, match="int4"):
        one("demo", "rpi5-8gb", quant="int5")
    with pytest.raises(InputError, match="expected 1 to 131072"):
        one("r1-distill-qwen-7b", "rpi5-8gb", context=200_000)
