"""Backends: each holds a model's weights and computes logits. One file each, imported by the registry."""
