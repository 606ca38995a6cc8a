"""What documents point to exists: relative links everywhere, and the files that SECURITY.md names as proof."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
NAMED_FILE = re.compile(r"`((?:tests|export|runtime|devices|quant|src)/[\w./-]+)`")


def test_documents_were_found():
    assert {"README.md", "SECURITY.md", "index.md"} <= {document.name for document in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(document):
    targets = LINK.findall(document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md", "RELEASE.md"])
def test_the_files_that_are_named_exist(name):
    files = NAMED_FILE.findall((ROOT / name).read_text())
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_index_lists_every_page():
    index = (ROOT / "docs/index.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    assert [page for page in pages if f"({page})" not in index] == []
