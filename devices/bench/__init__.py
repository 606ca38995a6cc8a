"""Benchmarks: the procedure, the records, their statistics, and the sensors of this machine."""
