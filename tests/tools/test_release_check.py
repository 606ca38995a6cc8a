import subprocess

import pytest
import release_check


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, "-C", tmp_path, *arguments], check=True, capture_output=True)

    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\nurls.Homepage = "https://sprat.org"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 - 2026-12-01\n")
    (tmp_path / "SECURITY.md").write_text("Report to <https://sprat.org/security>.\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "Release 1.2.0")
    git("tag", "v1.2.0")
    return tmp_path


def test_a_tagged_commit_is_ready(repository):
    assert release_check.problems(repository) == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("CHANGELOG.md", "## 1.2.0 (unreleased)\n## 1.2.01 - 2026-12-01\n", "no section '## 1.2.0 - "),
        ("SECURITY.md", "<https://sprat.example/security>", "SECURITY.md has the placeholder https://sprat.example:"),
        ("pyproject.toml", '[project]\nversion = "1.3.0"\n', "no tag v1.3.0"),
    ],
)
def test_each_thing_that_is_missing_is_named(repository, name, text, problem):
    (repository / name).write_text(text)
    found = release_check.problems(repository)
    assert any(problem in line for line in found)
    assert any("work tree differs" in line for line in found)
