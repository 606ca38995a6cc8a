"""Every command that writes, with a fault at its system calls, on a full device, killed at random.

The output is as it was or complete; a failure is one line and status 2; the same command then succeeds. A command or a
module that writes and is not in the tables fails the first tests. ``make attack`` tries every call.
"""

import ast
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from report_page import records
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.cli import group
from sprat.devices.bench.results import read_results, write_results
from sprat.devices.profile import parse_profile
from sprat.errors import SpratError
from sprat.export.quality.measuring.store import load_measurements
from sprat.files import read_input
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.gguf import GGUFFile

ROOT = Path(__file__).parents[2]
IS_WHOLE = os.environ.get("SPRAT_ATTACK") == "whole"
MOST_CALLS = 40  # per kind of fault
N_KILLS = 20 if IS_WHOLE else 1
SIZE_LIMITS = (1, 1000, 20_000) if IS_WHOLE else (1000,)
ROOMS = (0, 8, 40, 200) if IS_WHOLE else (8,)  # KiB beside the old output
ACTIONS = {"EIO": "i", "ENOSPC": "s", "short write": "h", "killed": "k"}


def is_bundle(path, models):
    Bundle.open(path).check()
    return True


def has_appended_results(path, models):
    old, now = ((folder / "results.jsonl").read_bytes() for folder in (models, path.parent))
    return now.startswith(old) and len(read_results(path)) > len(read_results(models / "results.jsonl"))


def is_profile(path, models):
    parse_profile("board", read_input(path))
    return True


def restores(path, models):
    with sprat.load(models / "bundle", backend="native") as engine, engine.session() as session:
        session.restore(path)
        return len(session.tokens) > 2


def no_half_split(path, models):
    """Parts appear by their names together, or one is missing, which opening says."""
    parts = sorted(path.glob("q-*.gguf"))
    if not parts:
        return any(path.glob("*.journal"))  # an interrupted call, which the next one continues
    try:
        return GGUFFile.open(parts[0]).close() is None
    except SpratError:
        return True


def are_measurements(path, models):
    return load_measurements(path) is not None


def are_images(path, models):
    """Each file is whole; a failure may leave some of them."""
    return all(file.read_bytes().endswith(b"IEND\xaeB`\x82") for file in path.iterdir())


class Writer(NamedTuple):
    """A command and what it writes, relative to the folder in which it runs.

    ``before`` makes the old output. Without ``is_whole``, complete is what a run without a fault writes, byte by byte.
    A cache may be absent after a failure that is no more than a warning.
    """

    command: str
    output: str
    before: str = ""
    is_whole: Callable[[Path, Path], bool] | None = None
    is_cache: bool = False
    needs: str = ""


EXPORT = "export {models}/student out --force"
WRITERS = {
    "export": Writer(f"{EXPORT} --quant int8", "out", f"{EXPORT} --quant q4_0"),
    "export, new": Writer("export {models}/student out --quant q4_0", "out"),
    "export, calibrated": Writer(EXPORT, "out", f"{EXPORT} --quant q4_0"),
    "export, imatrix": Writer(f"{EXPORT} --quality balanced --imatrix-out m.gguf", "m.gguf"),
    "export, split": Writer(f"{EXPORT} --quant f16 --split 80K", "out", f"{EXPORT} --quant q4_0"),
    "export, pruned": Writer(
        "export {models}/experts out --force --quant q4_0 --prune-experts 0.5", "out", f"{EXPORT} --quant q8_0"
    ),
    "export, onnx": Writer(
        f"{EXPORT} --quant int8 --format gguf,onnx", "out", f"{EXPORT} --quant q4_0", is_bundle, needs="onnx"
    ),
    "calibration kept": Writer("keep_measurements m.npz", "m.npz", "old file m.npz", are_measurements),
    "quantize": Writer("quantize {models}/bundle q.gguf --quant q4_0 --force", "q.gguf", "old file q.gguf"),
    "quantize, split": Writer(
        "quantize {models}/bundle q.gguf --quant f16 --split 80K --force", ".", is_whole=no_half_split
    ),
    "verify": Writer(
        "verify out --source {models}/student --max-tokens 16 --card", "out/README.md", "old folder {models}/bundle out"
    ),
    "report": Writer(
        "report {models}/results.jsonl -o page.html", "page.html", "report {models}/few.jsonl -o page.html"
    ),
    "report, images": Writer(
        "report {models}/results.jsonl -o p.html --png images", "images", is_whole=are_images, needs="matplotlib"
    ),
    "report, drawing": Writer(
        "report {models}/results.jsonl -o p.svg --force", "p.svg", "old file p.svg", needs="matplotlib"
    ),
    "bench": Writer(
        "bench {models}/bundle -p 2 -n 1 -r 1 -o results.jsonl",
        "results.jsonl",
        "old folder {models}/results.jsonl results.jsonl",
        has_appended_results,
    ),
    "devices": Writer(
        "devices probe --save board --folder .",
        "config/sprat/devices/board.toml",
        "devices probe --save board --folder .",
        is_profile,
    ),
    "frontier": Writer("frontier {models}/student --sizes q4_0 -o f.svg --force", "f.svg", needs="llama_cpp"),
    "demo": Writer("demo out", "out", is_whole=is_bundle),
    "run": Writer(
        "run {models}/bundle " + "word" * 40 + " --raw -n 1 --prefix-cache prefixes",
        "prefixes",
        is_whole=lambda *_: True,
        is_cache=True,
    ),
    "session": Writer("save_session {models}/bundle state", "state", "old file state", restores),
}
READERS = {
    "inspect": "{models}/bundle",
    "decide": "{models}/bundle hello --options yes,no",
    "eval": "{models}/bundle --task arithmetic --n 1",
    "plan": "{models}/bundle --json",
    "doctor": "",
    "chat": "{models}/bundle -n 2",  # its folder of prefixes is that of run
    "verify": "{models}/bundle --source {models}/student --max-tokens 16 --json",
    "export": "{models}/student out --dry-run --json",
    "run": "{models}/bundle hello -n 2",
    "bench": "{models}/bundle -p 2 -n 1 -r 1 --json",
}


