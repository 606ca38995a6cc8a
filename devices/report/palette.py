"""Colours of a report, light and dark; they differ in lightness, so that colour-blind readers can tell them apart."""

from __future__ import annotations

import re

__all__ = ["DARK", "LIGHT", "css_variables", "resolve"]

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#dfe3e8",
    "measured": "#0a58a8",
    "emulated": "#a84a00",
    "predicted": "#6b7480",
    "bad": "#b3122a",
    "part0": "#12477d",
    "part1": "#4f9bd9",
    "part2": "#8e3a80",
    "part3": "#d9a514",
    "part4": "#cbd1d8",
    "part5": "#2f6b4f",
}
DARK = {
    "paper": "#14171b",
    "ink": "#e9ebee",
    "muted": "#a3acb6",
    "grid": "#313840",
    "measured": "#6ab2ff",
    "emulated": "#ffa24a",
    "predicted": "#929ca8",
    "bad": "#ff8087",
    "part0": "#3f83cc",
    "part1": "#9fd0f7",
    "part2": "#c983bd",
    "part3": "#e3bb4a",
    "part4": "#727b85",
    "part5": "#6fb894",
}


def css_variables() -> str:
    """Both palettes as CSS custom properties, selected by ``prefers-color-scheme``."""
    dark = _root(DARK)
    return f"{_root(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {dark} }}"


def resolve(css: str, palette: dict[str, str]) -> str:
    """``css`` with every ``var(--name)`` replaced, for renderers without CSS variables."""
    return re.sub(r"var\(--(\w+)\)", lambda found: palette[found[1]], css)


def _root(palette: dict[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in palette.items()) + " }"
