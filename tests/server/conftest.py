"""The packaged student, served; and a scripted model whose passes take their time."""

import time

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'sprat[serve]'")
pytest.importorskip("uvicorn")

from http_server import running_server
from scripted_model import scripted_engine

import sprat

PASS_S = 0.01


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    """A bundle of the packaged student."""
    return sprat.export("demo", tmp_path_factory.mktemp("served") / "student", quant="int8").path


@pytest.fixture(scope="module")
def server(student):
    """The packaged student under the name ``student``."""
    with running_server({"student": student}) as running:
        yield running


def forever(_tokens):
    """Logits that say ``a`` for ever, slowly."""
    import numpy as np

    time.sleep(PASS_S)
    logits = np.zeros(260, np.float32)
    logits[ord("a")] = 100
    return logits


@pytest.fixture
def slow_models(monkeypatch):
    """Make every model that a server loads one that answers slowly and does not end."""
    monkeypatch.setattr("sprat.server.model_pool.load", lambda *_, **__: scripted_engine(forever))
