"""Measure a model, layer by layer: statistics of inputs, probes of formats, divergence of candidates."""
