"""Whether a model fits a device and how fast it will be, from profiles and byte counts."""
