"""``python -m wheels``: build, check and try every wheel of a release; see RELEASE.md."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from wheels.build import build_pure_wheel, build_sdist, build_wheel
from wheels.checks import check_pure_wheel, check_wheel
from wheels.interpreters import find_interpreter, newer_interpreters
from wheels.targets import ABIS, TARGETS, Abi, Target
from wheels.try_out import arm_runner, run_demo, venv_runner

SOURCE = Path(__file__).parents[2]


def main() -> int:
    """Build everything into ``--dist``, which is emptied first."""
    parser = argparse.ArgumentParser(prog="wheels", description=__doc__)
    parser.add_argument("--dist", type=Path, default=SOURCE / "dist")
    parser.add_argument("--work", type=Path, default=SOURCE / "build/wheels", help="environments, build folders")
    processors = [target.processor for target in TARGETS]
    parser.add_argument("--processor", choices=processors, action="append", help="only wheels of these processors")
    options = parser.parse_args()
    dist, work = options.dist.resolve(), options.work.resolve()
    shutil.rmtree(dist, ignore_errors=True)
    for folder in (dist, work):
        folder.mkdir(parents=True, exist_ok=True)
    build_sdist(SOURCE, dist)
    for target in TARGETS:
        if target.processor in (options.processor or processors):
            for abi in ABIS:
                _make(target, abi, work, dist)
    _make_pure(work, dist)
    return 0


def _make(target: Target, abi: Abi, work: Path, dist: Path) -> None:
    wheel = build_wheel(SOURCE, target, abi, work, dist)
    check_wheel(wheel, target, abi)
    if abi.abi_tag == "abi3":
        subprocess.run([sys.executable, "-m", "abi3audit", "--strict", wheel], check=True)
    _say(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; tags, suffix, machine and libraries are correct")
    folder = work / f"try-{target.processor}-{abi.python_tag}"
    folder.mkdir(exist_ok=True)
    if target.processor == "aarch64":
        runners = [arm_runner(abi.abi_tag, folder)]
    else:
        pythons = newer_interpreters(abi.python) if abi.abi_tag == "abi3" else [find_interpreter(abi.python)]
        runners = [venv_runner(python, folder) for python in pythons]
    for runner in runners:
        _say(f"{wheel.name}: sprat demo in {runner.name}")
        run_demo(runner, wheel, folder)


def _make_pure(work: Path, dist: Path) -> None:
    wheel = build_pure_wheel(SOURCE, work, dist)
    check_pure_wheel(wheel)
    folder = work / "try-pure"
    folder.mkdir(exist_ok=True)
    runner = venv_runner(find_interpreter(ABIS[0].python), folder)
    _say(f"{wheel.name}: sprat demo in {runner.name}")
    run_demo(runner, wheel, folder, native=False)


def _say(line: str) -> None:
    print(f"== {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
