"""The contract of the native core; each function has a NumPy twin where it is used."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, I32Array

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

CacheRows = npt.NDArray[np.float32 | np.float16]
Plane = npt.NDArray[Any]

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

class LatentAttention:
    def __init__(
        self,
        norm: F32Array,
        q_a: Matrix | None,
        q_a_norm: F32Array | None,
        q: Matrix,
        kv_a: Matrix,
        kv_a_norm: F32Array,
        k_b: Matrix,
        v_b: Matrix,
        output: Matrix,
        eps: float,
        scale: float,
    ) -> None: ...

class GroupedAttention:
    def __init__(
        self,
        norm: F32Array,
        q: Matrix,
        k: Matrix,
        v: Matrix,
        output: Matrix,
        q_bias: F32Array | None,
        k_bias: F32Array | None,
        v_bias: F32Array | None,
        head_dim: int,
        eps: float,
        scale: float,
    ) -> None: ...

class GatedMLP:
    def __init__(self, norm: F32Array, gate: Matrix, up: Matrix, down: Matrix, eps: float) -> None: ...

class Mixture:
    def __init__(
        self,
        norm: F32Array,
        router: Matrix,
        bias: F32Array | None,
        moe: MoE,
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        shared_gate: Matrix | None,
        shared_up: Matrix | None,
        shared_down: Matrix | None,
        eps: float,
    ) -> None: ...

class Head:
    def __init__(self, norm: F32Array, output: Matrix, eps: float) -> None: ...

class Angles:
    def __init__(self, cos: F32Array, sin: F32Array, interleaved: bool) -> None: ...

class KernelSet:
    def __init__(self, isa: str, n_threads: int, cores: list[int], n_digits: int) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def n_threads(self) -> int: ...
    def read(self, packed: npt.NDArray[np.uint8]) -> None: ...
    def linear(self, weight: Matrix, x: F32Array, bias: F32Array | None, out: F32Array) -> None: ...
    def embed(self, table: Matrix, tokens: I32Array, out: F32Array) -> None: ...
    def rms_norm(self, x: F32Array, gain: F32Array, eps: float, out: F32Array) -> None: ...
    def swiglu(self, gate: Matrix, up: Matrix, down: Matrix, x: F32Array, out: F32Array) -> None: ...
    def route(self, logits: F32Array, bias: F32Array | None, moe: MoE, choice: I32Array, weights: F32Array) -> None: ...
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
    def latent_attention(
        self,
        layer: LatentAttention,
        x: F32Array,
        angles: Angles,
        plane: Plane,
        index: int,
        past: int,
        expanded: bool,
    ) -> None: ...
    def grouped_attention(
        self,
        layer: GroupedAttention,
        x: F32Array,
        angles: Angles,
        keys: Plane,
        values: Plane,
        index: int,
        past: int,
    ) -> None: ...
    def gated_mlp(self, layer: GatedMLP, x: F32Array) -> None: ...
    def mixture(self, layer: Mixture, x: F32Array) -> None: ...
    def choose(self, layer: Mixture, x: F32Array, choice: I32Array, weights: F32Array) -> None: ...
    def mix_chosen(self, layer: Mixture, x: F32Array, choice: I32Array, weights: F32Array) -> None: ...
    def head(self, layer: Head, x: F32Array, out: F32Array) -> None: ...

def rope(x: F32Array, cos: F32Array, sin: F32Array, interleaved: bool) -> None: ...
