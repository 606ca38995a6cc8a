"""Running a process under a device's cores, memory and storage speed, by control groups."""
