"""The memory contract: amounts in user input, the footprint of a model, and what its caches and buffers take."""
