"""A package ``llama_cpp`` whose card vanishes in the middle of a token: what a child process imports instead of it.

``write(folder, spec)`` makes it. Two passes succeed, as a probe needs; the next one ends the process as a C++
exception does that nobody catches. Everything else that is called returns 1.
"""

from pathlib import Path

from sprat.runtime.arch.spec import ModelSpec

__all__ = ["write"]

_SOURCE = """
import ctypes, os, sys
from types import SimpleNamespace

class Params(SimpleNamespace):
    n_batch = 8

class Function:
    def __call__(self, *_):
        return 1

class Library:
    _name = __file__
    def __getattr__(self, name):
        self.__dict__[name] = Function()
        return self.__dict__[name]

class Calls:
    _lib = Library()
    LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_DISABLED, LLAMA_FLASH_ATTN_TYPE_ENABLED = -1, 0, 1
    ggml_abort_callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
    logits = (ctypes.c_float * (8 * VOCAB))()
    passes = 0
    llama_log_callback = staticmethod(lambda function: function)
    llama_model_default_params = llama_context_default_params = staticmethod(Params)
    def llama_vocab_n_tokens(self, _vocab):
        return VOCAB
    def llama_model_n_ctx_train(self, _model):
        return CONTEXT
    def llama_batch_init(self, n, *_):
        ids = [[0] for _ in range(n)]
        return SimpleNamespace(n_tokens=0, token=[0] * n, pos=[0] * n, n_seq_id=[0] * n, seq_id=ids, logits=[0] * n)
    def llama_decode(self, _context, _batch):
        self.passes += 1
        if self.passes > 2:
            print("terminate called after throwing an instance of 'vk::DeviceLostError'", file=sys.stderr)
            print("  what():  vk::Queue::submit: ErrorDeviceLost", file=sys.stderr, flush=True)
            os.abort()
        return 0
    def llama_get_logits(self, _context):
        return ctypes.cast(self.logits, ctypes.POINTER(ctypes.c_float))
    def __getattr__(self, name):
        return Function()

llama_cpp = Calls()
"""


def write(folder: Path, spec: ModelSpec) -> None:
    """Write the module ``llama_cpp``, for a model, into ``folder``."""
    source = _SOURCE.replace("VOCAB", str(spec.vocab_size)).replace("CONTEXT", str(spec.max_context))
    (folder / "llama_cpp.py").write_text(source)
