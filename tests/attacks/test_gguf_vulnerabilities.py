"""The classes of published vulnerabilities in GGUF readers: each fixture is refused by every command that reads one.

The fixtures are made here from the advisories' descriptions; none is a published exploit.
"""

import struct

import pytest
from command_line import run
from gguf_bytes import ARRAY, BIG, STRING, UINT32, gguf, key, tensor, text, text_key, u32_key

ARCHITECTURE = text_key("general.architecture", "llama")
COMMANDS = ["inspect", "run", "export", "quantize", "plan"]


def with_tensors(*tensors, data_bytes=256):
    return gguf([ARCHITECTURE], list(tensors), bytes(data_bytes))


def array_key(element, count, elements=b""):
    return key("an.array", ARRAY, struct.pack("<IQ", element, count) + elements)


FIXTURES = {
    "CVE-2024-21802: ne overflows the tensor's size": with_tensors(tensor("a", (1 << 62, 4))),
    "CVE-2024-21825: the count of an array of strings overflows": gguf([array_key(STRING, (1 << 60) + 1, text("a"))]),
    "CVE-2024-21836: the count of tensors overflows": gguf([ARCHITECTURE], n_tensors=(1 << 64) // 80 + 1),
    "CVE-2024-23496: the length of a string wraps to 0": gguf([key("a", STRING, struct.pack("<Q", (1 << 64) - 1))]),
    "CVE-2024-23605: the count of keys overflows": gguf(n_keys=(1 << 64) // 48 + 1),
    "CVE-2024-42478: a tensor of 2^31 dims": with_tensors(text("a") + struct.pack("<I", 1 << 31) + bytes(64)),
    "CVE-2025-53630: the sum of the tensors' sizes wraps": with_tensors(
        tensor("a", (1 << 61,)), tensor("b", (1 << 61,), offset=1 << 63)
    ),
    "CVE-2026-27940: sizes that wrap with the memory of the tensor table": with_tensors(
        tensor("a", ((1 << 61) - 8,)), tensor("b", (1 << 61,), offset=(1 << 63) - 32)
    ),
    "CVE-2026-33298: a size in exabytes over a small buffer": with_tensors(tensor("a", (1 << 31, 1 << 31))),
    "CVE-2026-7482: offset and size beyond the file": with_tensors(tensor("a", (8, 1 << 20), offset=1 << 20)),
    "a negative tensor type": with_tensors(tensor("a", (8,), kind=(1 << 32) - 1)),
    "an alignment of 2^31": gguf([ARCHITECTURE, u32_key("general.alignment", 1 << 31)], [tensor("a", (8,))], bytes(32)),
    "an alignment of 0": gguf([ARCHITECTURE, u32_key("general.alignment", 0)], [tensor("a", (8,))], bytes(32)),
    "more layers than any model": gguf(
        [ARCHITECTURE, u32_key("llama.block_count", (1 << 32) - 1)], [tensor("a", (8,))], bytes(32)
    ),
    "an array of 2^60 numbers": gguf([array_key(UINT32, BIG)]),
    "an array of arrays": gguf([array_key(ARRAY, 1, struct.pack("<IQ", ARRAY, 1) * 100)]),
    "two tensors in the same bytes": with_tensors(tensor("a", (16,)), tensor("b", (16,))),
    "two tensors of one name": with_tensors(tensor("a", (8,)), tensor("a", (8,), offset=32)),
}


def command_line(command, path, out):
    return [command, path, *{"run": ["hello"], "export": [out], "quantize": [out]}.get(command, [])]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FIXTURES)
def test_a_malicious_file_is_refused_with_one_line(name, command, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    path.write_bytes(FIXTURES[name])
    code, printed, error = run(capsys, *command_line(command, path, tmp_path / "out"))
    if command == "quantize" and "layers" in name:  # which copies all keys of any architecture, and reads none of them
        assert code == 0
        return
    assert (code, printed) == (2, "")
    assert error.startswith("sprat: ")
    assert error.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("name", ["\x1b[2J", "[/x]", "a\rb", "\u202e", "blk.0.[/red].weight", "%s%n"])
def test_names_from_a_file_are_printed_without_control_characters_or_markup(name, tmp_path, capsys):
    path = tmp_path / "model.gguf"
    tensors = [tensor(name, (8,)), tensor("b", (8,), offset=32)]
    path.write_bytes(gguf([ARCHITECTURE, text_key("general.name", name)], tensors, bytes(64)))
    for command in COMMANDS:
        _, printed, error = run(capsys, *command_line(command, path, tmp_path / "out"))
        for char in printed + error:
            assert char.isprintable() or char == "\n", repr(char)
