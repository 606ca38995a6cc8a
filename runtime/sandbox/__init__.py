"""A sandbox for the process that opens an untrusted file: no writing, no network, no other processes."""
