"""Verification: an artifact's logits against its source's."""
