"""The parts of a transformer layer as ONNX operators, one file each."""
