"""Quantization: block formats, conversion between them, recipes, and statistics of the loss; arrays in, arrays out."""
