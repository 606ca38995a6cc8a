"""Calibrated export: the best file in a number of bytes."""
