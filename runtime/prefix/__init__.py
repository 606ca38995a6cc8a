"""Prefixes of prompts whose KV entries are kept: in memory for all streams of an engine, and in files."""
