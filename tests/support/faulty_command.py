"""A process that runs commands again and again, each with one fault, for ``tests/attacks/test_writers.py``.

``python faulty_command.py SHIM`` with the shim (``tests/attacks/faulty_calls.c``) preloaded. It reads a JSON object per
line and prints one for each. Each run is a forked child, so that Python and sprat start only once.
"""

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

import numpy as np
from quick_probe import RATES

import sprat
from sprat import cli
from sprat.devices.probe import memory as probe_memory
from sprat.devices.probe import storage as probe_storage
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.store import save_measurements
from sprat.runtime.kernels import rates

_NEVER = 1 << 40


def save_session(model, path):
    """What no command does: write the state of a session."""
    with sprat.load(model, backend="native") as engine, engine.session() as session:
        session.generate("Hello", max_tokens=2, temperature=0).text()
        session.save(path)


def keep_measurements(path):
    """What an export with calibration keeps for the next one."""
    found = Measurements(n_tokens=9, kld={}, errors={}, expert_tokens={})
    found.mean_squares["blk.0.attn_q.weight"] = found.head_moments = np.ones((40, 64), np.float32)
    save_measurements(Path(path), found)


FUNCTIONS = {"save_session": save_session, "keep_measurements": keep_measurements}


def attempt(arguments):
    """Exit status of ``sprat ARGUMENTS``, or of a function of this module."""
    try:
        if arguments[0] in FUNCTIONS:
            with cli.plain_errors():
                FUNCTIONS[arguments[0]](*arguments[1:])
        else:
            cli.main(arguments)
        sys.stdout.flush()
    except sprat.SpratError as error:
        os.write(2, f"sprat: {error}\n".encode())
        return 2
    except SystemExit as end:
        return end.code
    except BaseException:  # noqa: BLE001 - shown by the parent
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def child(shim, task, messages, counted):
    """Run the task with its fault, and end."""
    root = task["root"]
    os.chdir(root)
    os.environ |= {"XDG_CACHE_HOME": task["cache"], "XDG_CONFIG_HOME": f"{root}/config"}
    os.dup2(messages, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if limit := task.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    at, action = task.get("at", _NEVER), task.get("action", "i")
    shim.fault_arm(os.fsencode(root), ctypes.c_long(at), ctypes.c_char(action.encode()))
    status = attempt(task["arguments"])
    os.write(counted, b"%d" % shim.fault_count())
    os._exit(status)


def run(shim, task):
    """Exit status (negative: the signal), messages, calls and seconds of one run."""
    messages, counted = os.pipe(), os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(shim, task, messages[1], counted[1])
    os.close(messages[1])
    os.close(counted[1])
    text = b""
    patience = task.get("kill_after")
    while True:
        left = None if patience is None else max(0.0, began + patience - time.monotonic())
        if select.select([messages[0]], [], [], left)[0]:
            part = os.read(messages[0], 1 << 16)
            text += part
            if not part:
                break
        else:
            os.kill(pid, signal.SIGKILL)
            break
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = os.read(counted[0], 32)
    os.close(messages[0])
    os.close(counted[0])
    seconds = time.monotonic() - began
    return {"status": status, "messages": text.decode(errors="replace"), "calls": int(count or 0), "seconds": seconds}


def main(library):
    probe_memory._MAX_BYTES = probe_memory._MIN_BYTES = 1 << 20
    probe_memory._SECONDS = probe_storage._READ_SECONDS = 0.01
    probe_storage._FILE_BYTES = 1 << 20
    rates.measure_rates = lambda *_, **__: RATES
    shim = ctypes.CDLL(library)
    for folder, names in cli._FOLDERS.items():
        for name in names:
            importlib.import_module(f"sprat.cli.{folder}.{name}")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(shim, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
