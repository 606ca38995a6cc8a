import hashlib
import subprocess

import release_files


def test_the_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "b.whl").write_bytes(b"wheel")
    (tmp_path / "a.tar.gz").write_bytes(b"source")
    for _ in range(2):  # the second time over its own output
        release_files.write_sums(tmp_path)
        lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
        assert [line.split("  ")[1] for line in lines] == ["a.tar.gz", "b.whl"]
        assert lines[1].startswith(hashlib.sha256(b"wheel").hexdigest())
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


def test_what_is_compiled_in_is_a_dependency_of_sprat():
    bom = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": "numpy"}],
        "dependencies": [{"ref": "numpy"}, {"ref": "root", "dependsOn": ["numpy"]}],
    }
    release_files.add_compiled_in(bom, {"nanobind": "3.1.0"})
    added = bom["components"][-1]
    assert (added["name"], added["version"], added["purl"]) == ("nanobind", "3.1.0", "pkg:pypi/nanobind@3.1.0")
    assert bom["dependencies"][1]["dependsOn"] == ["numpy", added["bom-ref"]]
    assert {"ref": added["bom-ref"]} in bom["dependencies"]
