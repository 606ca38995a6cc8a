"""What an architecture is, in numbers: its spec, its tensors, and the two notations it is read from."""
