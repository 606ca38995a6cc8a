"""Every seed of the fuzz corpus, past findings among them, is read or refused, and so are some mutations of each."""

import random

import pytest
from fuzz_mutate import mutate
from fuzz_seeds import FINDINGS, seeds
from fuzz_targets import TARGETS, remove_files, run

pytest.importorskip("onnx_ir")


@pytest.fixture(scope="module", autouse=True)
def cleanup():
    yield
    remove_files()


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_read_or_refused(target):
    outcomes = {name: run(target, data) for name, data in seeds(target).items()}
    valid = outcomes.keys() - FINDINGS.get(target, {}).keys()
    assert any(outcomes[name] for name in valid), "no valid input reaches the end: the target tests little"


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"template"}))
def test_mutations_are_read_or_refused(target):
    rng = random.Random(19)
    corpus = [data for data in seeds(target).values() if len(data) < 1 << 16] or list(seeds(target).values())
    for _ in range(40):
        run(target, mutate(rng.choice(corpus), rng, corpus, 1 << 16))


def test_findings_belong_to_targets():
    assert FINDINGS.keys() <= TARGETS.keys()
