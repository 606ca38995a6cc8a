"""Logits of llama.cpp with everything in float32: ``python llamacpp_logits.py model.gguf tokens.npy logits.npy``.

A separate program, because llama.cpp aborts the process on an error.
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def be_quiet(level, text, data):
    """Drop llama.cpp's log. The module keeps the callback alive."""


def logits_of(path, tokens):
    """Logits ``(n, vocab)`` after each of ``tokens``, in one pass."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.use_extra_bufts = False  # repacked weights round differently, and AMX aborts on MoE models
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 128
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens.tolist()):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(tokens), n_vocab)).copy()


if __name__ == "__main__":
    llama_cpp.llama_log_set(be_quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    np.save(sys.argv[3], logits_of(sys.argv[1], np.load(sys.argv[2])))
