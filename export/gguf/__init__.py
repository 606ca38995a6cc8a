"""GGUF files: keys, tensor layout, and quantization of an existing GGUF."""
