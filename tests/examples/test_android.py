"""The Android example compiles against stubs of its libraries, and docs/phone.md shows its code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KOTLIN = ROOT / "examples" / "android" / "app" / "src" / "main" / "kotlin"
STUBS = ROOT / "tests" / "data" / "android_stubs"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kotlinc") is None, reason="needs a Kotlin compiler: apt install kotlin")
def test_the_app_compiles(tmp_path):
    sources = [*sorted(KOTLIN.glob("*.kt")), *sorted(STUBS.iterdir())]
    compiled = subprocess.run(
        ["kotlinc", *map(str, sources), "-d", str(tmp_path / "app.jar")], check=False, capture_output=True, text=True
    )
    errors = [line for line in (compiled.stdout + compiled.stderr).splitlines() if "error:" in line]
    assert (compiled.returncode, errors) == (0, [])


def test_the_document_shows_the_code_of_the_app():
    text = (ROOT / "docs" / "phone.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```kotlin\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(KOTLIN.glob("*.kt")))
    assert blocks
    assert [block for block in blocks if block not in code] == []


def test_the_app_asks_for_no_permission():
    manifest = (KOTLIN.parent / "AndroidManifest.xml").read_text(encoding="utf-8")
    assert "uses-permission" not in manifest
