"""Block formats: one file per family, one class per format; importing this package registers all of them."""

from __future__ import annotations

from sprat.quant.formats.block import BlockFormat, format_names, format_of_type, get_format
from sprat.quant.formats.floats import BF16, F16, F32
from sprat.quant.formats.fp4 import MXFP4, NVFP4
from sprat.quant.formats.iq4_nl import IQ4_NL
from sprat.quant.formats.iq4_xs import IQ4_XS
from sprat.quant.formats.k_quants import Q4_K, Q5_K, Q6_K
from sprat.quant.formats.legacy import Q4_0, Q4_1, Q5_0, Q5_1
from sprat.quant.formats.q2_0 import Q2_0
from sprat.quant.formats.q2_k import Q2_K
from sprat.quant.formats.q3_k import Q3_K
from sprat.quant.formats.q8_0 import Q8_0

__all__ = [
    "BF16",
    "F16",
    "F32",
    "IQ4_NL",
    "IQ4_XS",
    "MXFP4",
    "NVFP4",
    "Q2_0",
    "Q2_K",
    "Q3_K",
    "Q4_0",
    "Q4_1",
    "Q4_K",
    "Q5_0",
    "Q5_1",
    "Q5_K",
    "Q6_K",
    "Q8_0",
    "BlockFormat",
    "format_names",
    "format_of_type",
    "get_format",
]
