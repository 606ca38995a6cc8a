"""Bad input on the command line: a one-line message, exit code 2, no traceback, and no files left.

Malformed GGUF files are built in ``tests/support/gguf_bytes.py``.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import MALFORMED
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.cli import main

GGUF = "model.gguf"
ENDLESS = "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}"
ESCAPES = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


@pytest.fixture
def refused(tmp_path, capsys):
    """A function that runs a command that must fail, and returns its message."""

    def run(*args):
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in args])
        printed = capsys.readouterr()
        progress, prompt, error = printed.err.rpartition("sprat: ")
        assert caught.value.code == 2
        assert printed.out == ""
        assert prompt
        assert error.count("\n") == 1
        assert all("reading the source" in line for line in progress.splitlines())
        assert contents(tmp_path) == before
        return error

    return run


def contents(folder):
    """Every path in ``folder``, and the size of every file."""
    return {path: path.stat().st_size if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def checkpoint(tmp_path):
    """A valid checkpoint for a test to damage."""
    return write_checkpoint(tmp_path / "checkpoint", "qwen2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A valid bundle."""
    from sprat.export.pipeline import export

    folder = tmp_path_factory.mktemp("bad_input")
    return export(write_checkpoint(folder / "checkpoint"), folder / "bundle", quant="int8").path


def artifact(bundle):
    """The GGUF in ``bundle``."""
    (path,) = Path(bundle).glob("*.gguf")
    return path


@pytest.mark.parametrize("command", ["inspect", "run", "export", "quantize"])
def test_a_path_that_does_not_exist(command, refused, tmp_path):
    rest = {"inspect": [], "run": ["hello"]}.get(command, [tmp_path / "out"])
    assert "no-such-model" in refused(command, tmp_path / "no-such-model", *rest)


def test_a_folder_that_is_not_a_model(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    assert "contains no config.json" in refused("export", tmp_path / "photos", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "unknown architecture 'GPT2LMHeadModel'"),
        ({"architectures": ["Qwen4ForCausalLM"]}, "did you mean 'Qwen"),
        ({"architectures": None}, "architectures is None"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "use_sliding_window is True; sprat supports only False",
        ),
        ({"a_new_kind_of_attention": 1}, "a_new_kind_of_attention is 1, a field that sprat does not know"),
        ({"num_hidden_layers": 1 << 30}, "1073741824"),
        (
            {"head_dim": (1 << 31) - 2, "rope_scaling": CONFIGS["llama"]["rope_scaling"]},
            "applies to 2147483646 elements of a head",
        ),
        ({"hidden_size": "64"}, "hidden_size is '64'; expected a size"),
    ],
)
def test_a_config_that_is_not_supported(change, message, refused, checkpoint, tmp_path):
    (checkpoint / "config.json").write_text(json.dumps(CONFIGS["qwen2"] | change))
    assert message in refused("export", checkpoint, tmp_path / "out")


def test_a_config_that_is_not_json(refused, checkpoint, tmp_path):
    (checkpoint / "config.json").write_text("{'architectures': ")
    assert "config.json: not a JSON object" in refused("export", checkpoint, tmp_path / "out")


def test_pickled_weights(refused, checkpoint, tmp_path):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "pickled (pytorch_model.bin); pickle can run code" in refused("export", checkpoint, tmp_path / "out")


def test_a_shard_that_is_missing(refused, checkpoint, tmp_path):
    weight_map = {"model.norm.weight": "model-00001-of-00002.safetensors", "lm_head.weight": "model.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "1 of 2 shards are missing" in refused("export", checkpoint, tmp_path / "out")


@pytest.mark.parametrize("length", [0, 7, 100, 5000, -1])
def test_a_truncated_safetensors_file(length, refused, checkpoint, tmp_path):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert "model.safetensors: not a complete safetensors file" in refused("export", checkpoint, tmp_path / "out")


def test_weights_that_are_not_finite(refused, checkpoint, tmp_path):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + b"\x80\x7f")
    assert "1 with NaN or infinite weights: 'model.norm.weight'" in refused("export", checkpoint, tmp_path / "out")


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("command", ["inspect", "export", "quantize", "run"])
def test_a_malformed_gguf(command, case, refused, tmp_path):
    make, message = MALFORMED[case]
    (tmp_path / GGUF).write_bytes(make())
    rest = {"inspect": [], "run": ["hello"]}.get(command, [tmp_path / "out"])
    assert message in refused(command, tmp_path / GGUF, *rest)


