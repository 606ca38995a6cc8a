"""The model card of a bundle: what it states, how a measurement gets into it, and that it may be edited."""

import pytest
from tiny_checkpoint import write_checkpoint

import sprat
from sprat.errors import InputError


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "Tiny-Chat", "qwen2")


@pytest.fixture
def bundle(source, tmp_path):
    return sprat.export(source, tmp_path / "out", quant="int8").bundle


def test_the_card_states_what_the_manifest_has(bundle):
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nbase_model: "Tiny-Chat"\n')
    assert "# Tiny-Chat, int8" in card
    assert f"llama-cli -m {bundle.artifact().name} -c" in card
    assert "ollama create" in card
    assert "Not measured yet" in card


def test_a_model_in_parts_has_no_modelfile(source, tmp_path):
    bundle = sprat.export(source, tmp_path / "parts", quant="f16", split="150K").bundle
    assert not (bundle.path / "Modelfile").exists()
    assert "ollama" not in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_verify_writes_its_measurement_and_leaves_the_rest(bundle, source):
    path = bundle.path / "README.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n## Licence\n\nMine.\n", encoding="utf-8")
    found = sprat.verify(bundle.path, source, backends=["reference"], max_tokens=64, card=True)
    card = path.read_text(encoding="utf-8")
    assert "Not measured yet" not in card
    assert f"| reference | {found.quality['reference'].mean_kld:.4f} ±" in card
    assert card.endswith("## Licence\n\nMine.\n")
    assert card.count("## Quality") == 1
    assert bundle.check() == ()


def test_a_deleted_card_is_written_again(bundle, source):
    (bundle.path / "README.md").unlink()
    sprat.verify(bundle.path, source, backends=["reference"], max_tokens=64, card=True)
    assert "| reference |" in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_a_file_that_is_no_bundle_has_no_card(bundle, source):
    with pytest.raises(InputError, match=r"--card writes into a bundle's README\.md"):
        sprat.verify(bundle.artifact(), source, backends=["reference"], max_tokens=64, card=True)


def test_cards_may_be_edited_without_damage(bundle, source, tmp_path):
    (bundle.path / "Modelfile").write_text("FROM scratch\n", encoding="utf-8")
    assert bundle.check() == ()
    assert "up to date" in " ".join(sprat.export(source, tmp_path / "out", quant="int8").notes)