def test_every_command_is_tried():
    tried = {name.split(",")[0] for name in WRITERS} | READERS.keys()
    assert tried >= set(group.list_commands(None)) - {"serve"}  # it writes prefixes as run does


# Module that opens a file for writing: the row above whose output it is.
WRITING_MODULES = {
    "src/sprat/files.py": "report",
    "export/quality/measuring/store.py": "calibration kept",
    "export/quality/measuring/unfinished.py": "calibration kept",  # after a minute
    "export/write/plain_files.py": "export",
    "export/write/own_folder.py": "export",
    "devices/probe/storage.py": "devices",
}


def writes(path):
    """Whether a module opens, or makes, files to write."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = {each.value for each in node.args if isinstance(each, ast.Constant)}
            if name == "open" and modes & {"w", "wb", "a", "ab", "x", "xb", "r+b", "w+b"}:
                return True
            if name in {"NamedTemporaryFile", "TemporaryFile", "mkstemp"}:
                return True
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
    return False


def test_every_module_that_writes_is_tried():
    rooms = ("src/sprat", "devices", "quant", "runtime", "export")
    modules = {path for room in rooms for path in (ROOT / room).rglob("*.py") if writes(path)}
    found = {str(path.relative_to(ROOT)) for path in modules} - {"runtime/sandbox/seccomp.py"}  # it forbids O_CREAT
    found = {name for name in found if not name.startswith(tuple(f"src/sprat/{room}/" for room in rooms[1:]))}
    assert found == WRITING_MODULES.keys()
    assert set(WRITING_MODULES.values()) <= WRITERS.keys()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writers")
    sprat.export(write_checkpoint(folder / "student", "qwen2"), folder / "bundle", quant="int8")
    write_checkpoint(folder / "experts")
    write_results(folder / "results.jsonl", records())
    write_results(folder / "few.jsonl", records()[:1])
    return folder


class Runner:
    """The process that runs commands; one for the tests of this file."""

    def __init__(self, shim, models):
        self.models = models
        self.command = [sys.executable, ROOT / "tests" / "support" / "faulty_command.py", shim]
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support")])
        # Coverage of children would be written under the fault, too.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        environment = {**inherited, "LD_PRELOAD": str(shim), "PYTHONPATH": paths}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(self.command, env=environment, text=True, **pipes)

    def run(self, command, root, **fault):
        """Run a command of the table in ``root``."""
        kind, *arguments = command.format(models=self.models).split()
        if kind == "old":
            return self.put_old(root, *arguments)
        cache = root if kind in {"run", "bench"} else self.models  # measurements are made once
        task = {"arguments": [kind, *arguments], "root": str(root), "cache": f"{cache}/cache", **fault}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def put_old(self, root, kind, *names):
        if kind == "file":
            (root / names[0]).write_bytes(b"an old file" * 1000)
        else:
            source = Path(names[0])
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / names[1])
        return {"status": 0}


@pytest.fixture(scope="module")
def runner(shim, models):
    runner = Runner(shim, models)
    yield runner
    runner.process.stdin.close()
    runner.process.wait()
    runner.process.stdout.close()


def content(path):
    """Names and bytes of a file or folder, without what a killed process left under a hidden name."""
    if not path.exists():
        return None
    if path.is_file():
        return path.read_bytes()
    files = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {str(file.relative_to(path)): data for file, data in files.items() if not file.name.endswith(".partial")}


class Trial:
    """One row of the table: its old output, and what it writes when nothing fails."""

    def __init__(self, runner, writer, root):
        self.runner, self.writer, self.root = runner, writer, root
        self.old_root = root.with_name("old")
        self.old_root.mkdir()
        if writer.before:
            assert runner.run(writer.before, self.old_root)["status"] == 0
        self.old = content(self.old_root / writer.output) if writer.before else None
        done = self.strike()
        assert done["status"] == 0, done["messages"]
        self.calls, self.seconds, self.new = done["calls"], done["seconds"], content(root / writer.output)
        assert self.new not in (self.old, None)

    def strike(self, **fault):
        """Run the command with a fault, over the old output; the folder is kept."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.old_root, self.root, dirs_exist_ok=True)
        return self.runner.run(self.writer.command, self.root, **fault)

    def state(self):
        """``old``, ``new`` or ``broken``."""
        path = self.root / self.writer.output
        found = content(path)
        if found in (self.old, None if self.writer.is_cache else self.old, {} if self.old is None else self.old):
            return "old"
        if self.writer.is_whole is None:
            return "new" if found == self.new else "broken"
        try:
            return "new" if self.writer.is_whole(path, self.runner.models) else "broken"
        except SpratError as error:
            return f"broken: {error}"

    def check(self, done, fault):
        """What was left, and that the same command then succeeds."""
        state = self.state()
        assert state in {"old", "new"}, (fault, state, done)
        assert "Traceback" not in done["messages"], (fault, done["messages"])
        if done["status"] == 0:
            assert state == "new" or self.writer.is_cache, (fault, done)
        elif done["status"] > 0:
            assert done["status"] == 2, (fault, done)
            assert done["messages"].splitlines()[-1].startswith("sprat: "), (fault, done["messages"])
        again = self.runner.run(self.writer.command, self.root)
        assert (again["status"], self.state()) == (0, "new"), (fault, again)


