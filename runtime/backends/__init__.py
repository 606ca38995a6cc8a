"""Backends: each holds a model's weights and computes logits. One file each, found by the registry."""
