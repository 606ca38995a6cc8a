"""Architectures: the dimensions of a model (``ModelSpec``), its tensors, and its readers (``config.json``, GGUF)."""
