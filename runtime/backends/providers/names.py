"""Providers by short names: onnxruntime's names, options, device memory, and the packages that have them."""

from __future__ import annotations

import msgspec

from sprat.errors import InputError, unknown_name

__all__ = ["CPU", "check_option_names", "check_provider_name", "device_memory", "full_name", "install_hint"]

CPU = "CPUExecutionProvider"
_OWN_FOLDER = (
    "pip install --no-deps --target {0} '{1}', and run this again with PYTHONPATH={0} (installed beside the "
    "onnxruntime of this environment, it would replace it)"
)


class _Provider(msgspec.Struct, frozen=True):
    """An execution provider.

    ``memory`` is onnxruntime's name of the device's memory, in which outputs can stay; ``cpu`` where the provider takes
    and returns arrays of the CPU. ``options`` are those of its page in onnxruntime's documentation.
    """

    full_name: str
    package: str  # on PyPI
    memory: str
    options: str


_PROVIDERS = {
    "coreml": _Provider(
        "CoreMLExecutionProvider",
        "",  # onnxruntime's own wheel for macOS
        "cpu",
        "ModelFormat MLComputeUnits RequireStaticInputShapes EnableOnSubgraphs SpecializationStrategy "
        "ProfileComputePlan AllowLowPrecisionAccumulationOnGPU ModelCacheDirectory",
    ),
    "cuda": _Provider(
        "CUDAExecutionProvider",
        "onnxruntime-gpu",
        "cuda",
        "device_id gpu_mem_limit arena_extend_strategy cudnn_conv_algo_search do_copy_in_default_stream "
        "cudnn_conv_use_max_workspace cudnn_conv1d_pad_to_nc1d enable_cuda_graph enable_skip_layer_norm_strict_mode "
        "use_tf32 prefer_nhwc use_ep_level_unified_stream",
    ),
    "directml": _Provider(
        "DmlExecutionProvider",
        "onnxruntime-directml",
        "dml",
        "device_id performance_preference device_filter disable_metacommands enable_graph_capture",
    ),
    "openvino": _Provider(
        "OpenVINOExecutionProvider",
        "onnxruntime-openvino",
        "cpu",
        "device_type device_id precision num_of_threads num_streams cache_dir load_config model_priority "
        "enable_opencl_throttling enable_qdq_optimizer disable_dynamic_shapes reshape_input layout",
    ),
    "qnn": _Provider(
        "QNNExecutionProvider",
        "onnxruntime-qnn<2",  # from 2.0 on it is a plugin
        "cpu",
        "backend_type backend_path profiling_level profiling_file_path rpc_control_latency vtcm_mb "
        "htp_performance_mode qnn_context_priority htp_graph_finalization_optimization_mode soc_model htp_arch "
        "device_id enable_htp_fp16_precision offload_graph_io_quantization enable_htp_spill_fill_buffer "
        "enable_htp_shared_memory_allocator",
    ),
    "webgpu": _Provider(
        "WebGpuExecutionProvider",
        "onnxruntime-webgpu",
        "webgpu",
        "deviceId powerPreference preferredLayout enableGraphCapture enableInt64 validationMode dawnBackendType "
        "storageBufferCacheMode uniformBufferCacheMode queryResolveBufferCacheMode defaultBufferCacheMode "
        "forceCpuNodeNames",
    ),
}


def check_provider_name(name: object) -> None:
    """Check that ``name`` is a provider.

    Raises:
        InputError: it is none; the message lists them.
    """
    if not isinstance(name, str) or name not in _PROVIDERS:
        raise InputError(unknown_name("provider", name, list(_PROVIDERS)))


def check_option_names(name: str, options: object) -> None:
    """Check that ``options`` is a dict of texts with names that the provider ``name`` has; onnxruntime ignores some.

    Raises:
        InputError: it is not; the message lists the names.
    """
    if not isinstance(options, dict) or any(not isinstance(text, str) for pair in options.items() for text in pair):
        raise InputError(f"provider_options is {options!r}, expected a dict of texts, such as {{'device_id': '1'}}")
    known = _PROVIDERS[name].options.split()
    for option in options:
        if option not in known:
            raise InputError(unknown_name(f"option of the provider {name}", option, known))


def full_name(name: str) -> str:
    """The name in onnxruntime: that of ``webgpu`` is ``WebGpuExecutionProvider``."""
    return _PROVIDERS[name].full_name


def device_memory(name: str) -> str | None:
    """The name of the memory that outputs can stay in, in onnxruntime; ``None`` if they are arrays of the CPU."""
    memory = _PROVIDERS[name].memory
    return None if memory == "cpu" else memory


def install_hint(name: str) -> str:
    """Command to install a provider; the wheels have a module ``onnxruntime`` each, so one replaces another."""
    package = _PROVIDERS[name].package
    if not package:
        return "it is part of onnxruntime's wheel for macOS: pip install onnxruntime, on a Mac"
    return _OWN_FOLDER.format(package.partition("<")[0], package)
