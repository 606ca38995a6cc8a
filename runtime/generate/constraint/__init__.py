"""Constrained decoding: JSON schemas, regular expressions, grammars and choices as masks of tokens (llguidance)."""
