"""Whether files are whole: hashes of bundles and tensors, the seal of a manifest, weights that are finite."""
