"""Backends: each holds a model's weights and computes logits. One file each; the registry finds them."""
