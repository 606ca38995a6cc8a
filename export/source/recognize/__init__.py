"""What a source is and what its tensors are: known kinds that are not read, wrappers' names, tensors left out."""
