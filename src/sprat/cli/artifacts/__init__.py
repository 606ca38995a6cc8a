"""Commands that write, check and compare artifacts."""