@pytest.fixture
def trial(request, runner, tmp_path):
    writer = WRITERS[request.param]
    if writer.needs:
        pytest.importorskip(writer.needs)
    root = tmp_path / "root"
    root.mkdir()
    return Trial(runner, writer, root)


every_writer = pytest.mark.parametrize("trial", WRITERS, indirect=True)


def faults(n_calls):
    """Names of faults, each at calls at equal distances and at the last, which publishes.

    The short form has a call for each: the first for one of them, the last for another, which depend on the number.
    """
    if n_calls == 0:
        return []
    if IS_WHOLE:
        calls = sorted({*range(0, n_calls, -(-n_calls // MOST_CALLS)), n_calls - 1})
        return list(itertools.product(ACTIONS, calls))
    names = [*ACTIONS] * 2
    first, last = n_calls % len(ACTIONS), len(ACTIONS) - 1
    return [(names[first + step], step * (n_calls - 1) // last) for step in range(len(ACTIONS))]


@pytest.mark.slow
@every_writer
def test_a_fault_at_any_call_loses_nothing(trial):
    for name, at in faults(trial.calls):
        done = trial.strike(at=at, action=ACTIONS[name])
        assert (done["status"] == -9) <= (name == "killed")
        trial.check(done, f"{name} at call {at}")


@pytest.mark.slow
@every_writer
def test_killed_at_any_moment_it_loses_nothing(trial):
    rng = random.Random(trial.writer.command)
    for moment in [rng.uniform(0, trial.seconds) for _ in range(N_KILLS)]:
        trial.check(trial.strike(kill_after=moment), f"killed after {moment} s")


@pytest.mark.slow
@every_writer
def test_a_limit_of_file_sizes_loses_nothing(trial):
    for limit in SIZE_LIMITS:
        trial.check(trial.strike(limit=limit), f"RLIMIT_FSIZE of {limit}")


@pytest.mark.slow
@every_writer
def test_a_full_device_loses_nothing(trial):
    used = sum(-(-file.stat().st_size // 4096) * 4 + 8 for file in trial.old_root.rglob("*"))
    for room in ROOMS:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={used + room + 4}k", "none", trial.root]
        if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a tmpfs")
        try:
            done = trial.strike()
            subprocess.run(["mount", "-o", "remount,size=64m", trial.root], check=True)
            trial.check(done, f"{room} KiB left")
        finally:
            subprocess.run(["umount", trial.root], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", READERS)
def test_a_result_that_cannot_be_printed_is_an_error(command, models, tmp_path):
    arguments = [sys.executable, "-m", "sprat", command, *READERS[command].format(models=models).split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env=environment,
            input="hello\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == "sprat: the output cannot be written: No space left on device"
