"""Architectures that sprat does not support: traced by optimum-onnx, quantized, and compared with the trace.

Optimum traces the model with torch in float32. Each ``MatMul`` with a constant matrix becomes a ``MatMulNBits``,
quantized by :mod:`sprat.quant`; all other nodes are kept. The logits of both graphs on the same text are compared as in
``sprat verify``. The model runs in onnxruntime and Optimum, not in sprat's engine, which runs only its own
architectures. The export needs memory for the whole model.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import BackendError, ExportError, FormatError, InputError
from sprat.export.onnx.options import OnnxOptions
from sprat.export.texts import evaluation_text
from sprat.export.write.errors import output_path
from sprat.export.write.own_folder import scratch_folder
from sprat.quant.formats.groups import GROUP_SIZES, group_format
from sprat.quant.quality import Quality, QualityMeter
from sprat.runtime.backends.onnx.session import open_session, ort_errors
from sprat.runtime.files.onnx.checks import check_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["OptimumExport", "export_with_optimum"]

_BITS = {"int4": 4, "int8": 8}
_WINDOW = 256  # tokens that are compared; the second half is scored
_NAME = "model.onnx"
_SCALE_BYTES = 2  # float16 at the start of a symmetric block


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimumExport:
    """Result: the folder, numbers of quantized and unquantized products, and logits compared with the trace."""

    path: Path
    n_quantized: int
    n_unquantized: int
    quality: Quality


def export_with_optimum(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str = "int4",
    options: OnnxOptions | None = None,
) -> OptimumExport:
    """Trace ``source`` with optimum-onnx, quantize the graph, and compare it with the trace.

    Args:
        source: a Hugging Face model folder; its Python code is not run.
        out: the folder; created when everything is written.
        quant: ``int4`` or ``int8``.
        options: block size and accuracy level.

    Raises:
        InputError: optimum does not support the architecture, or ``quant`` is another format.
        ExportError: ``out`` exists.
        BackendError: optimum-onnx is not installed, or onnxruntime cannot load the graph.
    """
    source, out, options = Path(source), output_path(out), options or OnnxOptions()
    if quant not in _BITS:
        raise InputError(f"--exporter optimum quantizes to {' or '.join(_BITS)}, not to {quant!r}")
    if os.path.lexists(out):
        raise ExportError(f"{out}: exists; choose another name, or remove it")
    with scratch_folder(out) as partial:
        _trace(source, partial / "float")
        n_quantized, n_unquantized = _quantize(partial / "float" / _NAME, partial / _NAME, _BITS[quant], options)
        check_onnx(partial / _NAME)
        quality = _compare(partial / "float" / _NAME, partial / _NAME, _token_ids(source))
        for file in (partial / "float").iterdir():
            if not file.name.startswith(_NAME):
                shutil.copy(file, partial)
        shutil.rmtree(partial / "float")
        partial.replace(out)
    return OptimumExport(path=out, n_quantized=n_quantized, n_unquantized=n_unquantized, quality=quality)


def _trace(source: Path, folder: Path) -> None:
    """Write the float graph as ``optimum-cli`` does, with the KV cache as inputs and outputs."""
    if importlib.util.find_spec("optimum") is None or importlib.util.find_spec("optimum.exporters") is None:
        raise BackendError("optimum-onnx is not installed; pip install 'sprat[optimum]'")
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: no network access
    from optimum.exporters.onnx import main_export

    try:
        main_export(
            str(source), output=str(folder), task="text-generation-with-past", dtype="fp32", trust_remote_code=False
        )
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{source}: optimum-onnx cannot export this model ({error})") from error


def _quantize(traced: Path, path: Path, bits: int, options: OnnxOptions) -> tuple[int, int]:
    """Write the quantized graph; returns the numbers of products quantized, and with rows that do not divide."""
    import onnx

    model = onnx.load(traced)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    matmuls = [node for node in model.graph.node if _has_constant_matrix(node, tensors)]
    products = {node.output[0]: _Product(node, tensors[node.input[1]], bits, options) for node in matmuls}
    quantized = {output: product for output, product in products.items() if product.block_size}
    nodes = [quantized[node.output[0]].node() if node.output[0] in quantized else node for node in model.graph.node]
    by_weight = {product.weight.name: product for product in quantized.values()}  # a matrix may be used twice
    model.graph.initializer.extend(tensor for product in by_weight.values() for tensor in product.tensors())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path, save_as_external_data=True, location=f"{_NAME}.data", size_threshold=1024)
    return len(quantized), len(products) - len(quantized)


def _has_constant_matrix(node: NodeProto, tensors: dict[str, TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in tensors and len(tensors[node.input[1]].dims) == 2


def _drop_unused(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


class _Product:
    """One ``MatMul`` and its replacement; ``block_size`` is 0 if the rows do not divide into blocks."""

    def __init__(self, node: NodeProto, weight: TensorProto, bits: int, options: OnnxOptions) -> None:
        self.weight = weight
        self._node, self._bits, self._options = node, bits, options
        sizes = [size for size in GROUP_SIZES if size <= options.block_size and weight.dims[0] % size == 0]
        self.block_size = max(sizes, default=0)

    def node(self) -> NodeProto:
        """The ``MatMulNBits`` with the same input, output and name."""
        from onnx import helper

        n_in, n_out = self.weight.dims
        return helper.make_node(
            "MatMulNBits",
            [self._node.input[0], f"{self.weight.name}.blocks", f"{self.weight.name}.scales"],
            list(self._node.output),
            name=self._node.name,
            domain="com.microsoft",
            K=n_in,
            N=n_out,
            bits=self._bits,
            block_size=self.block_size,
            accuracy_level=self._options.accuracy_level,
        )

    def tensors(self) -> Iterator[TensorProto]:
        """Codes ``(out, blocks, bytes)`` and scales ``(out, blocks)``."""
        from onnx import numpy_helper

        format = group_format(self._bits, self.block_size)
        rows: F32Array = np.ascontiguousarray(numpy_helper.to_array(self.weight).T, np.float32)
        largest = float(np.abs(rows).max(initial=0))
        if not largest <= format.largest:
            raise FormatError(
                f"{self.weight.name} holds {largest:g}; {format.name} stores magnitudes up to {format.largest:g}: "
                "repair the checkpoint"
            )
        packed = format.quantize(rows).reshape(len(rows), -1, format.block_bytes)
        scales = np.ascontiguousarray(packed[..., :_SCALE_BYTES]).view(np.float16)[..., 0].astype(np.float32)
        codes = np.ascontiguousarray(packed[..., format.codes_start :])
        yield numpy_helper.from_array(codes, f"{self.weight.name}.blocks")
        yield numpy_helper.from_array(scales, f"{self.weight.name}.scales")


def _token_ids(source: Path) -> list[int]:
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(source / "tokenizer.json")).encode(evaluation_text()).ids
    return ids[: _WINDOW + 1]


def _compare(traced: Path, quantized: Path, tokens: list[int]) -> Quality:
    """Compare the logits of both graphs on the second half of the window."""
    base, logits = (_logits(path, tokens[:-1]) for path in (traced, quantized))
    start = len(tokens) // 2
    meter = QualityMeter()
    meter.add(base[start:], logits[start:], np.asarray(tokens[start + 1 :], np.int32))
    return meter.result()


def _logits(path: Path, tokens: list[int]) -> F32Array:
    session = open_session(path, n_threads=len(os.sched_getaffinity(0)))
    ids = np.asarray([tokens], np.int64)
    feeds: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(len(tokens))[None],
    }
    wanted = {value.name: value.shape for value in session.get_inputs()}
    empty = {
        name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in wanted.items() if name not in feeds
    }
    with ort_errors(f"{path}: onnxruntime failed"):
        logits: F32Array = session.run(["logits"], {name: {**feeds, **empty}[name] for name in wanted})[0][0]
    return logits
