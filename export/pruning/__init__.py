"""Routed experts that contribute least are left out of an export."""
