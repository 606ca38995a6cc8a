"""Devices: profiles, plans, benchmarks, emulation and reports."""
