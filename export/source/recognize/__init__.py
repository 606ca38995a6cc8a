"""Recognition of sources and their tensors: kinds that are not read, wrappers' names, tensors left out."""
