"""What a device is, what fits on it, and how fast it will be."""
