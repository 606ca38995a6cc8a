"""Export: read a checkpoint, write GGUF and ONNX artifacts in a bundle, inspect and verify them."""
