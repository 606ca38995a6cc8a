"""The reason why there is no native core."""

import importlib

from sprat import native


def test_the_environment_switches_the_core_off(monkeypatch):
    monkeypatch.setenv("SPRAT_NATIVE", "0")
    assert native._load() == (None, "switched off by SPRAT_NATIVE=0")


def test_a_core_that_was_not_built_is_a_reason(monkeypatch):
    def missing(name):
        raise ImportError(f"no {name}")

    monkeypatch.delenv("SPRAT_NATIVE", raising=False)
    monkeypatch.setattr(importlib, "import_module", missing)
    core, reason = native._load()
    assert core is None
    assert "no sprat._core" in reason
