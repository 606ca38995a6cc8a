"""GPUs through llama.cpp: which there are, what goes on one, and llama.cpp's parameters for that."""
