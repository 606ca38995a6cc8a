"""Checkpoints as GGUF files: names, keys, layout, and one GGUF into another."""
