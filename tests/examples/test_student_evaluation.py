"""The last stages of the recipe, on a model with random weights: scores of every export, and a complete card."""

import json

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

from sprat.demo.tasks import prose


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-moe", "deepseek2")


def test_every_export_is_scored_and_the_card_holds_the_scores(source, tmp_path, monkeypatch):
    import evaluation
    from card import write_card
    from evaluation import QUANTS, evaluate_exports

    monkeypatch.setattr(evaluation, "_ROUTED", 1)
    lines = []
    scores = evaluate_exports(source, tmp_path / "exports", 1, prose.held_out_texts(limit=3), lines.append)
    assert set(QUANTS) < set(scores)
    assert all(result["exact_match"] == 0 for quant in QUANTS for result in scores[quant].values())
    assert len(lines) == sum(len(scores[quant]) for quant in QUANTS)

    (tmp_path / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "losses.csv").write_text("0,8.5,8.5,8.5,1.2,2.0\n1,8.4,8.3,8.4,1.2,1.0\n1,8.4,8.3,8.4,1.2,1.0\n")
    write_card(source, tmp_path / "scores.json", tmp_path / "losses.csv")
    card = (source / "README.md").read_text()
    assert "2 steps" in card
    assert "| home | never trained on | bf16 | 1 | 0.0% |" in card


def test_routing_of_a_layer_that_always_selects_the_same_experts():
    from routing import _count

    layer = _count([np.array([[0, 1], [0, 1], [0, 1]])], n_experts=4)
    assert (layer.used, layer.busiest, layer.reuse) == (2, 1.0, 1.0)
    assert layer.entropy == pytest.approx(0.5)  # log 2 of log 4


def test_phases_follow_each_other():
    from phases import PHASES, phase_at

    assert phase_at(0) == (PHASES[0], 0)
    assert phase_at(PHASES[0].steps + 3) == (PHASES[1], 3)
    with pytest.raises(IndexError, match="beyond the last phase"):
        phase_at(sum(phase.steps for phase in PHASES))