def boundaries(path):
    """Offsets at and between the sections of a GGUF: magic, version, counts, metadata, tensor table, data."""
    from sprat.runtime.files.gguf import GGUFFile

    with GGUFFile.open(path) as file:
        offsets = sorted(info.offset for info in file.tensors.values())
    return [0, 4, 8, 16, 24, offsets[0] // 2, offsets[0] - 1, *offsets[:3], *offsets[-3:], path.stat().st_size - 5000]


@pytest.mark.parametrize("index", range(14))
def test_a_truncated_gguf(index, refused, exported, tmp_path):
    path = artifact(exported)
    (tmp_path / GGUF).write_bytes(path.read_bytes()[: boundaries(path)[index]])
    refused("run", tmp_path / GGUF, "hello")


@pytest.mark.parametrize(
    ("name", "value"), [("block_count", 5), ("block_count", 1 << 31), ("expert_count", 9), ("embedding_length", 128)]
)
def test_a_gguf_whose_keys_and_tensors_disagree(name, value, refused, exported, tmp_path):
    raw = artifact(exported).read_bytes()
    at = raw.index(f"deepseek2.{name}".encode()) + len(f"deepseek2.{name}") + 4
    (tmp_path / GGUF).write_bytes(raw[:at] + value.to_bytes(4, "little") + raw[at + 4 :])
    refused("run", tmp_path / GGUF, "hello")


UNUSUAL_VALUES = [
    -1,
    1 << 63,
    1.5,
    float("nan"),
    "x",
    True,
    ["a"],
    [""] * 512,
    np.array([1, 2]),
    np.full(512, -1, np.int32),
]


def test_any_value_for_any_key_loads_or_is_an_input_error(exported, tmp_path):
    """Replace each value of a valid file with each of many unusual values."""
    from sprat.errors import SpratError
    from sprat.export.gguf.layout import TensorEntry, gguf_layout
    from sprat.runtime.engine import Engine
    from sprat.runtime.files.gguf import GGUFFile

    path = artifact(exported)
    with GGUFFile.open(path) as file:
        planned = [TensorEntry(name, info.shape, file.weight(name).format) for name, info in file.tensors.items()]
        data = path.read_bytes()[min(info.offset for info in file.tensors.values()) :]
        metadata = {key: value for key, value in file.metadata.items() if key != "general.alignment"}
    n_errors = 0
    for key, value in itertools.product(metadata, UNUSUAL_VALUES):
        header = gguf_layout(metadata | {key: value}, planned, alignment=file.alignment).header
        (tmp_path / GGUF).write_bytes(header + data)
        try:
            with Engine.load(tmp_path / GGUF, backend="reference") as engine:
                engine.encode("hello")
        except SpratError:
            n_errors += 1
    assert n_errors > len(metadata) * len(UNUSUAL_VALUES) // 2


def test_a_token_outside_the_vocabulary(exported):
    from sprat.errors import PromptError
    from sprat.runtime.engine import Engine

    with (
        Engine.load(exported, backend="reference") as engine,
        pytest.raises(PromptError, match=r"outside the vocabulary: \[512\]"),
    ):
        list(engine.generate([1, 512], max_tokens=1))


@pytest.mark.parametrize(("template", "message"), [(ENDLESS, "template"), (ESCAPES, "template"), ("{{ x", "template")])
def test_a_malicious_chat_template(template, message, refused, tmp_path):
    from sprat.export.pipeline import export

    source = write_checkpoint(tmp_path / "checkpoint")
    (source / "chat_template.jinja").write_text(template)
    bundle = export(source, tmp_path / "bundle", quant="int8").path
    assert message in refused("run", bundle, "hello", "--backend", "reference")


def test_a_prompt_longer_than_the_context(refused, exported):
    assert "the prompt has" in refused("run", exported, "word " * 3000, "--backend", "reference")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "rpi5-8g", "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'? (known: "),
        ("--quant", "q4_2", "unknown quantization 'q4_2'; did you mean 'q4_"),
        ("--tensor", "ffn_down=q4_2", "'; did you mean 'Q4_"),
        ("--format", "ggu", "unknown artifact format 'ggu'; did you mean 'gguf'?"),
        ("--align", "3", "3"),
    ],
)
def test_an_unknown_name(option, value, message, refused, checkpoint, tmp_path):
    assert message in refused("export", checkpoint, tmp_path / "out", option, value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "rpi5-8g", "unknown device 'rpi5-8g'; did you mean 'rpi5-8gb'?"),
        ("--backend", "llama", "unknown backend 'llama'; did you mean 'llamacpp'?"),
        ("--memory", "lots", "lots"),
        ("--memory", "1MB", "1"),
        ("--top-p", "-1", "top_p"),
    ],
)
def test_an_invalid_option(option, value, message, refused, exported):
    assert message in refused("run", exported, "hello", option, value)


def test_an_invalid_manifest(refused, exported, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for path in Path(exported).iterdir():
        (bundle / path.name).write_bytes(path.read_bytes())
    (bundle / "manifest.json").write_text("{}")
    assert "manifest.json" in refused("run", bundle, "hello")


def test_the_command_in_a_process_of_its_own_behaves_the_same(tmp_path):
    (tmp_path / GGUF).write_bytes(b"GGUF" + bytes(8))
    args = [sys.executable, "-m", "sprat", "inspect", str(tmp_path / GGUF)]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"sprat: {tmp_path / GGUF}: byte 4: found GGUF version 0")
