"""Reports that people look at rather than read: one page out of results and plans, and the same charts as pictures.

    inputs.py (files) -> runs.py (names) -> figures/ (findings) -> charts/ (SVG) -> page.py (HTML), png.py

``build.py`` calls them in this order.
"""
