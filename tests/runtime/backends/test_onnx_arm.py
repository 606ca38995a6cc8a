"""The packaged student as ONNX on emulated 64-bit ARM gives the same answer as on this machine."""

import json

import pytest
from arm_python import ArmPython, missing_tools

from sprat import demo
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {missing_tools()}"),
]

PROGRAM = """
import json, platform
from sprat.runtime.engine import Engine
with Engine.load({path!r}, context=256) as engine:
    reply = engine.chat([{{"role": "user", "content": {question!r}}}], max_tokens=40, temperature=0)
    print(json.dumps([platform.machine(), engine.backend_choice.name, reply["choices"][0]["message"]["content"]]))
"""


def test_the_student_controls_a_home_on_arm(tmp_path):
    question = "lights off in the kitchen"
    bundle = export(demo.path(), tmp_path / "student", quant="int8", formats=["onnx"]).bundle
    with Engine.load(bundle.path, context=256) as engine:
        here = engine.chat([{"role": "user", "content": question}], max_tokens=40, temperature=0)
    there = ArmPython(tmp_path).run(PROGRAM.format(path=str(bundle.path), question=question))
    expected = ["aarch64", "onnx", here["choices"][0]["message"]["content"]]
    assert json.loads(there.splitlines()[-1]) == expected
    assert json.loads(expected[2])["action"] == "off"
