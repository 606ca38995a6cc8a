"""Model files: GGUF, ONNX and bundles, read and checked before they are trusted."""
