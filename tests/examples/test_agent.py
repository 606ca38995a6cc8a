"""The agent of examples/agent.py calls its functions, with the packaged student."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "agent.py"


def test_the_agent_makes_a_call_and_answers():
    command = [sys.executable, PROGRAM, "demo", "lights on in the kitchen", "--call"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first = done.stdout.splitlines()[0]
    assert re.fullmatch(
        r"(switch_lamp\(\{'room': '(kitchen|hall)', 'on': (True|False)\}\)|lamp_is_on\(.*\)) = (true|false)", first
    )
    assert done.returncode == 0 or "agent: the model has made calls" in done.stderr


def test_the_agent_is_short():
    assert len(PROGRAM.read_text("utf-8").splitlines()) < 80
