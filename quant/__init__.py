"""Block formats, rounding, recipes and quality: arrays in, arrays out."""
