"""A plausible record of ``sprat bench``, which tests vary."""

from sprat.devices.bench.results import BenchTest, Emulation, Label, Machine, MeasuredModel, Measurement

MACHINE = Machine(
    processor="Cortex-A76", architecture="aarch64", n_cores=4, memory_bytes=8 << 30, system="Linux 6.6", busy_share=0.02
)
MODEL = MeasuredModel(name="student", quant="Q4_0", size_bytes=9_000_000, n_params=13_300_000, digest="sha256:00")

LIMITS = Emulation(
    cgroup_version=1,
    memory_bytes=7 << 30,
    n_cores=4,
    cpu_share=1.0,
    read_bytes_per_second=90_000_000,
    storage="microSD",
    not_emulated=("memory is as fast as this machine's",),
)


def measurement(**changed):
    """A record, with the fields in ``changed`` replaced."""
    fields = {
        "label": Label.MEASURED,
        "device": None,
        "started": "2026-11-22T02:00:00+00:00",
        "machine": MACHINE,
        "versions": {"sprat": "0.1.0"},
        "model": MODEL,
        "backend": "native",
        "threads": 4,
        "settings": {},
        "work": BenchTest.decode(128),
        "samples_tps": (10.0, 12.0, 11.0),
    }
    return Measurement(**fields | changed)
