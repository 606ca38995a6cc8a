"""What an export reads: checkpoint folders and GGUF files, tensor by tensor."""
