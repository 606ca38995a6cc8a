"""The contract of the native core; each function has a NumPy twin where it is used."""

import numpy as np
import numpy.typing as npt

def cpu_features() -> dict[str, bool]: ...
def cache_bytes() -> dict[str, int]: ...
def page_bytes() -> int: ...
def block_types() -> list[int]: ...
def convert(
    source_type: int,
    target_type: int,
    source: npt.NDArray[np.uint8],
    target: npt.NDArray[np.uint8],
    max_lanes: int = 16,
) -> None: ...
def first_nonfinite(source_type: int, source: npt.NDArray[np.uint8]) -> int | None: ...
def isa_names() -> list[str]: ...

F32Array = npt.NDArray[np.float32]
I32Array = npt.NDArray[np.int32]
CacheRows = npt.NDArray[np.float32 | np.float16]

class Matrix:
    def __init__(self, packed: npt.NDArray[np.uint8], format: str, n_slices: int, rows: int, cols: int) -> None: ...

class MoE:
    def __init__(
        self,
        n_experts: int,
        n_chosen: int,
        n_groups: int,
        n_groups_chosen: int,
        sigmoid: bool,
        normalize: bool,
        top2_groups: bool,
        scaling: float,
    ) -> None: ...

class KernelSet:
    def __init__(self, isa: str, n_threads: int, cores: list[int]) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def n_threads(self) -> int: ...
    def linear(self, weight: Matrix, x: F32Array, bias: F32Array | None, out: F32Array) -> None: ...
    def embed(self, table: Matrix, tokens: I32Array, out: F32Array) -> None: ...
    def rms_norm(self, x: F32Array, gain: F32Array, eps: float, out: F32Array) -> None: ...
    def swiglu(self, gate: Matrix, up: Matrix, down: Matrix, x: F32Array, out: F32Array) -> None: ...
    def route(
        self, logits: F32Array, bias: F32Array | None, moe: MoE, choice: I32Array, weights: F32Array
    ) -> None: ...
    def experts(
        self,
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        shared_gate: Matrix | None,
        shared_up: Matrix | None,
        shared_down: Matrix | None,
        x: F32Array,
        choice: I32Array,
        weights: F32Array,
        out: F32Array,
    ) -> None: ...
    def gqa(self, q: F32Array, keys: CacheRows, values: CacheRows, scale: float, out: F32Array) -> None: ...
    def mla(
        self, q: F32Array, rows: CacheRows, k_b: Matrix, v_b: Matrix, scale: float, expanded: bool, out: F32Array
    ) -> None: ...

def rope(x: F32Array, cos: F32Array, sin: F32Array, interleaved: bool) -> None: ...
