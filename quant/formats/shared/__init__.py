"""What several formats share: packing of codes, super-blocks, searches of scales, importance."""
