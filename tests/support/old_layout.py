"""DeepSeek GGUF files as llama.cpp's converter wrote them before April 2025: ``attn_kv_b`` unsplit, expanded heads."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, quantize
from split_gguf import keys_of

from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.files.gguf import GGUFFile

U32 = [GGUFValueType.UINT32]


def write_old_layout(source: Path, target: Path, kind: str = "F32", *, keep_parts: bool = False) -> Path:
    """The float32 GGUF ``source`` of deepseek2 in the old layout.

    Args:
        source: an F32 file with ``attn_k_b`` and ``attn_v_b``.
        target: the file to write.
        kind: format of ``attn_kv_b``.
        keep_parts: also write ``attn_k_b`` and ``attn_v_b`` as matrices, as ik_llama.cpp does.
    """
    with GGUFFile.open(source) as file:
        mla = spec_from_metadata(file.metadata, file).attention
        keys = keys_of(source)
        keys |= {
            "deepseek2.attention.head_count_kv": (U32, mla.n_heads),
            "deepseek2.attention.key_length": (U32, mla.qk_head_dim),
            "deepseek2.attention.value_length": (U32, mla.v_head_dim),
        }
        for key in ("key_length_mla", "value_length_mla"):
            del keys[f"deepseek2.attention.{key}"]
        writer = GGUFWriter(target, keys.pop("general.architecture")[1])
        for key, (types, value) in keys.items():
            if types[0] == GGUFValueType.ARRAY:
                writer.add_array(key, list(value))
            else:
                writer.add_key_value(key, value, types[0])
        for name in file.names():
            values = file.weight(name).dequantize()
            if "attn_k_b" in name or "attn_v_b" in name:
                if keep_parts:
                    writer.add_tensor(name, values.reshape(-1, values.shape[-1]))
                if "attn_v_b" in name:
                    keys_part = file.weight(name.replace("attn_v_b", "attn_k_b")).dequantize().swapaxes(1, 2)
                    whole = np.concatenate([keys_part, values], axis=1).reshape(-1, mla.kv_lora_rank)
                    packed = quantize(np.ascontiguousarray(whole), GGMLQuantizationType[kind])
                    writer.add_tensor(
                        name.replace("attn_v_b", "attn_kv_b"), packed, raw_dtype=GGMLQuantizationType[kind]
                    )
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target
