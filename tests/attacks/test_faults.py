"""An export that is killed, or whose system calls fail, at every call that changes something below OUT.

Afterwards OUT is as it was or complete, and the same command makes it complete and leaves nothing else. A sweep over
every call takes minutes (``make attack``); otherwise it is some of the calls, and the last ones, which publish.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
STRIDE = "1" if os.environ.get("SPRAT_ATTACK") == "whole" else "29"
ACTIONS = {"killed": "k", "EIO": "i", "ENOSPC": "s", "short write": "h"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "student", "qwen2")


@pytest.mark.slow
@pytest.mark.parametrize(("action", "force"), list(itertools.product(ACTIONS, (False, True))))
def test_a_fault_at_any_call_leaves_a_complete_output_or_none(action, force, shim, source, tmp_path):
    command = [sys.executable, SUPPORT / "faulty_export.py", shim, source, tmp_path, ACTIONS[action]]
    command += ["force" if force else "new", STRIDE]
    paths = os.pathsep.join([str(HERE.parents[1] / "src"), str(SUPPORT)])
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, *strikes = map(json.loads, done.stdout.splitlines())
    assert first["raised"] is None
    assert first["calls"] > 20
    assert len(strikes) > 8
    for strike in strikes:
        check(strike, force=force, is_kill=action == "killed", is_short=action == "short write")


def check(strike, *, force, is_kill, is_short):
    before = {"old"} if force else {"absent"}
    assert strike["left"] in before | {"new"}, strike
    assert (strike["status"] != 0) == is_kill, strike
    if is_short:
        assert (strike["raised"], strike["left"]) == (None, "new"), strike
    if strike["raised"] is None and not is_kill:
        assert strike["left"] == "new", strike
    elif not is_kill:
        assert strike["raised"].startswith("SpratError: "), strike["raised"]
    assert (strike["again"], strike["then"], strike["beside"]) == (None, "new", ["out"]), strike
