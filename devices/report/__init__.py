"""Reports: an HTML page from results and plans, and its charts as PNG files.

    inputs.py (files) -> runs.py (names) -> figures/ (findings) -> charts/ (SVG) -> page.py (HTML), png.py

``build.py`` calls them in this order.
"""
