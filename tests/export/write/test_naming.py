import re
from pathlib import Path

import pytest

from sprat.export.write.naming import ModelName, model_card, model_id

# From the specification, docs/gguf.md, with named groups in Python's syntax.
SPECIFICATION = re.compile(
    r"^(?:(?P<Sidecar>mmproj|mtp)-)?"
    r"(?P<BaseName>[A-Za-z0-9\s]*(?:(?:-(?:(?:[A-Za-z\s][A-Za-z0-9\s]*)|(?:[0-9\s]*)))*))-"
    r"(?:(?P<SizeLabel>(?:\d+x)?(?:\d+\.)?\d+[A-Za-z](?:-[A-Za-z]+(\d+\.)?\d+[A-Za-z]+)?)(?:-(?P<FineTune>[A-Za-z0-9\s-]+))?)?-"
    r"(?:(?P<Version>v\d+(?:\.\d+)*))(?:-(?P<Encoding>(?!LoRA|vocab)[\w_]+))?(?:-(?P<Type>LoRA|vocab))?"
    r"(?:-(?P<Shard>\d{5}-of-\d{5}))?\.gguf$"
)

V2_LITE = {  # 26 MoE layers of 64 experts, and the other parameters as one tensor
    "rest": (1_200_000_000,),
    **{
        f"blk.{layer}.ffn_{part}_exps.weight": (64, 1408, 2048)
        for layer in range(1, 27)
        for part in ("gate", "up", "down")
    },
}


@pytest.mark.parametrize(
    ("identity", "shapes", "file_name"),
    [
        ("deepseek-ai/DeepSeek-V2-Lite", V2_LITE, "DeepSeek-V2-Lite-64x1.4B-v1.0-Q4_0.gguf"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", V2_LITE, "DeepSeek-V2-Lite-64x1.4B-Chat-v1.0-Q4_0.gguf"),
        ("DeepSeek-R1-Distill-Qwen-1.5B", {"w": (1_777_088_000,)}, "DeepSeek-R1-Distill-Qwen-1.5B-v1.0-Q4_0.gguf"),
        ("SmolLM2-135M-Instruct", {"w": (134_515_008,)}, "SmolLM2-135M-Instruct-v1.0-Q4_0.gguf"),
        ("Qwen2.5-Coder-7B", {"w": (7_615_616_512,)}, "Qwen2-5-Coder-7B-v1.0-Q4_0.gguf"),
        ("my student/../v3 ☃", {"w": (26_000_000,)}, "my-student-v3-26M-v1.0-Q4_0.gguf"),
        ("☃", {"w": (26_000,)}, "model-26K-v1.0-Q4_0.gguf"),
        ("Größe-Łódź", {"w": (26_000_000,)}, "Grosse-Lodz-26M-v1.0-Q4_0.gguf"),
        ("checkpoint-500", {"w": (26_000_000,)}, "checkpoint-500-26M-v1.0-Q4_0.gguf"),
        ("student-2024-05", {"w": (26_000_000,)}, "student-2024-05-26M-v1.0-Q4_0.gguf"),
        ("Qwen3-4B-Instruct-2507", {"w": (4_022_468_096,)}, "Qwen3-4B-Instruct-2507-v1.0-Q4_0.gguf"),
        ("student-v2.1", {"w": (26_000_000,)}, "student-26M-v2.1-Q4_0.gguf"),
    ],
)
def test_file_names_follow_the_convention(identity, shapes, file_name):
    found = ModelName.parse(identity, shapes).file_name("q4_0")
    assert SPECIFICATION.match(found), f"{found} does not follow the convention"
    assert found == file_name


def test_parts_become_keys_and_missing_parts_do_not():
    name = ModelName.parse("deepseek-ai/DeepSeek-V2-Lite-Chat", V2_LITE)
    assert name.metadata() == {
        "general.name": "DeepSeek-V2-Lite-Chat",
        "general.basename": "DeepSeek-V2-Lite",
        "general.size_label": "64x1.4B",
        "general.finetune": "Chat",
    }


def test_the_name_of_a_gguf_comes_from_its_keys():
    keys = {"general.name": "My Model", "general.basename": "mine", "general.size_label": "7B", "general.version": "v2"}
    assert ModelName.of("other", keys, V2_LITE).file_name("Q8_0") == "mine-7B-v2-Q8_0.gguf"


@pytest.mark.parametrize("value", ["../../etc/passwd", "/", "a\0b", "", 7, True, ["7B"], 1.5])
@pytest.mark.parametrize("key", ["name", "basename", "size_label", "finetune", "version"])
def test_untrusted_keys_cannot_form_a_path(key, value):
    name = ModelName.of("model", {f"general.{key}": value}, V2_LITE).file_name("Q8_0")
    assert SPECIFICATION.match(name), name


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\ntags:\n- moe\nlicense: apache-2.0 \nlanguage: en\n---\n", "apache-2.0"),
        ("---\ntags: x\n---\nlicense: mit\n", None),
        ("# license: mit\n", None),
        ("---\nlicense: [a, {b: c}]\n---\n", None),
        ("---\n: : :\n\t- [\n---\n", None),
        ("---\n" * 1000, None),
        ("", None),
    ],
)
def test_the_license_is_read_from_the_front_matter(tmp_path, text, license):
    (tmp_path / "README.md").write_text(text)
    assert model_card(tmp_path) == ({"general.license": license} if license else {})


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        (
            "/hub/models--deepseek-ai--DeepSeek-V2-Lite/snapshots/604d5664dddd88a0433dbae533b7fe9472482de0",
            "deepseek-ai/DeepSeek-V2-Lite",
        ),
        ("/hub/models--gpt2/snapshots/1", "gpt2"),
        ("/models/student", "student"),
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1"),
    ],
)
def test_a_model_is_named_after_its_repository_folder_or_file(path, identity):
    assert model_id(Path(path)) == identity


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/my-student/checkpoint-500", "my-student-checkpoint-500"),
        ("runs/my-student/epoch_3", "my-student-epoch_3"),
        ("runs/checkpoint", "checkpoint"),
        ("/checkpoint-500", "checkpoint-500"),
    ],
)
def test_a_step_of_a_training_is_named_after_its_model(path, name):
    assert model_id(Path(path)) == name
