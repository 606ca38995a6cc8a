"""Check that this commit can be released: ``make release-check``, a step of RELEASE.md. Exit status 1 if not."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACEHOLDER = re.compile(r"https://[^\s>\"]*\.example\b")


def problems(root: Path) -> list[str]:
    """Reasons why the commit of ``root`` cannot be released, one line each."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    version = project["version"]
    found = []
    if not re.search(
        rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text(), re.MULTILINE
    ):
        found.append(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD': add the date")
    found.extend(
        f"{name} has the placeholder {address.group()}: replace it by the project's address"
        for name in ("pyproject.toml", "SECURITY.md")
        if (address := PLACEHOLDER.search((root / name).read_text()))
    )
    if changed := _git(root, "status", "--porcelain"):
        found.append(f"the work tree differs from the commit: {changed.splitlines()[0].strip()}, …")
    if f"v{version}" not in _git(root, "tag", "--points-at", "HEAD").split():
        found.append(f"HEAD has no tag v{version}: git tag -s v{version}")
    return found


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Print every problem."""
    found = problems(ROOT)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print("ready: tag, CHANGELOG, addresses and work tree agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
