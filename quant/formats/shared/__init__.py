"""Code shared by several formats: packing of codes, super-blocks, searches of scales, importance."""
