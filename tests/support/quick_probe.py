"""A device probe that takes milliseconds, and made-up kernel rates."""

from sprat.devices.probe import KernelRates
from sprat.devices.probe import memory as probe_memory
from sprat.devices.probe import storage as probe_storage

RATES = KernelRates(name="pretended", int8_ops_per_s=2e11, one_token_ops_per_s=5e10, f32_ops_per_s=1e11, call_s=1e-5)


def shorten_probe(monkeypatch, config_folder):
    """Measure less memory and a smaller file for a shorter time; profiles are saved in ``config_folder``."""
    monkeypatch.setattr(probe_memory, "_MAX_BYTES", 1 << 20)
    monkeypatch.setattr(probe_memory, "_MIN_BYTES", 1 << 20)
    monkeypatch.setattr(probe_memory, "_SECONDS", 0.01)
    monkeypatch.setattr(probe_storage, "_FILE_BYTES", 16 << 20)
    monkeypatch.setattr(probe_storage, "_READ_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config_folder))
