"""Native core and /proc/cpuinfo agree; /proc/cpuinfo of other machines is parsed correctly."""

import pytest

from sprat import native
from sprat.devices.cpu import _cpuinfo, features_from_cpuinfo, this_cpu

PI5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_raspberry_pi_5_has_dot_products_but_no_i8mm():
    features = features_from_cpuinfo(PI5)
    assert features == {"neon": True, "fp16": True, "dotprod": True, "sve": False, "i8mm": False, "bf16": False}


def test_avx512_needs_the_bw_dq_and_vl_extensions():
    assert not features_from_cpuinfo("flags\t: avx2 avx512f avx512bw avx512vl\n")["avx512"]
    assert features_from_cpuinfo("flags\t: avx512f avx512bw avx512dq avx512vl\n")["avx512"]


@pytest.mark.skipif(native.core is None, reason=f"no native core: {native.missing_because}")
def test_native_core_and_cpuinfo_agree():
    assert native.core.cpu_features() == features_from_cpuinfo(_cpuinfo())


def test_this_machine():
    cpu = this_cpu()
    assert cpu.n_cores >= 1
    assert cpu.page_bytes % 4096 == 0
    assert set(cpu.cache_bytes) >= {"l1d"}
