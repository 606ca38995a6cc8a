"""Sources of an export: checkpoint folders and GGUF files, read tensor by tensor."""
