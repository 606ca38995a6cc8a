"""The versions of onnxruntime that graphs are tested in, and graphs run in one of them.

``onnxruntime_versions.txt`` is the list's one home. ``make .venv/.onnxruntimes`` installs each version into a folder of
its own, ``.venv/onnxruntime/VERSION``; ``SPRAT_ONNXRUNTIMES`` names another folder with the same contents.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["VERSIONS", "installed", "run_in"]

_HERE = Path(__file__).parent
_ROOT = Path(os.environ.get("SPRAT_ONNXRUNTIMES", _HERE.parents[1] / ".venv" / "onnxruntime"))

VERSIONS = tuple((_HERE / "onnxruntime_versions.txt").read_text(encoding="ascii").split())


def installed(version: str) -> bool:
    """Whether ``version`` was installed beside the environment's own."""
    return (_ROOT / version / "onnxruntime").is_dir()


def run_in(version: str, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of ``ort_child.py`` in ``version``; a child that dies is an error of the request it died in."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT / version)}
    answers: list[dict[str, Any]] = []
    while len(answers) < len(requests):
        text = "".join(json.dumps(request) + "\n" for request in requests[len(answers) :])
        command = [sys.executable, str(_HERE / "ort_child.py")]
        child = subprocess.run(command, check=False, input=text, capture_output=True, text=True, env=environment)
        answers += map(json.loads, child.stdout.splitlines())
        if child.returncode:
            answers.append({"version": version, "error": f"died with status {child.returncode}: {child.stderr[-400:]}"})
    assert {answer["version"] for answer in answers} == {version}, "the folder has another version"
    return answers
