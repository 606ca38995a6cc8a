"""Charts as SVG: they know shapes, scales and labels, and nothing of results files."""
