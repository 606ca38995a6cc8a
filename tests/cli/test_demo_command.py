"""``sprat demo``, from the export to the picture of the experts."""

import json
import re

import pytest
from command_line import run

from sprat.runtime.files.bundle import Bundle


@pytest.mark.slow
def test_the_demo_exports_verifies_answers_and_shows_the_experts(tmp_path, capsys):
    code, out, _ = run(capsys, "demo", tmp_path / "demo")
    assert code == 0
    manifest = Bundle.open(tmp_path / "demo").manifest
    assert (manifest.recipe, manifest.quality.level) == ("int4", "fast")
    assert "PASSED: mean KL divergence" in out
    assert "536" in out.split("3. ")[1]  # 347 + 285 - 96 stamps
    command = json.loads(re.search(r"\{.*?\n\}", out.split("4. ")[1], re.DOTALL)[0])
    assert command["device"] == "light"
    assert re.search(r"layer 1 +[ ░▒▓█]+ +\d+ of 32", out)
