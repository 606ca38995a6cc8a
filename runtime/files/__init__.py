"""Model files: GGUF, ONNX and bundles, read and validated."""
