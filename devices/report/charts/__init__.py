"""Charts as SVG. They know marks, scales and labels, and no results files.

They are drawn without a plotting library: the page adapts to width and colour scheme, text stays text, and
``sprat report`` runs on a board without further dependencies.
"""
