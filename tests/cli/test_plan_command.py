import json

import pytest
from command_line import run
from tiny_checkpoint import write_checkpoint

from sprat.cli import main


def test_all_devices_are_a_table_after_the_verdict(capsys):
    status, out, _ = run(capsys, "plan", "deepseek-v2-lite", "--all")
    assert status == 0
    assert out.startswith("deepseek-v2-lite: runs on ")
    assert "| rpi5-8gb" in out
    assert "fits with experts streamed" in out
    assert "predicted" in out
    assert "next:  sprat plan deepseek-v2-lite --device" in out


def test_one_device_has_a_memory_map_and_predicted_speeds(capsys):
    _, out, _ = run(capsys, "plan", "r1-distill-qwen-1.5b", "--device", "home-4c-8gb-4gpu")
    first = out.splitlines()[0]
    assert first.startswith("r1-distill-qwen-1.5b: int8 fits on home-4c-8gb-4gpu: ")
    for part in ("resident weights", "cache", "buffers", "reserve", "spare"):
        assert part in out
    assert "predicted from the profile, ± " in out
    assert "nothing was measured" in out


def test_a_model_that_does_not_fit_prints_the_missing_bytes_and_exits_with_0(capsys):
    status, out, _ = run(capsys, "plan", "r1-distill-qwen-1.5b", "--device", "rpi-zero-2w")
    assert status == 0
    assert "does not fit on rpi-zero-2w: " in out.splitlines()[0]
    assert "GiB more memory needed" in out.splitlines()[0]
    assert "tokens/s" not in out


def test_the_next_smaller_quantization_is_a_note(capsys):
    arguments = ("plan", "r1-distill-qwen-1.5b", "--device", "rpi4-8gb")
    _, out, _ = run(capsys, *arguments)
    assert "note: int8 is the most accurate that fits; int4 takes " in out
    assert "int4" not in run(capsys, *arguments, "--quant", "int8")[1].split("next:")[0]


def test_json_is_one_object_per_device(capsys):
    _, out, _ = run(capsys, "plan", "demo", "--device", "rpi5-8gb", "--device", "rpi4-4gb", "--json")
    plans = [json.loads(line) for line in out.splitlines()]
    assert [plan["device"] for plan in plans] == ["rpi5-8gb", "rpi4-4gb"]
    assert plans[0]["verdict"] == "fits"
    assert plans[0]["prediction"]["decode_tokens_per_s"] > 0
    assert sum(part["size_bytes"] for part in plans[0]["memory_map"]) == 8 << 30


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("deepseek-v2-lit",), "did you mean 'deepseek-v2-lite'"),
        (("demo", "--device", "rpi5"), "did you mean 'rpi5-4gb', 'rpi5-8gb' or 'rpi5-16gb'"),
        (("demo", "--memory", "much"), "expected bytes above 0"),
        (("demo", "--device", "rpi5-8gb", "--all"), "exclude each other"),
        (("demo", "--context", "999999"), "expected 1 to"),
    ],
)
def test_a_user_error_prints_one_line_and_exits_with_2(capsys, arguments, expected):
    status, out, err = run(capsys, "plan", *arguments)
    assert (status, out) == (2, "")
    assert expected in err


def test_the_next_command_is_for_the_model_that_was_planned(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_checkpoint(tmp_path / "my model", "qwen2")
    main(["export", str(folder), "out", "--quant", "int4"])
    capsys.readouterr()
    on_pi = ("--device", "rpi5-8gb")
    assert "next:  sprat export 'my model' OUT --device rpi5-8gb" in run(capsys, "plan", "my model", *on_pi)[1]
    assert "next:  sprat run out 'a prompt' --device rpi5-8gb" in run(capsys, "plan", "out", *on_pi)[1]
    assert "out: the file fits on rpi5-8gb: " in run(capsys, "plan", "out", *on_pi)[1]
    assert "next:  sprat export SOURCE OUT" in run(capsys, "plan", "r1-distill-qwen-1.5b", *on_pi)[1]


def test_a_field_of_the_config_is_ignored_and_assumed_dimensions_are_named(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "source", "qwen2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"my_field": 5}))
    option = ("--ignore-config-field", "my_field")
    for command in (("plan", folder, "--device", "rpi5-8gb"), ("inspect", folder)):
        code, _, error = run(capsys, *command)
        assert code == 2
        assert "add --ignore-config-field my_field" in error
        assert run(capsys, *command, *option)[0] == 0
    _, output, _ = run(capsys, "plan", "gigachat3-10b-a1.8b", "--device", "rpi5-8gb")
    assert "assumed: first_k_dense_replace, hidden_size" in output
    assert "assumed" not in run(capsys, "plan", "deepseek-v2-lite", "--device", "rpi5-8gb")[1]


def test_placements_on_the_gpu_are_a_table_with_an_unknown_error(capsys):
    arguments = ("plan", "deepseek-v2-lite", "--device", "home-8c-16gb-8gpu")
    _, out, _ = run(capsys, *arguments)
    assert [line.split("|")[1].strip() for line in out.splitlines() if "of 27 |" in line] == ["off", "auto", "on"]
    assert "does not fit by " in out
    assert "no GPU was measured, the error is unknown" in out
    assert "unknown" not in run(capsys, *arguments, "--gpu", "off")[1]
    assert "| auto " not in run(capsys, *arguments, "--gpu", "on")[1]
    assert ", 4.0 GiB of its memory" in run(capsys, *arguments, "--gpu", "4GiB")[1]


@pytest.mark.parametrize(("gpu", "said"), [("off", ""), ("4GiB", " --gpu 4GiB"), ("auto", " --gpu auto")])
def test_the_next_command_has_the_gpu_that_was_asked_for(capsys, gpu, said):
    arguments = ("plan", "deepseek-v2-lite", "--device", "home-8c-16gb-8gpu", "--gpu", gpu)
    assert run(capsys, *arguments)[1].endswith(f"'a prompt' --device home-8c-16gb-8gpu{said}\n")


def test_a_model_that_only_streams_without_the_gpu_says_so(capsys):
    _, out, _ = run(capsys, "plan", "qwen3-30b-a3b", "--device", "home-8c-16gb-8gpu")
    assert "tokens/s" in out
    assert ", streamed" in out
    _, out, _ = run(capsys, "plan", "deepseek-v2-lite", "--device", "jetson-orin-nano-8gb")
    assert "none fits without streaming" in out


def test_many_devices_get_a_column_for_the_gpu_on_request(capsys):
    assert "with the GPU" not in run(capsys, "plan", "qwen3-0.6b", "--all")[1]
    _, out, _ = run(capsys, "plan", "qwen3-0.6b", "--all", "--gpu", "auto")
    assert "with the GPU, t/s" in out
    assert "keep it off" in next(line for line in out.splitlines() if "| rpi5-8gb" in line)
    status, _, err = run(capsys, "plan", "qwen3-0.6b", "--gpu", "much")
    assert status == 2
    assert "gpu is 'much', expected 'off', 'auto', 'on'" in err


def test_json_has_the_placements(capsys):
    arguments = ("plan", "deepseek-v2-lite", "--device", "home-8c-16gb-8gpu", "--json", "--gpu", "6GiB")
    found = json.loads(run(capsys, *arguments)[1])["gpu"]
    assert found["card_bytes"] == 6 << 30
    assert found["best"]["placement"]["layers"] == 27
    assert found["off"]["placement"]["layers"] == 0
