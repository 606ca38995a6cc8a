"""The packaged student, served; and a scripted model whose passes take their time."""

import importlib.util
import time

import numpy as np
import pytest
from scripted_model import scripted_engine

import sprat

PASS_S = 0.01

if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "prometheus_client", "httpx")):
    collect_ignore_glob = ["test_*.py"]  # pip install 'sprat[serve]' httpx


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    """A bundle of the packaged student."""
    return sprat.export("demo", tmp_path_factory.mktemp("served") / "student", quant="int8").path


@pytest.fixture(scope="module")
def server(student):
    """The packaged student under the name ``student``."""
    from http_server import running_server

    with running_server({"student": student}) as running:
        yield running


def forever(_tokens):
    """Logits that say ``a`` for ever, slowly."""
    time.sleep(PASS_S)
    logits = np.zeros(260, np.float32)
    logits[ord("a")] = 100
    return logits


@pytest.fixture
def slow_models(monkeypatch):
    """Make every model that a server loads one that answers slowly and does not end."""
    monkeypatch.setattr("sprat.server.model_pool.load", lambda *_, **__: scripted_engine(forever))
