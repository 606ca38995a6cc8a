"""Charts as SVG: they know shapes, scales and labels, and nothing of results files.

Drawn here rather than by a plotting library, because the page follows the reader's width and colour scheme, keeps words
as words, and is made on the board itself, where ``sprat report`` shall need nothing beyond sprat.
"""
