"""A child process that runs exported graphs in one version of onnxruntime: JSON lines in, JSON lines out.

It needs onnxruntime and NumPy alone, so that ``PYTHONPATH`` decides the version. Names and shapes are those of
docs/onnx.md.

    echo '{"model": "out/model.onnx", "tokens": [1, 2, 3], "chunk": 2, "logits": "logits.npy"}' | python ort_child.py
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort


class Runner:
    """One sequence in one graph."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = {value.name: value.shape for value in self._session.get_inputs()}
        self._grouped, self._length = "attention_mask" in inputs, 0
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._cache = {
            name: np.zeros((1, shape[1], 0, shape[3]) if self._grouped else (0, shape[1]), np.float32)
            for name, shape in inputs.items()
            if name.startswith("past_")
        }

    def __call__(self, tokens: list[int]) -> Any:
        """Logits ``(n, vocab)`` after each of ``tokens``, which are appended."""
        feeds = {"input_ids": np.array([tokens], np.int64), **self._cache}
        self._length += len(tokens)
        if self._grouped:
            feeds["attention_mask"] = np.ones((1, self._length), np.int64)
        logits, *rows = self._session.run(self._outputs, feeds)
        for name, row in zip(list(self._cache), rows, strict=True):
            self._cache[name] = row if self._grouped else np.concatenate([self._cache[name], row])
        return logits[0]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    run, tokens, chunk = Runner(request["model"]), request["tokens"], request["chunk"]
    parts = [run(tokens[start : start + chunk]) for start in range(0, len(tokens), chunk)]
    np.save(request["logits"], np.concatenate(parts))
    start = time.thread_time()  # of this thread alone: other programs do not count
    for _ in range(request.get("timed", 0)):
        run(tokens[:1])
    return {"seconds": time.thread_time() - start}


for line in sys.stdin:
    try:
        answer = _answer(json.loads(line))
    except Exception as error:  # noqa: BLE001 - every error of every version is an answer
        answer = {"error": f"{type(error).__name__}: {error}"[:400]}
    sys.stdout.write(json.dumps({"version": ort.__version__, **answer}) + "\n")
    sys.stdout.flush()
