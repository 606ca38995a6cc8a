"""Export: read a checkpoint, write GGUF and ONNX artifacts in a bundle, inspect them, verify them against the source."""
