"""Whether an artifact still behaves like its source."""
