"""What a process gives up before it opens an untrusted file: writing, the network, other processes."""
