"""A process that exports again and again, each time with a fault at another call, for ``tests/attacks/test_faults.py``.

``python faulty_export.py SHIM SOURCE FOLDER ACTION FORCE STRIDE`` prints the number of calls that an export makes, then
a JSON line per fault. The shim (``tests/attacks/faulty_calls.c``) is preloaded. Each export runs in a forked child, so
that Python and sprat start only once.
"""

import ctypes
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

from sprat.errors import BundleError, SpratError
from sprat.export import pipeline
from sprat.export.write import writer
from sprat.runtime.files.bundle import Bundle

_NEVER = 1 << 40
_OLD, _NEW = "int8", "q4_0"  # not int4, which is calibrated: minutes per sweep


class Attack:
    """One kind of fault, at every call of an export."""

    def __init__(self, shim, source, folder, action, *, force):
        self.shim, self.source, self.out = ctypes.CDLL(shim), source, folder / "out"
        self.action, self.force = action, force
        self.old, self.new = folder / "old" / "out", folder / "new" / "out"  # some files name their bundle
        self.child(self.old, _OLD)
        self.child(self.new, _NEW)

    def child(self, out, quant, at=_NEVER):
        """Export in a child with a fault at call ``at``: its status, what it raised, and the calls that it made."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self.shim.fault_arm(os.fsencode(out), ctypes.c_long(at), ctypes.c_char(self.action.encode()))
            os.write(writing, json.dumps(export(self.source, out, quant, force=self.force)).encode())
            os.write(writing, b"\n%d" % self.shim.fault_count())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        raised, _, count = text.partition("\n")
        return os.waitpid(pid, 0)[1], json.loads(raised or "null"), int(count or 0)

    def strike(self, at):
        """What an export with a fault at call ``at`` leaves, and what the same command then does."""
        self.reset()
        status, raised, _ = self.child(self.out, _NEW, at)
        left = self.state()
        _, again, _ = self.child(self.out, _NEW)
        return {
            "at": at,
            "status": status,
            "raised": raised,
            "left": left,
            "again": again,
            "then": self.state(),
            "beside": sorted(path.name for path in self.out.parent.iterdir() if path.name.startswith("out")),
        }

    def reset(self):
        """As before the export: no OUT, or with ``force`` the old one."""
        for path in self.out.parent.iterdir():
            if path.name.startswith("out"):
                shutil.rmtree(path)
        if self.force:
            shutil.copytree(self.old, self.out)

    def state(self):
        """What OUT is: absent, old, new, or broken."""
        if not self.out.exists():
            return "absent"
        try:
            Bundle.open(self.out).check()
        except BundleError as error:
            return f"broken: {error}"
        files = contents(self.out)
        return "new" if files == contents(self.new) else "old" if files == contents(self.old) else "another"


def export(source, out, quant, *, force):
    """The error of an export as text; ``None`` when it succeeds."""
    try:
        pipeline.export(source, out, quant=quant, force=force)
    except SpratError as error:
        return f"SpratError: {error}"
    except BaseException:  # noqa: BLE001 - shown by the parent
        return traceback.format_exc()
    return None


def tell(record):
    """One line for the test."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def main(shim, source, folder, action, force, stride):
    writer._HUGE_PAGE_BYTES = 16384  # several writes, also of a small model
    attack = Attack(shim, Path(source), Path(folder), action, force=force == "force")
    attack.reset()
    _, raised, n_calls = attack.child(attack.out, _NEW)
    tell({"calls": n_calls, "raised": raised})
    publishing = range(max(0, n_calls - 20), n_calls, 3)
    points = range(n_calls) if int(stride) == 1 else sorted({*range(0, n_calls, int(stride)), *publishing})
    for at in points:
        tell(attack.strike(at))


if __name__ == "__main__":
    main(*sys.argv[1:])
