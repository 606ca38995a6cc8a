"""ONNX files: the reader, what is checked before onnxruntime opens one, and the operators that a graph may have."""
