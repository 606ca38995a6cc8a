"""Checkpoints in, artifacts out: readers of sources, folds, writers, bundles and verification."""
