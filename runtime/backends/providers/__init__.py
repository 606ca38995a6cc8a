"""onnxruntime's execution providers besides the CPU's: what they compute of a graph, and whether it is right."""
